"""Drives the executor's core without anything around it, and holds it to what must always be so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core import why
from stepwire_core.causes import Cause, CauseKind, sentence
from stepwire_core.decide import HANDLERS, decide, touched_runs
from stepwire_core.model import (
    Event,
    EventKey,
    Failure,
    Function,
    FunctionOptions,
    Limits,
    Now,
    Run,
    StepKey,
    StepKind,
    restore,
)
from stepwire_core.state import LONG_AGO, State
from tests.simulation.counts import drifted

START = 1_700_000_000.0


class World:
    """One executor's core with a clock that is moved by hand."""

    def __init__(
        self, *functions: FunctionOptions, epoch: int = 1, limits: Limits | None = None, bare: bool = False
    ) -> None:
        """Without functions there is one, "f", that "go" starts; with `bare` there is none."""
        self.wall, self.mono = START, 100.0
        self.limits = limits or Limits()
        options = functions or (() if bare else (FunctionOptions("f", ("go",)),))
        registered = [Function("app", each, "", START) for each in options]
        self.state = State(epoch, self.limits, registered, began=LONG_AGO._replace(wall=START))
        self.recent: dict[EventKey, Event] = {}
        """Events of the last batch, by key."""
        self.commands: list[c.Command] = []
        self.observations: list[c.Observation] = []
        self.stored: dict[str, Run] = {}
        self.waits: dict[tuple[str, StepKey], c.Wait] = {}
        """Their rows."""
        self.on_decision: Callable[[Sequence[i.Input], c.Decision], None] = lambda batch, decision: None
        """Called after each decision, with what was decided."""
        self.failed_attempts: list[Any] = []
        self.may_fault = False
        """Whether decisions may raise, as a test has put in a bug."""

    def tell(self, *batch: i.Input) -> list[c.Command]:
        """Decide a batch; gives the commands, follow-ups already decided as well."""
        given: list[c.Command] = []
        pending = list(batch)
        while pending:
            decision = self.state.begin()
            decide(self.state, [*self._load(pending), *pending], Now(self.wall, self.mono), decision)
            self.state.sent(decision)
            assert self.may_fault or not decision.faults, decision.faults[0].traceback
            wrong = list(drifted(self.state))
            assert not wrong, wrong
            self.recent = decision.recent
            self._note_writes(decision.writes)
            self.on_decision(pending, decision)
            pending = []
            for command in [*decision.early, *decision.commands]:
                if isinstance(command, c.FollowUp):
                    pending.append(command.input)
                else:
                    given.append(command)
            self.observations += decision.observations
        self.commands += given
        self._check_explanations()
        return given

    def why(self, run_id: str) -> list[Cause]:
        """Say what a run waits for."""
        return why.explain(self.state, self.run(run_id), Now(self.wall, self.mono))

    def why_text(self, run_id: str) -> list[str]:
        """Say it in sentences, those of nested causes behind their own."""
        return self.sentences(self.why(run_id))

    def sentences(self, causes: list[Cause]) -> list[str]:
        """Write causes, and those under them."""
        now = Now(self.wall, self.mono)
        return [text for each in causes for text in (sentence(each, now), *self.sentences(each.causes))]

    def wait(self, seconds: float) -> list[c.Command]:
        """Let time pass on both clocks."""
        self.wall += seconds
        self.mono += seconds
        return self.tell(i.Tick())

    def run(self, run_id: str) -> Run:
        """Give a run, from memory or as it was stored."""
        loaded = self.state.runs.get(run_id)
        return loaded.run if loaded else copy(self.stored[run_id])

    # Peers.

    def worker(self, name: str, slots: int = 10, functions: tuple[str, ...] = ("f",), **more: Any) -> list[c.Command]:
        """Connect a worker, whose session is named after it."""
        return self.tell(self.hello(name, slots, functions, **more))

    def hello(self, name: str, slots: int = 10, functions: tuple[str, ...] = ("f",), **more: Any) -> i.Hello:
        """Return a worker's Hello."""
        options = [self.state.functions[("app", each)].options for each in functions]
        fields = {
            "app": "app",
            "instance_id": f"i-{name}",
            "eager": False,
            "tasks": ("t",),
            "max_invocations": 100,
            "app_version": "",
            "stream": f"stream-{name}",
        }
        return i.Hello(name, functions=options, slots=slots, **{**fields, **more})

    def send(self, name: str = "go", event_id: str = "e1", known: dict[EventKey, Event] | None = None) -> list[str]:
        """Send an event; gives the ids of its runs."""
        event = Event(event_id, name, b"data", self.wall, digest=f"{name}{event_id}")
        for command in self.tell(i.EventsSent([event], "reply", known or {})):
            if isinstance(command, c.Answer) and isinstance(command.value, list):
                return list(command.value[0].run_ids)
        return []

    def invocation(self, run_id: str, session: str | None = None) -> int:
        """Give the fence of a run's lead, or of its invocation in a session."""
        if session is not None:
            return self.state.sessions[session].invocations[run_id].fence
        lead = self.state.runs[run_id].lead
        assert lead is not None
        return lead.fence

    def find(
        self, run_id: str, *steps: i.StepPlanned, sequence: int | None = None, quiescent: bool = True
    ) -> list[c.Command]:
        """Report steps as the run's lead."""
        loaded = self.state.runs[run_id]
        assert loaded.lead is not None
        told = loaded.lead.sent if sequence is None else sequence
        return self.tell(i.StepsFound(loaded.lead.session_id, run_id, loaded.lead.fence, told, steps, quiescent))

    def succeed(
        self, start: c.StartAttempt, output: bytes = b"out", size: int = 3, elapsed: float = 0.0
    ) -> list[c.Command]:
        """Report an attempt as its worker."""
        return self.tell(i.StepRun(start.session_id, start.run.id, start.key, start.fence, output, size, elapsed))

    def fail(self, start: c.StartAttempt, failure: Failure | None = None) -> list[c.Command]:
        """Report a failed attempt as its worker."""
        error = failure or Failure("ValueError", "bad")
        return self.tell(i.StepFailed(start.session_id, start.run.id, start.key, start.fence, error, 0.0))

    def crash(self) -> None:
        """Lose the memory; what was written comes back into a new life, as the engine would load it."""
        functions = list(self.state.functions.values())
        position = self.state.position
        self.state = State(self.state.epoch + 1, self.limits, functions, position, Now(self.wall, self.mono))
        self.tell(i.RunsLoaded([copy(run) for run in self.stored.values() if not run.state.ended and run.wake_at == 0]))

    def _load(self, batch: list[i.Input]) -> list[i.Input]:
        """Bring in what the batch needs and what is due, as the engine does."""
        wanted = touched_runs(batch)
        due = {run.id for run in self.stored.values() if run.wake_at and run.wake_at <= self.wall}
        missing = [
            self.stored[each] for each in sorted(wanted | due) if each in self.stored and each not in self.state.runs
        ]
        return [i.RunsLoaded([copy(run) for run in missing])] if missing else []

    def _check_explanations(self) -> None:
        """Every run that has not ended says what it waits for (promise I7), whatever has just been decided."""
        for run_id, stored in self.stored.items():
            causes = self.why(run_id)
            what = {each.kind for each in causes} - {CauseKind.RUN_TIMEOUT}
            assert what, f"run {run_id} can't say what it waits for"
            assert all(self.sentences(causes))
            assert (what == {CauseKind.ENDED}) == stored.state.ended
            assert stored.state.ended or stored.wake_at == 0 or CauseKind.LOADING not in what

    def _note_writes(self, writes: c.Writes) -> None:
        for run in [*writes.new_runs.values(), *writes.runs.values()]:
            steps = self.stored[run.id].steps if run.id in self.stored else {}
            self.stored[run.id] = replace(run, steps=dict(steps), open={}, journal=[])
        for (run_id, _), step in [*writes.new_steps.items(), *writes.steps.items()]:
            self.stored[run_id].steps[step.key] = replace(step)
        self.failed_attempts += writes.failed_attempts
        self.waits |= writes.new_waits
        for at in writes.ended_waits:
            self.waits.pop(at, None)


