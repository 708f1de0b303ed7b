"""The SDK for TypeScript in other runtimes than Node: Bun passes the whole kit, and Deno runs functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stepwire.sync_client import SyncClient
from stepwire.testing import CommandWorker, ExecutorProcess
from tests.conformance.kit import outcomes, run_kit
from tests.polyglot import typescript
from tools import toolchains

LEAST_CASES = 177
"""What Node passes; the others are about what no JavaScript can do."""


def bun() -> list[str]:
    return [str(toolchains.bun()[0] / "bun")]


def deno() -> list[str]:
    return [str(toolchains.deno()[0] / "deno"), "run", "--allow-all"]


@pytest.mark.needs("bun")
@pytest.mark.timeout(300)
def test_bun_passes_the_kit(tmp_path: Path) -> None:
    code, report, output = run_kit(tmp_path, "worker", "--", *bun(), str(typescript.program("tests/apps/conformance")))
    found = outcomes(report)
    assert code == 0, output
    assert list(found.values()).count("passed") >= LEAST_CASES, output


@pytest.mark.parametrize(
    "runtime",
    [pytest.param(bun, marks=pytest.mark.needs("bun")), pytest.param(deno, marks=pytest.mark.needs("deno"))],
    ids=lambda runtime: runtime.__name__,
)
def test_functions_run_and_the_worker_drains(runtime: Callable[[], list[str]]) -> None:
    command = [*runtime(), str(typescript.program("tests/apps/conformance"))]
    with (
        ExecutorProcess() as executor,
        SyncClient(executor.address) as client,
        CommandWorker(command, executor.address) as worker,
    ):
        fan = client.send("conformance/fan", {"n": 100}).run_ids[0]
        chain = client.send("conformance/chain").run_ids[0]
        caught = client.send("conformance/catches").run_ids[0]
        assert client.result(fan, 60) == sum(range(100))
        assert client.result(chain, 60) == 3
        assert client.result(caught, 60)["caught"] == "not now"
        assert worker.stop() == 0
