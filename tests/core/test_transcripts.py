"""Whole conversations of the core, kept as text and read as diffs; `scenario` says how they are written.

After a change that is meant, `pytest tests/core/test_transcripts.py --regenerate` writes them anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.scenario import VERBS, ScenarioError, play

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_transcript_is_as_reviewed(file: Path, request: pytest.FixtureRequest) -> None:
    played = play(file.read_text())
    if request.config.getoption("--regenerate"):
        file.write_text(played)
    assert played == file.read_text()


def test_every_verb_is_used() -> None:
    said = {line.removeprefix("& ").split()[0] for file in FILES for line in file.read_text().splitlines() if line}
    assert set(VERBS) - said == set()


@pytest.mark.parametrize("line", ["shout", "step_run run1/a", "hello", "found run1: a"])
def test_a_line_that_cannot_be_played_is_named(line: str) -> None:
    with pytest.raises(ScenarioError, match=line):
        play(line)
