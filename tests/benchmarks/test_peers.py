"""The comparison with peers: what it asks for, and what it makes of the times. No peer is started here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.drive import measure
from benchmarks.peers.figures import Figures, ratios
from benchmarks.peers.report import BEGIN, END, report, write
from benchmarks.peers.workloads import WORKLOADS, Workload, expected
from stepwire.bench import workloads as ours

WORKLOAD = Workload("fan-50x2", "fan", 50, runs=2, at_once=2, takes=2)


def system(*repeats: list[float]) -> dict[str, Any]:
    done = {WORKLOAD.name: Figures(WORKLOAD, list(repeats)).as_data()} if repeats else {}
    trouble = {} if repeats else {WORKLOAD.name: "it takes longer than 120 s"}
    return {"given": "some settings", "missing": "", "versions": {"it": "1.0"}, "workloads": done, "trouble": trouble}


def measured() -> dict[str, Any]:
    systems = {"Stepwire": system([0.1, 0.1], [0.2, 0.2], [0.4, 0.4]), "Peer": system([1.0, 1.0]), "Slow": system()}
    return {
        "measured": "2026-01-01",
        "repeat": 3,
        "machine": {"cores": 2, "processor": "a CPU", "system": "Linux", "python": "3.11.7"},
        "workloads": [WORKLOAD.name],
        "systems": systems,
        "ratios": ratios(systems),
    }


def test_peers_do_the_workloads_of_stepwire_bench() -> None:
    known = {workload.name: workload.steps for workload in ours.WORKLOADS}
    assert {workload.name: workload.steps for workload in WORKLOADS}.items() <= known.items()


async def test_every_run_is_done_and_times_are_those_of_the_takes() -> None:
    done: list[tuple[str, int]] = []

    async def run(kind: str, count: int) -> int:
        done.append((kind, count))
        return expected(kind, count)

    assert len(await measure(run, WORKLOAD)) == WORKLOAD.takes
    assert done == [("fan", 50)] * WORKLOAD.runs * (1 + WORKLOAD.takes)  # once it warms up


async def test_a_wrong_result_is_no_measurement() -> None:
    async def run(kind: str, count: int) -> int:
        return expected(kind, count) - 1

    with pytest.raises(ValueError, match="came to 1224"):
        await measure(run, WORKLOAD)


def test_figures_are_medians_and_the_spread_is_that_of_the_repeats() -> None:
    figures = measured()["systems"]["Stepwire"]["workloads"][WORKLOAD.name]
    assert figures["steps_per_second"] == 500
    assert figures["steps_per_second_spread"] == [250, 1000]
    assert figures["p50_ms"] == 200


def test_a_ratio_is_stepwire_over_the_peer_and_there_is_none_for_what_is_trouble() -> None:
    assert measured()["ratios"] == {"Peer": {WORKLOAD.name: 5}, "Slow": {}}


def test_the_report_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(readme, report(measured()))
    text = readme.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| fan-50x2 | 500 <br> 250 to 1,000 | 100 <br> 100 to 100 | - |" in text
    assert "No fan-50x2: it takes longer than 120 s." in text


def test_a_file_without_a_place_for_the_report_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no place"):
        write(readme, "report")
    assert readme.read_text() == "nothing\n"
