"""Small pieces of text that tables and trees share: durations, ages, ids cut to a width, plurals."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime


def duration(seconds: float) -> str:
    """Write a duration in at most 8 characters: `4 ms`, `1.2 s`, `2m 05s`, `3h 12m`, `5d 02h`."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def between(start: datetime | None, end: datetime | None) -> float:
    """Give the seconds from `start` to `end`; 0 if one is unknown or the clocks disagree."""
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0


def age(moment: datetime | None, now: datetime) -> str:
    """Write how long ago something was, in one unit: `12s`, `5m`, `3h`, `2d`."""
    if moment is None:
        return "-"
    seconds = between(moment, now)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def time_of_day(moment: datetime, now: datetime) -> str:
    """Write a time by the local clock: `12:03:04`, on another day `2030-01-31 12:03`."""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M}"


def count(number: int, word: str) -> str:
    """Write `1 step`, `1,000 steps`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def clip_middle(text: str, width: int) -> str:
    """Cut a text to `width` characters with an ellipsis in its middle, as ids differ at both ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Shorten names for a tree by cutting what all begin with, up to a separator; 4 characters stay at least."""
    known = sorted(set(names))
    if len(known) < 2:
        return {name: name for name in known}
    first, last = known[0], known[-1]
    same = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    room = min(same, min(map(len, known)) - 4)
    cut = max((at + 1 for at in range(room) if first[at] in "-_./:@"), default=0)
    return {name: name[cut:] for name in known}
