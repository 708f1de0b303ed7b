"""Every example, run by a real worker on a real executor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepwire
from stepwire.testing import ExecutorProcess, WorkerProcess

ROOT = Path(__file__).parents[2]

CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "post_payment": (
        "stripe/charge.created",
        {"user_id": "u-1", "amount": 4200},
        {"updated": "u-1 is a customer", "sent_cents": 4200},
    ),
    "chunked_text": (
        "text/submitted",
        {"text": "one two three four " * 100 + "fourteen"},
        {"chunks": 5, "longest": "fourteen"},
    ),
    "fan_out_by_events": (
        "newsletter/requested",
        {"users": ["ada", "grace", "edsger"]},
        ["ada", "grace", "edsger"],
    ),
    "race": ("quote/wanted", {"article": "lamp"}, {"service": "swift", "article": "lamp"}),
    "mixed_languages": (
        "album/arrived",
        {"notes": ["The sea", "the sun"], "pictures": []},
        {"words": {"the": 2, "sea": 1, "sun": 1}, "pictures": []},
    ),
    "sync_function": ("order/placed", {"items": ["lamp", "chair"]}, {"total": 110}),
    "task_by_name": (
        "files/arrived",
        {"contents": ["a", ""]},
        [
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ],
    ),
}


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process:
        yield process


@pytest.mark.parametrize("example", CASES)
def test_the_example_gives_its_result(example: str, executor: ExecutorProcess) -> None:
    event, data, output = CASES[example]
    with (
        WorkerProcess(f"examples.{example}:app", executor, path=ROOT),
        stepwire.SyncClient(executor.address) as client,
    ):
        run_id = send_when_served(client, event, data)
        assert client.result(run_id, timeout=60) == output


def send_when_served(client: stepwire.SyncClient, event: str, data: dict[str, Any]) -> str:
    """Send an event again until a function takes it: its worker may still be starting."""
    while True:
        receipt = client.send(event, data)
        if receipt.run_ids:
            return receipt.run_ids[0]


def test_every_example_is_tested() -> None:
    assert {path.stem for path in ROOT.glob("examples/*.py")} - {"__init__"} == set(CASES)
