"""A codec on client and worker: the executor carries what it can't read."""

from __future__ import annotations

from pathlib import Path

import stepwire
from tests.end_to_end.apps.coded import SECRET, Scramble
from tests.end_to_end.processes import System


async def test_what_a_codec_scrambles_is_never_seen_by_the_executor(tmp_path: Path):
    async with System(tmp_path, target="tests.end_to_end.apps.coded:app") as system:
        await system.start_workers(1)
        async with stepwire.Client(system.executor.address, codec=Scramble()) as client:
            receipt = await client.send("coded", {"name": SECRET})
            output = await client.result(receipt.run_ids[0], timeout=30)
        assert output == {
            "told": {"name": SECRET, "secret": SECRET},
            "backwards": SECRET[::-1],
            "count": 1,
            "event": {"secret": SECRET},
        }
        stored = b"".join(file.read_bytes() for file in (tmp_path / "executor").glob("*.db*"))
        assert len(stored) > 10_000
        assert SECRET.encode() not in stored
