"""A text of several lines, indented on each of them, so that a terminal shows none of it as a line of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.text import Text

from stepwire.visible import INDENT, visible

NARROWEST = 20


@dataclass(frozen=True, slots=True)
class Block:
    """Draws `text` with control characters escaped. Lines that are too long are folded inside of the indentation."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        text = Text(visible(self.text), self.style)
        for line in text.wrap(console, max(options.max_width - len(INDENT), NARROWEST), overflow="fold"):
            line.rstrip()
            yield Text(INDENT).append_text(line)
