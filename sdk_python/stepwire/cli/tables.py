"""Tables without lines: they read well, keep ids whole, and are cut to the terminal only where that hurts least."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

GAP = "  "
LEAST = 8
"""A column that is shortened keeps so many characters."""


def lines(head: Sequence[str], rows: Sequence[Sequence[Text]], elastic: Sequence[int], width: int) -> list[Text]:
    """Draw a table for `width` characters; those of `elastic` are shortened, in their order, if need be."""
    table = [[Text(title, "dim") for title in head], *rows]
    widths = [max(row[column].cell_len for row in table) for column in range(len(head))]
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    for column in elastic:
        less = max(0, min(excess, widths[column] - LEAST))
        widths[column] -= less
        excess -= less
    drawn = []
    for row in table:
        line = Text(no_wrap=True, overflow="ellipsis")
        for cell, room in zip(row, widths, strict=True):
            cell.truncate(room, overflow="ellipsis", pad=True)
            line.append_text(cell).append(GAP)
        line.rstrip()
        drawn.append(line)
    return drawn


def show(console: Console, head: Sequence[str], rows: Sequence[Sequence[Text]], elastic: Sequence[int]) -> None:
    """Print a table without its empty columns; without a terminal nothing is cut, as other programs read it."""
    width = console.width if console.is_terminal else 10_000
    filled = [column for column in range(len(head)) if any(row[column] for row in rows)]
    rows = [[row[column] for column in filled] for row in rows]
    elastic = [filled.index(column) for column in elastic if column in filled]
    for line in lines([head[column] for column in filled], rows, elastic, width):
        console.print(line, soft_wrap=not console.is_terminal)
