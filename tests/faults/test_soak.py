"""The soak itself: that it runs, and that what it says of growth can be believed. It is run for longer by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import Life, seconds, soak


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgresql"))])
async def test_a_short_soak_brings_faults_about_and_finds_no_wrong(tmp_path: Path, store: str):
    report = await soak(tmp_path, seconds=10, every=1.0, rate=3.0, seed=1, store=store)
    assert report["wrong"] == []
    assert sum(report["faults"].values()) >= 3
    assert report["runs"] >= 15
    assert report["records_checked"] > 100


def life(growth: float) -> Life:
    """A process of ten minutes whose memory, threads and descriptors grow by a share of what they were."""
    samples = [
        (float(at), int(60_000 * (1 + growth * at / 600)), int(20 * (1 + growth * at / 600)), int(40 * (1 + growth)))
        for at in range(600)
    ]
    return Life("worker", 1, samples)


@pytest.mark.parametrize(("growth", "named"), [(0.0, []), (0.1, []), (3.0, ["resident_kib", "threads"])])
def test_what_grows_is_named(growth: float, named: list[str]):
    assert [text.partition(" ")[0] for text in life(growth).grows()] == named


def test_times_can_be_given_with_units():
    assert [seconds("1"), seconds("0.5s"), seconds("200ms")] == [1.0, 0.5, 0.2]
