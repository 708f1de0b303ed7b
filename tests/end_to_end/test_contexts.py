"""What a step sees of its body's context variables: nothing, wherever it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.processes import System

APP = "tests.end_to_end.apps.contexts:app"
LOOKED = {
    "begins_with": "nobody",
    "lone": "nobody",
    "threaded": "nobody",
    "together": ["nobody", "nobody", "nobody"],
    "body": "acme",
}


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_step_sees_no_context_variable_of_its_body_and_each_body_begins_with_none(
    tmp_path: Path, workers: int
) -> None:
    async with System(tmp_path, target=APP) as system:
        await system.start_workers(workers)
        for _ in range(2):
            assert await system.result(await system.send("looks")) == LOOKED
            assert await system.result(await system.send("looks-too")) == ["nobody", "nobody", "nobody", "acme"]
