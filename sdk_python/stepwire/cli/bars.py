"""The two bars of the tree: how far a fan-out is, and when a step waited and ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from stepwire.records import StepState

ICONS = {
    StepState.READY: ("○", "dim"),
    StepState.RUNNING: ("●", "cyan"),
    StepState.WAITING: ("◌", "blue"),
    StepState.RETRYING: ("↻", "yellow"),
    StepState.SUCCEEDED: ("✓", "green"),
    StepState.FAILED: ("✗", "bold red"),
    StepState.CANCELLED: ("⊘", "dim"),
    StepState.UNKNOWN: ("?", "dim"),
}
"""The sign and the style of each state of a step."""

WORDS = {
    StepState.SUCCEEDED: "done",
    StepState.FAILED: "failed",
    StepState.RUNNING: "running",
    StepState.RETRYING: "retrying",
    StepState.WAITING: "waiting",
    StepState.READY: "queued",
    StepState.CANCELLED: "cancelled",
    StepState.UNKNOWN: "unknown",
}
"""What people call each state, in the order in which counts are shown."""

_SEGMENTS = (
    (StepState.SUCCEEDED, "█", "green"),
    (StepState.FAILED, "█", "red"),
    (StepState.CANCELLED, "▒", "bright_black"),
    (StepState.RUNNING, "▓", "cyan"),
    (StepState.RETRYING, "▒", "yellow"),
    (StepState.WAITING, "░", "blue"),
    (StepState.READY, "░", "bright_black"),
    (StepState.UNKNOWN, "?", "bright_black"),
)


def progress(states: Mapping[StepState, int], width: int) -> Text:
    """Draw how many steps are in each state, `width` characters in all; a state that occurs at all is seen."""
    shares = _shares([states.get(state, 0) for state, _, _ in _SEGMENTS], width)
    bar = Text()
    for (_, character, style), share in zip(_SEGMENTS, shares, strict=True):
        bar.append(character * share, style)
    return bar


def _shares(amounts: Sequence[int], width: int) -> list[int]:
    """Divide `width` in proportion by largest remainders; what is there gets at least 1, what is not 0."""
    total = sum(amounts)
    if total == 0:
        return [0] * len(amounts)
    exact = [amount * width / total for amount in amounts]
    shares = [max(int(share), 1 if amount else 0) for share, amount in zip(exact, amounts, strict=True)]
    while (excess := sum(shares) - width) != 0:
        step = -1 if excess > 0 else 1
        wrong = [
            (share - want) * step if share > 1 or step > 0 else float("inf")
            for share, want in zip(shares, exact, strict=True)
        ]
        candidates = [index for index, amount in enumerate(amounts) if amount]
        best = min(candidates, key=lambda index: wrong[index])
        if wrong[best] == float("inf"):
            break
        shares[best] += step
    return shares


def timeline(queued: float, begun: float | None, ended: float, state: StepState, width: int) -> Text:
    """Draw when a step was queued and ran, on the line of the run's whole time.

    `queued`, `begun` and `ended` are fractions of that time from 0 to 1; `begun` is None if it has not begun.
    """
    start = min(int(queued * width), width - 1)
    middle = start if begun is None else min(max(int(begun * width), start), width - 1)
    end = max(min(round(ended * width), width), middle + 1)
    style = ICONS[state][1].replace("bold ", "")
    bar = Text(" " * start)
    if begun is None:
        bar.append("╌" * (end - start), "bright_black" if state is not StepState.RETRYING else "yellow")
    else:
        bar.append("╌" * (middle - start), "bright_black")
        bar.append("━" * (end - middle), style)
    bar.append(" " * (width - end))
    return bar
