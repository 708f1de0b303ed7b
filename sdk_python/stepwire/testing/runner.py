"""`run`: a function in one process, without a server and without waiting."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from stepwire.app import App, Function
from stepwire.errors import RunFailedError, StepwireError
from stepwire.events import Event as OutsideEvent
from stepwire.events import as_event
from stepwire.replay.model import Event, Raised
from stepwire.testing import replays
from stepwire.testing.events import conflicting, receive
from stepwire.testing.local import LocalRun
from stepwire.testing.records import TestRun
from stepwire.testing.steps import INVOKED_EVENT
from stepwire.testing.substitutes import Failing, Substitutes
from stepwire.testing.world import World

START = datetime(2030, 1, 1, tzinfo=UTC)
"""When runs begin, unless a test says otherwise."""

Result = TypeVar("Result")

Incoming = OutsideEvent | tuple[str, Any] | tuple[str, Any, float]


def run(
    function: Function | Callable[..., Any] | str,
    data: Any = None,
    *,
    app: App | None = None,
    event_name: str = "",
    replace: Mapping[str, Any] | None = None,
    fail: Mapping[str, Failing] | None = None,
    invoke: Mapping[str, Any] | None = None,
    events: Sequence[Incoming] = (),
    now: datetime = START,
    seed: int = 0,
) -> TestRun:
    """Run a function to its end in this process, and replay it to see that it is deterministic.

    It can be called from plain and from async tests; in an async one it blocks the test's loop, and the code of steps
    runs on another one: use `arun` to run it on the test's own.

    `function` is what was declared, or its id if `app` is given. `data` is that of the event which starts the run; its
    name is `event_name`, by default that of the function's first trigger.

    `replace` maps a step ("charge", or "charge:2" for its third repetition only) to a value, to a callable that takes
    the arguments of the step's own code, or to `Takes`. `fail` maps a step to an error for all of its attempts, or to a
    list with an error for each of the first ones. `invoke` maps the id of an invoked function to a value or to a
    callable that takes its data; other functions of the app really run. `events` come from outside for
    `wait_for_event`: (name, data), or (name, data, seconds after the start). `now` is when the run begins. The
    delays of retries are drawn from `seed`; the run's id is "test-run-<seed>", and its random numbers derive from that.

    Code of steps really runs. Sleeps, timers, timeouts and delays of retries take no real time: they end in the order
    of their times whenever nothing else can move. Only code that runs for a second and more meets timeouts really.

    Raises NonDeterminismError if a replay does something else; StuckError if the function waits for what does not come;
    SubstituteError for a name that matches nothing in a run that succeeded. Whatever the function itself raises is the
    TestRun's `error`, and so is an output of another type than the function says.
    """
    coroutine = arun(
        function,
        data,
        app=app,
        event_name=event_name,
        replace=replace,
        fail=fail,
        invoke=invoke,
        events=events,
        now=now,
        seed=seed,
    )
    return blocking(coroutine)


async def arun(
    function: Function | Callable[..., Any] | str,
    data: Any = None,
    *,
    app: App | None = None,
    event_name: str = "",
    replace: Mapping[str, Any] | None = None,
    fail: Mapping[str, Failing] | None = None,
    invoke: Mapping[str, Any] | None = None,
    events: Sequence[Incoming] = (),
    now: datetime = START,
    seed: int = 0,
) -> TestRun:
    """Do as `run` does, on the running loop: async step code can use what belongs to it."""
    app, function = resolve(function, app)
    substitutes = Substitutes(replace or {}, fail or {}, invoke or {})
    world = World(app, substitutes, now=now.timestamp(), seed=seed)
    ended = await play(world, function, data, event_name, events)
    found = report(world, ended)
    if found.error is None:  # one that failed may not have come as far as what is replaced
        substitutes.check_used([key for each in world.runs for key in each.records], world.invoked)
    return found


async def play(
    world: World,
    function: Function,
    data: Any,
    event_name: str,
    events: Sequence[Incoming],
    *,
    thorough: bool = True,
) -> LocalRun:
    """Run a function in a fresh world, and replay all that ran there, `thorough`ly or once."""
    conflict = conflicting([schedule(world, number, incoming) for number, incoming in enumerate(events)], {})
    if conflict is not None:
        raise StepwireError(f"events: {conflict}, which an executor refuses: give each event its own id")
    name = event_name or (function.triggers[0].event_name if function.triggers else INVOKED_EVENT)
    event = Event("event-0", name, world.values.encode(data, None, "data of the test's event"), world.now)
    ended = await world.execute(function, event)
    for each in world.runs:
        replays.check(each, world.invocation, opaque=world.app.codec is not None, thorough=thorough)
    return ended


def resolve(function: Function | Callable[..., Any] | str, app: App | None) -> tuple[App, Function]:
    """Find the app and the declared function. Raises StepwireError if there is none."""
    if app is None:
        app = app_of(function)
    for declared in app.functions.values():
        if function in (declared, declared.body, declared.id):
            return app, declared
    known = ", ".join(map(repr, app.functions)) or "none"
    raise StepwireError(f"app {app.name!r} has no function {function!r}; it has {known}")


def app_of(function: Function | Callable[..., Any] | str) -> App:
    """Find the app that a function was declared in, among the names of its module. Raises StepwireError."""
    body = function.body if isinstance(function, Function) else function
    for value in getattr(body, "__globals__", {}).values():
        if isinstance(value, App) and any(declared.body is body for declared in value.functions.values()):
            return value
    raise StepwireError(f"{function!r} belongs to no app of its module: say which with app=…")


def schedule(world: World, number: int, incoming: Incoming) -> Event:
    """Have an event come from outside, at its time; gives it."""
    after = 0.0
    if isinstance(incoming, tuple) and len(incoming) == 3:
        name, data, after = incoming
        incoming = (name, data)
    sent = as_event(incoming)
    payload = world.values.encode(sent.data, None, f"data of event {sent.name!r}")
    due = world.now + after
    event = Event(sent.id or f"event-{number + 1}", sent.name, payload, sent.time.timestamp() if sent.time else due)
    world.at(due, lambda: receive(world, event))
    return event


def report(world: World, run: LocalRun) -> TestRun:
    """Sum up how a run went."""
    ended = run.ended
    assert ended is not None
    error: BaseException | None = None
    output = None
    if isinstance(ended, Raised):
        error = RunFailedError(run.id, ended.failure) if ended.error is None else ended.error
    else:
        try:
            output = world.values.decode(ended.output, run.function.output_type, f"the output of {run.function.id!r}")
        except StepwireError as unreadable:
            error = unreadable
    return TestRun(
        output,
        error,
        list(run.records.values()),
        run.sent,
        timedelta(seconds=run.ended_at - run.created_at),
        run.attempt,
    )


def blocking(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on a loop of its own and wait for it, from a running loop too."""
    results: list[Result] = []

    async def keep() -> None:
        results.append(await coroutine)  # asyncio writes a task's own result out, and so an error that may be odd

    if asyncio._get_running_loop() is None:
        asyncio.run(keep())
    else:
        in_thread(lambda: asyncio.run(keep()))
    return results[0]


def in_thread(work: Callable[[], Result]) -> Result:
    """Do something in a thread of its own, with this one's context variables, and wait for it."""
    results: list[Result] = []
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def body() -> None:
        try:
            results.append(context.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="stepwire-test-run", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
