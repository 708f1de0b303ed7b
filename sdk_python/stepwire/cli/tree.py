"""A run as a tree of its steps, in few lines whatever its size: from records to something that rich can print.

    view = RunView()
    async for update in client.watch(run_id):
        view.update(update)
        console.print(view.render(console.width, datetime.now(UTC)))

It knows neither the executor nor the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Group
from rich.text import Text

from stepwire.cli import bars, words
from stepwire.cli.tally import Steps, Tally
from stepwire.errors import Failure
from stepwire.payload import JSON, Payload
from stepwire.records import Run, RunState, RunUpdate, Step, StepKind, StepState
from stepwire.visible import one_line

LONGEST_OUTPUT = 10_000
"""In bytes: a line holds less."""
LINES = 20
"""A tree's height unless told otherwise."""

RUN_ICONS = {
    RunState.PENDING: ("○", "dim"),
    RunState.RUNNING: ("●", "cyan"),
    RunState.SUCCEEDED: ("✓", "green"),
    RunState.FAILED: ("✗", "bold red"),
    RunState.CANCELLED: ("⊘", "yellow"),
    RunState.UNKNOWN: ("?", "dim"),
}
"""The sign and the style of each state of a run."""

TIMES = "\N{MULTIPLICATION SIGN}"
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_BUSY = (StepState.FAILED, StepState.RUNNING, StepState.RETRYING)


@dataclass(slots=True)
class Block:
    """A step or a fold: its line, and what stands under it. `children` are rows of a branch, `notes` plain text."""

    head: Text
    steps: Counter[StepState]
    notes: list[Text] = field(default_factory=list)
    children: list[Text] = field(default_factory=list)

    @property
    def height(self) -> int:
        """How many lines it takes."""
        return 1 + len(self.notes) + len(self.children)

    @property
    def rank(self) -> int:
        """How much it matters when not all have room: 0 most."""
        if any(self.steps[state] for state in _BUSY):
            return 0
        return 1 if self.steps[StepState.WAITING] else 2


