"""Hostile neighbours: one attack is measured for a second, by the command itself, and what it writes has its form."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.attacks.__main__ import ATTACKS
from benchmarks.neighbours import (
    BEGIN,
    END,
    MOST_MEMORY,
    MOST_TIMES,
    REFERENCES,
    Attacker,
    AttackError,
    Found,
    attacker,
    main,
    table,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_an_attack_is_measured_beside_a_victim_and_written_down(tmp_path: Path) -> None:
    readme, file = tmp_path / "README.md", tmp_path / "found.json"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    command = [sys.executable, "-m", "benchmarks.neighbours", "--only", "forged-page-tokens", "--seconds", "1"]
    done = subprocess.run(
        [*command, "--json", str(file), "--readme", str(readme)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    head, line, row = done.stdout.splitlines()[:3]
    assert head.split(" | ")[1:4] == ["p50, p99 alone", "p50, p99 beside it", "p99 over p99 alone"]
    assert head.count("|") == line.count("|") == row.count("|")
    assert row.startswith("| forged-page-tokens | ")
    found = json.loads(file.read_text())["beside"]["forged-page-tokens"]
    assert min(found["idle"] + found["attacked"]) > 0
    before, most, after = found["memory"]
    assert before <= most
    assert after <= most
    assert found["outcomes"].keys() == {"INVALID_ARGUMENT"}, "page tokens were taken"
    assert found["trouble"] == []
    text = readme.read_text()
    assert row in text
    assert "old" not in text


def test_an_attack_that_does_not_begin_is_told_with_what_it_said() -> None:
    says = r"the attack nonsense did not begin(?s:.*)KeyError: 'nonsense'"
    with pytest.raises(AttackError, match=says), attacker("nonsense", "127.0.0.1:1", Found()):
        raise AssertionError("it has begun")


def test_an_attack_that_ends_before_it_is_told_to_is_no_measurement() -> None:
    with Attacker("burn", "127.0.0.1:1") as process:
        process.signal(signal.SIGUSR1)
        process.wait()
        with pytest.raises(AttackError, match="has ended by itself"):
            process.end()


def test_how_often_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["neighbours", "--repeat", "2"])
    with pytest.raises(SystemExit):
        main()
    assert "unrecognized arguments: --repeat 2" in capsys.readouterr().err


def test_what_is_above_the_aims_is_bold_but_for_what_is_no_attack() -> None:
    slow = Found(idle=[0.01], attacked=[0.01 * MOST_TIMES * 2], memory=[100_000_000, 300_000_000, 200_000_000])
    slow.trouble = ["a run: UNAVAILABLE", "a run: UNAVAILABLE"]
    fast = Found(idle=[0.01], attacked=[0.01], memory=[100_000_000, 130_000_000, int(100_000_000 * MOST_MEMORY)])
    rows = table({"attack": slow, "harmless": fast, REFERENCES[0]: slow}).splitlines()[2:5]
    assert rows[0] == (
        "| attack | 10.0, 10.0 ms | 60.0, 60.0 ms | **6.0** | 100, 300, **200** MB | a run: UNAVAILABLE (2 times) |"
    )
    assert "**" not in rows[1]
    assert "| 6.0 |" in rows[2]


def test_every_attack_says_what_it_does() -> None:
    assert all(attack.__doc__ for attack in ATTACKS.values())
    assert set(REFERENCES) <= ATTACKS.keys()
