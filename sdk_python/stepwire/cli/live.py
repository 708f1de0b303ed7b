"""Watching runs: a live tree on a terminal, a few lines anywhere else, one JSON object a change for scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.text import Text

from stepwire.cli import words
from stepwire.cli.as_json import plain
from stepwire.cli.output import print_json
from stepwire.cli.tree import LINES, RunView, counts, views_lines
from stepwire.errors import ExecutorError
from stepwire.visible import one_line

if TYPE_CHECKING:
    from stepwire.client import Client
    from stepwire.records import Cause, Run, RunUpdate

REFRESHES_PER_SECOND = 8
QUIET_SECONDS = 2.0
"""Without a terminal, progress is said no more often than this."""
CHILDREN_SECONDS, CHILDREN_AT_ONCE = 1.0, 50
"""How often it is asked how far invoked runs have come, and how many of them then."""
STILL_SECONDS = 5.0
"""When nothing has changed for so long, it is said what a run waits for."""
RECONNECT_SECONDS = 30.0
"""A watch whose executor goes away is taken up again if it comes back within this time."""


_LOST = ("UNAVAILABLE", "UNKNOWN")


class Watcher(Protocol):
    """Shows runs while they go on."""

    def show(self, update: RunUpdate) -> None:
        """Take a change."""

    def explain(self, run_id: str, cause: Cause) -> None:
        """Take what a run waits for that has not changed for a while."""

    def invoked(self) -> Sequence[str]:
        """Give the runs that were invoked, and whose progress is of interest."""

    def progress(self, child: Run) -> None:
        """Take how far an invoked run has come."""

    async def keep_drawing(self) -> None:
        """Draw until cancelled."""

    def close(self) -> None:
        """Draw the last state and leave the screen alone."""


class Tree:
    """A live tree on a terminal."""

    def __init__(self, console: Console, run_ids: Sequence[str]) -> None:
        from rich.live import Live

        self._console = console
        self.views = {run_id: RunView(lively=True) for run_id in run_ids}
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def show(self, update: RunUpdate) -> None:
        """Take a change."""
        self.views[update.run.id].update(update)

    def explain(self, run_id: str, cause: Cause) -> None:
        """Note it under the run, until something changes."""
        self.views[run_id].waits_for = cause.text

    def invoked(self) -> Sequence[str]:
        """Give the invoked runs that have not ended."""
        return [
            run_id
            for view in self.views.values()
            for run_id, child in view.invoked.items()
            if child is None or not child.state.ended
        ]

    def progress(self, child: Run) -> None:
        """Take how far an invoked run has come."""
        for view in self.views.values():
            if child.id in view.invoked:
                view.invoked[child.id] = child

    async def keep_drawing(self) -> None:
        """Draw `REFRESHES_PER_SECOND` times a second."""
        while True:
            self._draw()
            await asyncio.sleep(1 / REFRESHES_PER_SECOND)

    def close(self) -> None:
        """Draw the last state."""
        for view in self.views.values():
            view.lively = False
        self._draw()
        self._live.stop()

    def _draw(self) -> None:
        room = min(LINES, max(6, self._console.height - 2))
        width = self._console.width - 1  # a ^C that the terminal echoes behind a full line would begin another one
        lines = views_lines(self.views.values(), width, datetime.now(UTC), room)
        self._live.update(Group(*lines), refresh=True)


class NoChildren:
    """Has no interest in the runs that are invoked."""

    def invoked(self) -> Sequence[str]:
        """Give none."""
        return ()

    def progress(self, child: Run) -> None:
        """Do nothing."""


class Lines(NoChildren):
    """A line for each change of state and, now and then, for progress: for logs and pipes."""

    def __init__(self, console: Console, run_ids: Sequence[str]) -> None:
        self._console = console
        self.views = {run_id: RunView() for run_id in run_ids}
        self._said: dict[str, str] = {}
        self._explained: dict[str, object] = {}
        self._at: dict[str, float] = {}

    def show(self, update: RunUpdate) -> None:
        """Take a change, and say it if it is time."""
        run = update.run
        view = self.views[run.id]
        state_before = view.run.state if view.run else None
        view.update(update)
        loop = asyncio.get_running_loop()
        if run.state is state_before and loop.time() < self._at.get(run.id, 0.0) + QUIET_SECONDS:
            return
        text = f"{one_line(run.id)}  {run.state.value}  {counts(view.steps.states).plain}".rstrip()
        if text != self._said.get(run.id):
            self._said[run.id] = text
            self._at[run.id] = loop.time()
            spent = words.duration(words.between(run.created_at, run.ended_at or datetime.now(UTC)))
            self._console.print(Text(f"{text}  {spent}"), soft_wrap=True)

    def explain(self, run_id: str, cause: Cause) -> None:
        """Say it once, until it is something else."""
        what = (cause.kind, cause.step, cause.worker)
        if what != self._explained.get(run_id):
            self._explained[run_id] = what
            name = one_line(run_id)
            text = f"{name}  still waiting: {one_line(cause.text)}; see `stepwire why {name}`"
            self._console.print(Text(text), soft_wrap=True)

    async def keep_drawing(self) -> None:
        """Do nothing: each change is said when it comes."""

    def close(self) -> None:
        """Say nothing more."""


class JsonLines(NoChildren):
    """One JSON object a change."""

    def show(self, update: RunUpdate) -> None:
        """Print the change."""
        print_json(plain(update))

    def explain(self, run_id: str, cause: Cause) -> None:
        """Do nothing: scripts ask for it."""

    async def keep_drawing(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Silence(NoChildren):
    """Shows nothing."""

    def show(self, update: RunUpdate) -> None:
        """Do nothing."""

    def explain(self, run_id: str, cause: Cause) -> None:
        """Do nothing."""

    async def keep_drawing(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


async def follow(client: Client, run_ids: Sequence[str], watcher: Watcher) -> list[Run]:
    """Show the runs until all have ended; give their last state, without output. Raises ExecutorError."""
    drawing = asyncio.create_task(watcher.keep_drawing(), name="draw")
    asking = asyncio.create_task(_ask_for_invoked(client, watcher), name="progress of invoked runs")
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_follow_one(client, run_id, watcher)) for run_id in run_ids]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    finally:
        drawing.cancel()
        asking.cancel()
        watcher.close()
    return [task.result() for task in tasks]


async def _ask_for_invoked(client: Client, watcher: Watcher) -> None:
    """Ask now and then how far invoked runs have come, some at a time; ends if the executor does not say."""
    turn = 0
    while True:
        children = watcher.invoked()
        if children:
            turn = turn % len(children)
            chosen = [*children[turn:], *children[:turn]][:CHILDREN_AT_ONCE]
            turn += len(chosen)
            try:
                for child in await asyncio.gather(*map(client.get, chosen)):
                    watcher.progress(child)
            except ExecutorError as error:
                if error.code not in _LOST:
                    return
        await asyncio.sleep(CHILDREN_SECONDS)


async def _follow_one(client: Client, run_id: str, watcher: Watcher) -> Run:
    last: Run | None = None
    moved = asyncio.Event()
    asking = asyncio.create_task(_explain_stillness(client, run_id, watcher, moved), name=f"why {run_id}")
    try:
        async for update in _updates(client, run_id):
            moved.set()
            last = update.run
            watcher.show(update)
    finally:
        asking.cancel()
    assert last is not None
    return last


async def _explain_stillness(client: Client, run_id: str, watcher: Watcher, moved: asyncio.Event) -> None:
    """Ask what a run waits for whenever it has not moved for a while. An executor that can't say is not asked again."""
    while True:
        moved.clear()
        try:
            async with asyncio.timeout(STILL_SECONDS):
                await moved.wait()
        except TimeoutError:
            try:
                causes = await client.why(run_id)
            except ExecutorError as error:
                if error.code not in _LOST:
                    return
            else:
                if not moved.is_set():
                    watcher.explain(run_id, causes[0])


async def _updates(client: Client, run_id: str) -> AsyncIterator[RunUpdate]:
    """Watch a run, also across restarts of the executor."""
    clock = asyncio.get_running_loop().time
    was_seen = False
    lost_at: float | None = None
    while True:
        try:
            async for update in client.watch(run_id):
                was_seen, lost_at = True, None
                yield update
                if update.run.state.ended:
                    return
        except ExecutorError as error:
            lost_at = lost_at or clock()
            if error.code not in _LOST or not was_seen or clock() > lost_at + RECONNECT_SECONDS:
                raise
        await asyncio.sleep(0.5)
