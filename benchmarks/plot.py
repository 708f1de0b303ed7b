"""Figures as SVG: what peers do beside each other, and lines on axes of powers of ten.

python -m benchmarks.plot bars RESULTS.json OUT.svg
python -m benchmarks.plot lines DATA.json OUT.svg

It runs in `.venv-bench`, which has matplotlib. `bars` takes what `benchmarks.peers` wrote; `lines` takes any
`{"title": str, "x_label": str, "y_label": str, "x": [numbers], "series": {name: [numbers]}}`, in which null is a gap.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.patches import Patch

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Those of Okabe and Ito, which the colour-blind can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P")
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: a small file
    "svg.hashsalt": "stepwire",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.facecolor": "white",  # so that it can be read on a dark page too
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
LATENCY = "chain-3"
"""The workload that is read in milliseconds rather than in steps/s."""
ROOM = 1.6
"""How far an axis goes beyond what it shows, as a factor: the numbers above the bars need it."""


def short(number: float) -> str:
    """Write a number with two or three digits that count: 0.27, 9.1, 218, 5.7k."""
    if number >= 10_000:
        return f"{number / 1e3:.0f}k"
    if number >= 1_000:
        return f"{number / 1e3:.1f}k"
    if number >= 10:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def plain(axis: Any) -> None:
    """Write a logarithmic axis's numbers out, and some between the powers of ten if these are less than two."""
    low, high = axis.get_view_interval()
    between = "235" if high < low * 50 else ""
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.set_minor_formatter(lambda value, _: f"{value:,.10g}" if f"{value:e}"[0] in between else "")


def groups(axes: Any, names: list[str], found: dict[str, list[tuple[float, float, float] | None]]) -> None:
    """Draw a group of bars for each name: median, lowest and highest of each system, on a logarithmic axis."""
    width = 0.84 / len(found)
    values = [value for each in found.values() for triple in each if triple for value in triple]
    axes.set_yscale("log")
    low, high = min(values, default=1) / 3, max(values, default=10) * ROOM
    axes.set_ylim(low, high)
    for index, medians in enumerate(found.values()):
        colour = COLOURS[index % len(COLOURS)]
        for group, triple in enumerate(medians):
            at = group + (index - (len(found) - 1) / 2) * width
            if triple is None:
                axes.text(
                    at, low * 1.1, "not measured", ha="center", va="bottom", rotation=90, fontsize=7, color="#666666"
                )
                continue
            median, lowest, highest = triple
            axes.bar(at, median, width * 0.92, color=colour)
            axes.plot([at, at], [lowest, highest], color="#333333", linewidth=1)
            axes.text(at, highest * 1.05, short(median), ha="center", va="bottom", fontsize=7, color="#333333")
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    plain(axes.yaxis)


def triple(figures: dict[str, Any] | None, unit: str) -> tuple[float, float, float] | None:
    """Take the median, the lowest and the highest of a workload's figures, if it was measured."""
    return (figures[unit], *figures[f"{unit}_spread"]) if figures else None


def bars(data: dict[str, Any]) -> Any:
    """Draw steps/s of each workload, and beside them the time of a run of three steps."""
    systems = {name: system["workloads"] for name, system in data["systems"].items() if system["workloads"]}
    names = list(dict.fromkeys(name for workloads in systems.values() for name in workloads))
    rated = [name for name in names if name != LATENCY]
    latency = LATENCY in names
    shares = [max(len(rated), 1), 1.1] if latency else [1]
    figure, every = pyplot.subplots(
        1, len(shares), squeeze=False, figsize=(9.6, 3.9), width_ratios=shares, layout="constrained"
    )
    throughput = every[0][0]
    groups(throughput, rated, {s: [triple(w.get(n), "steps_per_second") for n in rated] for s, w in systems.items()})
    throughput.set_ylabel("steps/s (more is better)")
    if latency:
        groups(every[0][1], [LATENCY], {s: [triple(w.get(LATENCY), "p50_ms")] for s, w in systems.items()})
        every[0][1].set_ylabel("p50 of a run, ms (less is better)")
    patches = [Patch(color=COLOURS[index % len(COLOURS)], label=name) for index, name in enumerate(systems)]
    figure.legend(handles=patches, loc="outside upper center", ncols=6, frameon=False)
    return figure


def lines(data: dict[str, Any]) -> Any:
    """Draw a line for each series."""
    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    for index, (name, values) in enumerate(data["series"].items()):
        points = [(x, y) for x, y in zip(data["x"], values, strict=True) if y is not None]
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(title=data["title"], xlabel=data["x_label"], ylabel=data["y_label"])
    plain(axes.xaxis)
    plain(axes.yaxis)
    if len(data["series"]) > 1:
        axes.legend(frameon=False)
    return figure


def main() -> int:
    """Draw one figure."""
    kinds: dict[str, Callable[[dict[str, Any]], Any]] = {"bars": bars, "lines": lines}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("data", type=Path, help="the figures, as JSON")
    parser.add_argument("out", type=Path, help="where to draw them")
    given = parser.parse_args()
    with pyplot.rc_context(SETTINGS):
        figure = kinds[given.kind](json.loads(given.data.read_text()))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(given.out, format="svg", metadata={"Date": None, "Creator": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
