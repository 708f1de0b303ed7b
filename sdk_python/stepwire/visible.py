"""Text of others, made fit to be shown: in a terminal, or as a line of a log."""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a terminal's cursor, colours it, or turns the order of what is written round; and no valid Unicode."""


def visible(text: str) -> str:
    """Escape control characters but newlines and tabs: what others wrote must not move the cursor, or colour things."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
