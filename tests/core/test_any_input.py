"""Whatever comes, in whatever order: a decision never raises, and what the core counts never drifts.

Inputs are built from the type hints of their classes, so that a new field, and a new input, is tried the day that it is
added. Ids, fences and keys are those that the core has given, and others. A form that the contract does not allow is
left out, as the core never sees it either (`formed`).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Event, Failure, FunctionOptions, Limits, Retry, StepKey, StepKind, WaitSpec
from stepwire_executor import matching
from tests.core.world import START, World, of_type

Draw = Callable[[st.SearchStrategy[Any]], Any]

INPUTS = [kind for kind in typing.get_args(i.Input) if kind not in (i.RunsLoaded, i.NotWritten)]
"""All but what comes from the store, which the world brings in itself as the engine does, and what is a fault."""
FUNCTIONS = ("f", "g", "h")
LARGEST = (1 << 64) - 1
MATCHES = [(), (("doc", '"x"'),), (("a.b", "1"), ("doc", "null"))]
TEXTS = {
    "app": ("app", "app", "app", "other", ""),
    "function_id": (*FUNCTIONS, "nope"),
    "event_name": ("go", "reply"),
    "instance_id": ("i-1", "i-2", "i-3"),
    "app_version": ("", "1", "2"),
    "identity": ("", "", "somebody"),
    "target": ("t", "reply", "go"),
}
NUMBERS = {
    "slots": (1, 2, 4),  # the contract has at least one
    "max_invocations": (1, 2, 10),
    "output_bytes": (0, 1, 1000, 5 << 20),
    "position": (0, 1, 2, 50),
    "looked_to": (0, 1, 2, 50),
    "retries": (0, 1, 3),
}
SECONDS = (0.0, 0.0, 0.01, 1.0, 70.0, 1e9)


class Live:
    """What there is in a world to be named."""

    def __init__(self, world: World, draw: Draw) -> None:
        self.world = world
        self.draw = draw
        self.count = 0

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def fence(self) -> int:
        state = self.world.state
        known = {
            *(fence for session in state.sessions.values() for fence in session.attempts),
            *(live.fence for session in state.sessions.values() for live in session.invocations.values()),
            *(live.eager_fence for session in state.sessions.values() for live in session.invocations.values()),
        }
        fences = sorted(known)
        return int(self.one_of(*fences, *fences, *fences, 0, *(fence + 1 for fence in fences[-1:]), LARGEST))

    def key(self) -> StepKey:
        known = [key for loaded in self.world.state.runs.values() for key in loaded.run.open]
        return typing.cast(StepKey, self.one_of(*known[:20], *(StepKey(name, n) for name in "ab" for n in (0, 1))))

    def attempt(self) -> i.AttemptRef:
        """Name an attempt that was issued, in an earlier life too, or any other."""
        issued = [
            i.AttemptRef(each.run.id, each.key, each.fence)
            for each in of_type(self.world.commands, c.StartAttempt)[-20:]
        ]
        return typing.cast(i.AttemptRef, self.one_of(*issued, i.AttemptRef(self.run(), self.key(), self.fence())))

    def session(self) -> str:
        return str(self.one_of(*self.world.state.sessions, *self.world.state.sessions, "nope"))

    def run(self) -> str:
        return str(self.one_of(*self.world.state.runs, *list(self.world.stored)[-20:], "nope"))

    def options(self, id: str) -> FunctionOptions:
        """Give options of a function: nobody sends others, the connections refuse a name twice."""
        retry = self.one_of(None, Retry(0), Retry(2, 0.01, 1.0))
        return FunctionOptions(id, ("go",) if id != "h" else (), retry, self.one_of(None, None, 30.0))

    # By type and name.

    def make(self, hint: Any, name: str = "") -> Any:
        """Make a value of a type, for a field of a name."""
        if name in SPECIAL:
            return SPECIAL[name](self)
        if hint in SPECIAL_TYPES:
            return SPECIAL_TYPES[hint](self)
        origin = typing.get_origin(hint)
        if origin in (typing.Union, types.UnionType):
            return self.make(self.one_of(*typing.get_args(hint)), name)
        if origin is Sequence:
            (inner,) = typing.get_args(hint)
            return [self.make(inner, name) for _ in range(self.one_of(0, 1, 1, 2, 3))]
        if origin is Mapping:
            return {}
        if origin is tuple:  # a function's key
            return "app", self.one_of(*FUNCTIONS)
        return self.scalar(hint, name) if hint in SCALARS else self.build(hint)

    def scalar(self, hint: Any, name: str) -> Any:
        if hint is str:
            return self.one_of(*TEXTS.get(name, ("", "x")))
        if hint is int:
            return self.one_of(*NUMBERS.get(name, (0, 1, 2, 7, LARGEST)))
        if hint is float:
            return self.one_of(*SECONDS)
        if hint is bool:
            return self.one_of(False, True)
        return self.one_of(b"", b"out") if hint is bytes else None

    def build(self, kind: Any) -> Any:
        """Make an input, or something of which one is made."""
        if issubclass(kind, IntEnum):
            return self.one_of(*kind)
        hints = typing.get_type_hints(kind)
        made = kind(**{name: self.make(hint, name) for name, hint in hints.items()})
        return self.formed(made) if isinstance(made, i.StepPlanned) else made

    def formed(self, step: i.StepPlanned) -> i.StepPlanned:
        """Give a step as it comes from the wire: each kind has its own fields."""
        step = step._replace(due_at=None, delay=None, events=(), output=b"", fault=step.fault and Failure("F", "bad"))
        match step.kind:
            case StepKind.SLEEP:
                if self.one_of(False, True):
                    return step._replace(due_at=START + self.one_of(-1e9, 0.0, 5.0, 1e9), target="")
                return step._replace(delay=self.one_of(*SECONDS), target="")
            case StepKind.INVOKE:
                target = f"{self.one_of('', 'app', 'other')}/{self.one_of(*FUNCTIONS, 'nope')}"
                return step._replace(target=target)
            case StepKind.SEND_EVENTS:
                events = [self.event() for _ in range(self.one_of(1, 2))]
                return step._replace(events=events, output=b"ids", target="")
            case StepKind.WAIT_FOR_EVENT:
                spec = WaitSpec(*matching.canonical_match(list(self.one_of(*MATCHES))))
                return step._replace(target=self.one_of("reply", "go"), wait=spec, delay=self.one_of(*SECONDS))
        return step

    def event(self) -> Event:
        event_id, name = self.one_of("e1", "e2", "e3", f"new-{self.count}"), self.one_of("go", "reply", "nobody")
        self.count += 1
        return Event(
            event_id, name, b"data", self.world.wall, digest=f"{name}{self.one_of(event_id, event_id, 'other')}"
        )

    def new_session(self) -> str:
        self.count += 1
        return f"{self.world.state.epoch}.s{self.count}"


SCALARS = (str, int, float, bool, bytes, object, types.NoneType)
SPECIAL: dict[str, Callable[[Live], Any]] = {
    "run_id": Live.run,
    "run_ids": lambda live: [live.run() for _ in range(live.one_of(0, 1, 2))],
    "session_id": Live.session,
    "resume_session": lambda live: live.one_of("", live.session()),
    "fence": Live.fence,
    "invocation": Live.fence,
    "eager_fence": lambda live: live.one_of(0, 0, live.fence()),
    "functions": lambda live: [live.options(each) for each in FUNCTIONS if live.one_of(True, True, False)],
    "tasks": lambda live: live.one_of((), ("t",)),
    "known": lambda live: live.one_of({}, dict(live.world.recent)),
    "matches": lambda live: live.one_of({}, {"doc": '"x"', "a.b": "1"}),
    "cause": lambda live: None,
    "stream": lambda live: f"stream-{live.one_of(1, 2, live.count)}",
    "reply": lambda live: "reply",
}
"""Fields by name."""
SPECIAL_TYPES: dict[Any, Callable[[Live], Any]] = {
    StepKey: Live.key,
    Event: Live.event,
    i.AttemptRef: Live.attempt,
}


def any_input(live: Live) -> i.Input:
    """Make an input of any kind. A Hello comes with an id that no session has had."""
    kind = live.one_of(*INPUTS, i.StepsFound, i.StepsFound, i.StepRun, i.StepRun, i.EventsSent)
    made: i.Input = live.build(kind)
    if isinstance(made, i.Hello):
        given = {name: getattr(made, name) for name in typing.get_type_hints(i.Hello)}
        made = i.Hello(**{**given, "session_id": live.new_session()})
    return made


def as_agreed(live: Live) -> list[i.Input]:
    """Go on with a run as its lead may, so that there is much to be disturbed; nothing if nobody leads one."""
    world = live.world
    leads = [loaded for loaded in world.state.runs.values() if loaded.lead is not None]
    attempts = [
        (session.id, run_id, key, fence)
        for session in world.state.sessions.values()
        for fence, (run_id, key) in session.attempts.items()
    ]
    if attempts and live.one_of(True, False):
        session_id, run_id, key, fence = live.one_of(*attempts)
        return [i.StepRun(session_id, run_id, key, fence, b"out", 3, 0.0)]
    if not leads:
        return []
    loaded = live.one_of(*leads)
    lead = loaded.lead
    if live.one_of(False, False, True):
        return [i.RunFinished(lead.session_id, loaded.run.id, lead.fence, b"done", 4)]
    steps = [live.build(i.StepPlanned) for _ in range(live.one_of(1, 1, 2, 4))]
    return [i.StepsFound(lead.session_id, loaded.run.id, lead.fence, lead.sent, steps, live.one_of(True, True, False))]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_no_sequence_of_inputs_makes_a_decision_raise_or_its_counts_drift(data: st.DataObject) -> None:
    limits = Limits(max_steps=20, max_lost_invocations=2, session_grace=2.0, max_invoke_depth=3)
    world = World(*(FunctionOptions(each, ("go",) if each != "h" else ()) for each in FUNCTIONS), limits=limits)
    live = Live(world, data.draw)
    world.worker("w1", slots=2, functions=FUNCTIONS, eager=True)
    world.send()
    for _ in range(data.draw(st.integers(1, 25))):
        match live.one_of("agreed", "agreed", "any", "any", "any", "time", "crash"):
            case "agreed":
                world.tell(*as_agreed(live))
            case "any":
                world.tell(*(any_input(live) for _ in range(live.one_of(1, 1, 2, 4))))
            case "time":
                world.wait(live.one_of(0.001, 1.0, 3.0, 15.0, 100.0))
            case "crash" if live.one_of(True, False):
                world.crash()


def test_every_input_of_the_core_is_tried() -> None:
    assert {kind.__name__ for kind in INPUTS} >= {"StepsFound", "Hello", "EventsSent", "EventsLookedUp", "Tick"}
    assert len(INPUTS) == len(typing.get_args(i.Input)) - 2