def put_in(patch: pytest.MonkeyPatch, module: Any, name: str, function: Any) -> None:
    """Put a function of the core in place of another one, wherever that is called."""
    real = getattr(module, name)
    patch.setattr(module, name, function)
    for kind, handler in HANDLERS.items():
        if handler is real:
            patch.setitem(HANDLERS, kind, function)


def copy(run: Run) -> Run:
    """Give a stored run as it would be loaded."""
    steps = sorted((replace(step, session="") for step in run.steps.values()), key=lambda step: step.number)
    return restore(replace(run), steps)


def closure(step_id: str, index: int = 0, **more: Any) -> i.StepPlanned:
    """Give a closure step."""
    return i.StepPlanned(StepKey(step_id, index), StepKind.CLOSURE, source="f.py:1", **more)


def of_type(commands: list[c.Command], kind: type) -> list[Any]:
    """Give the commands of one kind."""
    return [command for command in commands if isinstance(command, kind)]


def started(commands: list[c.Command]) -> list[c.StartAttempt]:
    """Give the attempts that some commands start."""
    return of_type(commands, c.StartAttempt)


def world_with_run(*workers: str, slots: int = 10, **options: object) -> tuple[World, str]:
    """Make a core with workers and one run of a function with these options; gives its id, too."""
    world = World(FunctionOptions("f", ("go",), **options))  # type: ignore[arg-type]
    for worker in workers or ("w1",):
        world.worker(worker, slots=slots)
    (run_id,) = world.send()
    return world, run_id
