from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.json import JSON
from rich.text import Text

from stepwire.cli import words
from stepwire.cli.output import make_console
from stepwire.visible import visible

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"),
        (0.0042, "4 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1m 00s"),
        (125, "2m 05s"),
        (3600, "1h 00m"),
        (86400 * 5 + 7300, "5d 02h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m"), (7200, "2h"), (2e5, "2d")])
def test_ages_have_one_unit(seconds: float, text: str) -> None:
    assert words.age(NOW - timedelta(seconds=seconds), NOW) == text


def test_clocks_that_disagree_give_no_negative_times() -> None:
    assert words.between(NOW, NOW - timedelta(seconds=3)) == 0
    assert words.between(None, NOW) == 0
    assert words.age(NOW + timedelta(hours=1), NOW) == "0s"


def test_texts_are_cut_to_a_width() -> None:
    assert words.clip_middle("abcdefghij", 5) == "ab…ij"
    assert words.clip_middle("abcde", 5) == "abcde"


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert words.one_line("a\x1b[2Jb\r\n  c\x00") == "a [2Jb c"
    assert visible("a\x1b[2Jb\r\n\tc\x00\u202e\x9b\ud800é") == "a\\x1b[2Jb\\r\n\tc\\x00\\u202e\\x9b\\ud800é"
    written = io.StringIO()
    console = make_console(file=written, force_terminal=True, width=80)
    console.print("[bold]what[/]", Text("a\x1b[2Jb\nc"))
    console.print(JSON('{"a": "\u202eb"}'))
    assert written.getvalue().replace("\x1b[1mwhat\x1b[0m", "what").startswith("what a\\x1b[2Jb\nc\n")
    assert "\u202e" not in written.getvalue()


def test_names_lose_what_all_of_them_begin_with() -> None:
    assert words.short_names(["host-12-a", "host-13-b"]) == {"host-12-a": "12-a", "host-13-b": "13-b"}
    assert words.short_names(["host-12-a"]) == {"host-12-a": "host-12-a"}
    assert words.short_names(["alpha", "beta"]) == {"alpha": "alpha", "beta": "beta"}
    assert words.short_names(["pod-1", "pod-1-x"]) == {"pod-1": "pod-1", "pod-1-x": "pod-1-x"}
