"""Text of others, made fit to be shown: in a terminal, or as a line of a log. It knows neither of them."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
)
"""What moves a terminal's cursor, colours it, ends a line, or turns the order of what is written; and lone surrogates.

Newlines and tabs are none of these. Of Unicode it is all of Cc, Bidi_Control and Cs, and U+2028 and U+2029.
"""
INDENT = "  "


def visible(text: str) -> str:
    r"""Escape control characters but newlines and tabs: ESC becomes `\x1b`."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Write a text on one line: fold whitespace to single blanks, and escape control characters."""
    return visible(" ".join(text.split()))


def indented(text: str) -> str:
    """Escape control characters, and indent all lines but the first: none of them looks like a line of ours."""
    return visible(text).replace("\n", f"\n{INDENT}")


def escaped_json(text: str) -> str:
    r"""Write control characters in JSON text as JSON's `\uXXXX`: it holds the same value, and is safe to show."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
