"""Text of others made fit to be shown; the executor has the same functions of its own."""

from __future__ import annotations

import json
import unicodedata
from types import ModuleType

import pytest

from stepwire import visible as sdk
from stepwire_executor import visible as executor

CONTROLS = [
    chr(code)
    for code in range(0x110000)
    if unicodedata.category(chr(code)) in ("Cc", "Cs", "Zl", "Zp")
    or unicodedata.bidirectional(chr(code)) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    or code in (0x061C, 0x200E, 0x200F)
]
"""C0, DEL, C1, lone surrogates, the separators of lines and paragraphs, and what sets a direction of writing."""
SEQUENCES = [
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x9b2J",
    "\x9d0;title\x9c",
    "over\rwritten",
    "a\x08b",
    "\x1bP$q\x1b\\",
]
both = pytest.mark.parametrize("made", [sdk, executor])


@both
def test_every_control_character_is_escaped_but_newlines_and_tabs(made: ModuleType) -> None:
    for control in CONTROLS:
        shown = made.visible(f"a{control}b")
        assert shown == f"a{control}b" if control in "\n\t" else shown.isascii() and shown.isprintable()
        assert made.one_line(f"a{control}b").isascii()
        assert made.one_line(f"a{control}b").isprintable()


@both
@pytest.mark.parametrize("text", SEQUENCES)
def test_no_sequence_reaches_a_terminal(made: ModuleType, text: str) -> None:
    for shown in (made.visible(text), made.one_line(text), made.indented(text)):
        assert shown.isprintable()
    assert "\\x" in made.visible(text) or "\\r" in made.visible(text)


@both
def test_what_is_printable_stays_as_it_is(made: ModuleType) -> None:
    text = "é 漢字 שלום 👩\u200d🚀 \u00ad \\x1b [/x] [red]"
    assert made.visible(text) == made.one_line(text) == made.indented(text) == made.escaped_json(text) == text


@both
def test_a_line_has_no_line_breaks_of_any_kind(made: ModuleType) -> None:
    text = made.one_line("  a\r\n\tb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h\n")
    assert text == "a b c d e f g h"


@both
def test_all_lines_of_a_text_but_the_first_are_indented(made: ModuleType) -> None:
    assert made.indented("a\nb\n\r\n  c\u2028d") == "a\n  b\n  \\r\n    c\\u2028d"


@both
def test_json_text_stays_json_with_the_same_value(made: ModuleType) -> None:
    value = {"-".join(CONTROLS[:300]): ["-".join(CONTROLS), "é"]}
    for indent in (None, 2):
        text = made.escaped_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert text.replace("\n", "").isprintable()
        assert "é" in text
        assert json.loads(text) == value
