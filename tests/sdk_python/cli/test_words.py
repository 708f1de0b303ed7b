from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

from stepwire.cli import words
from stepwire.cli.block import Block
from stepwire.cli.output import make_console
from stepwire.cli.voice import shortened

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
    written = io.StringIO()
    console = make_console(file=written, force_terminal=True, width=80)
    console.print(Text("what", "bold"), Text("a\x1b[2Jb\nc\u202e"))
    assert written.getvalue() == "\x1b[1mwhat\x1b[0m a\\x1b[2Jb\nc\\u202e\n"


@pytest.mark.parametrize("text", ["[bold]a[/]", "[/x]", "[link=https://evil.example]a[/link]", ":bomb:", "\\[", "["])
def test_a_console_takes_no_text_for_markup(text: str) -> None:
    written = io.StringIO()
    console = make_console(file=written, force_terminal=True, width=80)
    table = Table(text, box=None, padding=0)
    table.add_row(text)
    for each in (text, table, Group(text)):
        console.print(each)
    assert written.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").split() == text.split() * 4


def test_a_block_is_indented_also_where_it_is_folded() -> None:
    written = io.StringIO()
    make_console(file=written, width=24).print(Block("a\x1b[2J\n\n  b\n" + "c" * 50 + "\nd e"))
    assert written.getvalue().splitlines() == [
        "  a\\x1b[2J",
        "  ",
        "    b",
        *(["  " + "c" * 22] * 2),
        "  " + "c" * 6,
        "  d e",
    ]


def test_stepwire_dev_shows_colours_of_its_children_and_no_links() -> None:
    line = "2026-01-01 00:00:00.000Z WARNING a\x1b[31mb\x1b[0m\x1b]8;;https://evil.example\x1b\\c\x1b]8;;\x1b\\\x1b]0;t\x07d[/x]"
    shown = shortened(line)
    assert shown.plain.endswith(" warning: abcd[/x]")
    written = io.StringIO()
    make_console(file=written, force_terminal=True, width=80).print(shown)
    assert "evil" not in written.getvalue()
    assert "31mb" in written.getvalue()


def test_names_lose_what_all_of_them_begin_with() -> None:
    assert words.short_names(["host-12-a", "host-13-b"]) == {"host-12-a": "12-a", "host-13-b": "13-b"}
    assert words.short_names(["host-12-a"]) == {"host-12-a": "host-12-a"}
    assert words.short_names(["alpha", "beta"]) == {"alpha": "alpha", "beta": "beta"}
    assert words.short_names(["pod-1", "pod-1-x"]) == {"pod-1": "pod-1", "pod-1-x": "pod-1-x"}