@dataclass(frozen=True, slots=True)
class Columns:
    """The widths of a row's parts, in characters."""

    label: int
    bar: int
    detail: int

    @classmethod
    def of(cls, width: int) -> Columns:
        """Divide a line of `width` characters; the guide takes 3, the time 8, the attempts 3, the gaps 4."""
        free = max(width, 40) - 18
        label = max(14, min(40, free * 38 // 100))
        bar = min(44, free * 30 // 100) if width >= 60 else 0
        return cls(label, bar, free - label - bar)


class RunView:
    """What is known of a run, and how it looks. Feed it with `update`; `render` at any time."""

    def __init__(self, *, lively: bool = False) -> None:
        self.run: Run | None = None
        self.steps = Steps()
        self.lively = lively
        self.waits_for = ""
        """What it waits for, if it has not changed for a while."""
        self.invoked: dict[str, Run | None] = {}
        """Runs that its steps have invoked, as they were last seen."""
        self._workers: dict[str, str] = {}

    def update(self, update: RunUpdate) -> None:
        """Take what has changed: the run, and the steps that are new or other than before."""
        self.run, self.waits_for = update.run, ""
        new = {step.worker for step in update.steps if step.worker} - self._workers.keys()
        for step in update.steps:
            self.steps.replace(step)
            if step.child_run_id:
                self.invoked.setdefault(step.child_run_id, None)
        if new:
            short = words.short_names(self._workers.keys() | new)
            self._workers = {name: one_line(text) for name, text in short.items()}

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.run is not None and self.run.state.ended

    def render(self, width: int, now: datetime, lines: int | None = LINES) -> Group:
        """Draw the tree, `width` characters wide and at most `lines` high (None: every step has its line)."""
        return Group(*self.lines(width, now, lines))

    def lines(self, width: int, now: datetime, lines: int | None = LINES) -> list[Text]:
        """Give the tree's lines, none wider than `width`."""
        if self.run is None:
            return [Text("waiting for the executor …", "dim")]
        head = self._header(self.run, width, now)
        body = self._body(self.run, Columns.of(width), now, None if lines is None else max(lines - len(head), 4))
        for line in (drawn := [*head, *body]):
            line.truncate(width, overflow="ellipsis")
            line.no_wrap = True
            line.rstrip()
        return drawn

    def _header(self, run: Run, width: int, now: datetime) -> list[Text]:
        icon, style = RUN_ICONS[run.state]
        if self.lively and run.state is RunState.RUNNING:
            icon = spin(now)
        left = Text.assemble((icon, style), " ", (one_line(run.function), "bold"), "  ", (run.state.value, style), " ")
        left.append(words.duration(words.between(run.created_at, run.ended_at or now)), "dim")
        run_id = one_line(run.id)
        gap = width - left.cell_len - len(run_id)
        head = [left.append(" " * max(2, gap)).append(run_id, "dim")] if gap > 1 else [left, Text("  " + run_id, "dim")]
        if len(self.steps):
            head.append(
                Text("  ")
                .append(words.count(len(self.steps), "step"), "dim")
                .append(": ", "dim")
                .append(counts(self.steps.states))
            )
        if progress := self._progress():
            head.append(progress)
        if run.attempt > 1 or (run.failure and not run.state.ended):
            head.append(Text(f"  the body's attempt {run.attempt}", "yellow").append(after(run.failure)))
        if run.lost_invocations:
            head.append(Text(f"  its lead worker was lost {words.count(run.lost_invocations, 'time')}", "yellow"))
        if self.waits_for and not run.state.ended:
            head.append(Text(f"  {one_line(self.waits_for)}", "yellow"))
        return head

    def _progress(self) -> Text | None:
        """Sum up how far the invoked runs have come; None if nothing is known of them."""
        known = [child.step_counts for child in self.invoked.values() if child is not None]
        states = sum(known, Counter[StepState]())
        if not states.total():
            return None
        return Text("  ").append(f"{words.count(len(self.invoked), 'invoked run')}: ", "dim").append(counts(states))

    def _body(self, run: Run, columns: Columns, now: datetime, budget: int | None) -> list[Text]:
        if budget is None:
            every = [step for family in self.steps.families.values() for step in family.whole.members.values()]
            blocks = [self._single(run, step, columns, now) for step in sorted(every, key=lambda step: step.number)]
            for block, step in zip(blocks, sorted(every, key=lambda step: step.number), strict=True):
                if step.output is not None and step.state is StepState.SUCCEEDED and step.kind is not StepKind.SLEEP:
                    block.notes.append(Text(f"  → {output_line(step.output)}", "green"))
            return guided(blocks, None)
        parts = self.steps.parts()
        folds = sum(isinstance(part, Tally) for part in parts)
        rows = 5 if folds <= 1 else max(2, 8 // folds)
        rows = max(1, min(rows, (budget - min(len(parts), budget // 2)) // max(1, folds) - 2))
        blocks = [
            self._fold(run, part, columns, now, rows)
            if isinstance(part, Tally)
            else self._single(run, part, columns, now)
            for part in wanted(parts, budget)
        ]
        return guided(*fitting(blocks, budget, Counter(self.steps.states)))

    def _icon(self, state: StepState, now: datetime) -> tuple[str, str]:
        icon, style = bars.ICONS[state]
        return (spin(now) if self.lively and state is StepState.RUNNING else icon, style)

    def _single(self, run: Run, step: Step, columns: Columns, now: datetime) -> Block:
        row = self._row(one_line(str(step.key)), self._icon(step.state, now), columns)
        if columns.bar:
            row.append(self._timeline(run, step, columns.bar, now)).append(" ")
        spent = words.between(step.started_at or step.planned_at, step.ended_at or now)
        time = words.duration(spent) if step.state not in (StepState.READY, StepState.RETRYING) else ""
        row.append(f"{time:>8} ").append(f"{TIMES}{step.attempt}" if step.attempt > 1 else "  ", "yellow").append("  ")
        row.append(self._detail(step, now))
        block = Block(row, Counter({step.state: 1}))
        if step.child_run_id:
            block.notes.append(Text(f"  run {one_line(step.child_run_id)}", "dim"))
        if step.failure and step.state is not StepState.SUCCEEDED:
            block.notes.append(
                Text("  ").append(failure_line(step.failure), "red" if step.state is StepState.FAILED else "yellow")
            )
        return block

    def _timeline(self, run: Run, step: Step, width: int, now: datetime) -> Text:
        whole = words.between(run.created_at, run.ended_at or now) or 1e-9
        moments = (step.planned_at, step.started_at, step.ended_at or run.ended_at or now)
        queued, started, ended = (words.between(run.created_at, moment) / whole for moment in moments)
        begun: float | None = started
        if step.state is StepState.WAITING:
            begun = queued
        elif step.started_at is None or step.state in (StepState.READY, StepState.RETRYING):
            begun = None
        return bars.timeline(queued, begun, ended, step.state, width)

    def _detail(self, step: Step, now: datetime) -> Text:
        """Say where a step is or what it waits for."""
        worker = Text(words.clip_middle(self._workers.get(step.worker, ""), 24), "magenta")
        match step.state, step.kind:
            case StepState.READY, _:
                return Text(f"queued {words.duration(words.between(step.planned_at, now))}", "dim")
            case StepState.RETRYING, _:
                left = words.between(now, step.due_at)
                return Text(f"retry in {words.duration(left)}" if left else "retry is due", "yellow")
            case StepState.WAITING, StepKind.SLEEP:
                return Text(f"{words.duration(words.between(now, step.due_at))} left", "blue")
            case StepState.WAITING, StepKind.WAIT_FOR_EVENT:
                return Text(f"for event {one_line(step.target)}", "blue")
            case _, StepKind.INVOKE:
                return Text(one_line(step.target), "blue")
            case _, StepKind.TASK if step.target != step.key.id:
                return worker.append(f"{' · ' if worker else ''}task {one_line(step.target)}", "dim")
            case _:
                return worker

    def _fold(self, run: Run, tally: Tally, columns: Columns, now: datetime, rows: int) -> Block:
        state = next(
            (one for one in (*_BUSY, StepState.WAITING, StepState.READY) if tally.states[one]), StepState.SUCCEEDED
        )
        if state is StepState.FAILED and tally.ended < tally.total:
            state = StepState.RUNNING
        row = self._row(one_line(tally.label), self._icon(state, now), columns)
        if columns.bar:
            row.append(bars.progress(tally.states, columns.bar)).append(" ")
        row.append(f"{tally.ended}/{tally.total}".rjust(11), "bold").append("  ")
        end = tally.last_ended_at if tally.ended == tally.total else (run.ended_at or now)
        row.append(words.duration(words.between(tally.first.planned_at, end)), "dim")
        block = Block(row, Counter(tally.states))
        if tally.ended < tally.total or tally.states[StepState.SUCCEEDED] < tally.total:
            block.notes.append(Text("  ").append(counts(tally.states)))
        if tally.done_by or tally.running_in:
            block.notes.append(Text("  ").append(self._by_worker(tally)))
        notable = sorted(tally.notable.values(), key=lambda step: (_BUSY_ORDER[step.state], step.number))
        shown = notable if len(notable) <= rows else notable[: rows - 1]
        block.children = [self._child(step, tally.label, columns, now) for step in shown]
        if len(shown) < len(notable):
            block.children.append(Text(f"… and {len(notable) - len(shown):,} more", "dim"))
        return block

    def _by_worker(self, tally: Tally) -> Text:
        """Say how the fold's steps are spread: what each worker has done, and what it runs."""
        text = Text()
        for name in sorted(
            worker
            for worker in {*tally.done_by, *tally.running_in}
            if tally.done_by[worker] or tally.running_in[worker]
        ):
            text.append("  " if text else "").append(words.clip_middle(self._workers.get(name, ""), 20), "magenta")
            text.append(f" {tally.done_by[name]}")
            if tally.running_in[name]:
                text.append(f"+{tally.running_in[name]}", "cyan")
        return text

    def _child(self, step: Step, label: str, columns: Columns, now: datetime) -> Text:
        """One step of a fold that failed or was tried again."""
        name = f"#{step.key.index}" if step.key.id == label else one_line(str(step.key))
        tries = f"{'failed, ' if step.state is StepState.FAILED else ''}{words.count(step.attempt, 'attempt')}"
        row = self._row(
            name,
            self._icon(step.state, now),
            Columns(min(12, columns.label) if step.key.id == label else columns.label - 3, 0, 0),
        )
        row.append(f"{tries:<20}").append(self._detail(step, now))
        return row.append(after(step.failure))

    def _row(self, label: str, icon: tuple[str, str], columns: Columns) -> Text:
        return Text.assemble(icon, " ").append(words.clip_middle(label, columns.label - 3).ljust(columns.label - 2))


_BUSY_ORDER = {state: place for place, state in enumerate((*_BUSY, *(each for each in StepState if each not in _BUSY)))}


def spin(now: datetime) -> str:
    """Give the frame of the spinner at a time."""
    return _SPINNER[int(now.timestamp() * 8) % len(_SPINNER)]


def counts(states: Mapping[StepState, int]) -> Text:
    """Say how many steps are in each state: `412 done · 4 running · 580 queued`."""
    text = Text()
    for state, word in bars.WORDS.items():
        if number := states.get(state, 0):
            text.append(" · " if text else "", "dim").append(f"{number:,} {word}", bars.ICONS[state][1])
    return text


def failure_line(failure: Failure) -> str:
    """Write a failure in one line."""
    return one_line(str(failure))


def output_line(output: Payload) -> str:
    """Write a step's output in one line: its JSON, or what it is."""
    if output.encoding in (JSON, ""):
        return one_line(output.data[:LONGEST_OUTPUT].decode(errors="replace")) or "null"
    return words.count(len(output.data), "byte") + f", {one_line(output.encoding)}"


def after(failure: Failure | None) -> Text:
    """Write what stands behind a row whose last attempt failed; nothing if none did."""
    return Text(f"  {failure_line(failure)}", "red") if failure else Text()


def wanted(parts: list[Tally | Step], budget: int) -> list[Tally | Step]:
    """Leave out what can't have a line anyway, before it is drawn: of very many parts the calm ones in the middle."""
    if len(parts) <= 4 * budget:
        return parts
    busy = [part for part in parts if isinstance(part, Tally) or part.state in (*_BUSY, StepState.WAITING)][
        : 2 * budget
    ]
    chosen = {id(part) for part in (*busy, *parts[-budget:])}
    return [part for part in parts if id(part) in chosen]


def fitting(
    blocks: list[Block], budget: int, all_steps: Counter[StepState]
) -> tuple[list[Block], Counter[StepState] | None]:
    """Keep what fits into `budget` lines, the busy ones first; count the steps that are left out."""
    left_out = all_steps - sum((block.steps for block in blocks), Counter[StepState]())
    height = sum(block.height for block in blocks)
    if height <= budget and not left_out.total():
        return blocks, None
    kept = dict(enumerate(blocks))
    for index in sorted(kept, key=lambda index: (-blocks[index].rank, index)):
        if height <= budget - 1 or len(kept) == 1:
            break
        height -= kept.pop(index).height
        left_out += blocks[index].steps
    return list(kept.values()), left_out


def guided(blocks: list[Block], left_out: Counter[StepState] | None) -> list[Text]:
    """Draw the lines that make blocks a tree."""
    drawn: list[Text] = []
    if left_out:
        drawn.append(
            Text("├─ ", "dim")
            .append(f"… {words.count(left_out.total(), 'more step')}: ", "dim")
            .append(counts(left_out))
        )
    for place, block in enumerate(blocks, 1):
        last = place == len(blocks)
        drawn.append(Text("╰─ " if last else "├─ ", "dim").append(block.head))
        stem = "   " if last else "│  "
        drawn += [Text(stem, "dim").append(note) for note in block.notes]
        drawn += [
            Text(stem + ("╰─ " if child is block.children[-1] else "├─ "), "dim").append(child)
            for child in block.children
        ]
    return drawn


def views_lines(views: Iterable[RunView], width: int, now: datetime, lines: int = LINES) -> list[Text]:
    """Draw several runs under each other in at most about `lines` lines together."""
    all_views = list(views)
    share = max(6, lines // max(1, len(all_views)))
    return [line for view in all_views for line in view.lines(width, now, share)]
