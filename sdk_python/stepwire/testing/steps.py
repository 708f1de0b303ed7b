"""What a step does in a world, by its target: runs code or what stands in its place, sleeps, waits, sends, invokes."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepwire.attempt import AttemptContext, enter_attempt
from stepwire.errors import Failure, StepwireError
from stepwire.payload import Payload
from stepwire.replay.model import Closure, Event, Invoke, SendEvents, Sleep, Task, WaitForEvent
from stepwire.testing import events
from stepwire.testing.local import LocalRun, OpenStep
from stepwire.testing.substitutes import Missing, SubstituteError, Takes

if TYPE_CHECKING:
    from stepwire.testing.world import World

INVOKED_EVENT = "stepwire/function.invoked"
DEEPEST_INVOKE = 64
EMPTY = Payload(b"", "")


def begin(world: World, run: LocalRun, step: OpenStep) -> None:
    """Begin a step, or a further attempt at it."""
    target = step.planned.target
    match target:
        case Closure() | Task():
            attempt(world, run, step)
        case Sleep(until, delay):
            refuse_substitutes(world, step, "a sleep takes no real time")
            seconds = until - world.now if until is not None else delay or 0.0
            world.after(max(0.0, seconds), run, step, lambda: world.finish(run, step, EMPTY))
        case WaitForEvent():
            refuse_substitutes(world, step, "give the event in events=[(name, data)]")
            events.wait(world, run, step, target)
        case SendEvents():
            refuse_substitutes(world, step, "nothing is really sent; look at the TestRun's `sent`")
            events.send(world, run, step, target)
        case Invoke():
            invoke(world, run, step, target)


def refuse_substitutes(world: World, step: OpenStep, advice: str) -> None:
    """Raise SubstituteError if the test wants something else in the place of a step that runs no code."""
    key = step.planned.key
    if not isinstance(world.substitutes.replacement(key), Missing) or world.substitutes.error(key, 1) is not None:
        kind = step.planned.kind.name.lower()
        raise SubstituteError(f"step {str(key)!r} is a {kind}, which nothing can replace or make fail: {advice}")


def attempt(world: World, run: LocalRun, step: OpenStep) -> None:
    """Run a closure or a task, or what stands in its place; or let the attempt fail, as the test wants."""
    key = step.planned.key
    step.attempts += 1
    step.record.attempts = step.attempts
    error = world.substitutes.error(key, step.attempts)
    replacement = world.substitutes.replacement(key)
    if error is not None:
        world.finish(run, step, world.values.failure(error))
        return
    try:
        code = own_code(world, step) if isinstance(replacement, Missing) else replacement
        given = ((), {}) if isinstance(replacement, Missing) else arguments(world, step)
    except SubstituteError:
        raise
    except Exception as unreadable:  # an input that the task does not take: its failure, as in a worker
        world.finish(run, step, world.values.failure(unreadable))
        return
    perform(world, run, step, code, *given)


def own_code(world: World, step: OpenStep) -> Any:
    """Give the code that a step itself wants to run."""
    target = step.planned.target
    if isinstance(target, Closure):
        return target.run
    assert isinstance(target, Task)
    task = world.app.tasks.get(target.name)
    if task is None:
        known = ", ".join(map(repr, world.app.tasks)) or "none"
        raise SubstituteError(
            f"step {str(step.planned.key)!r} calls the task {target.name!r}, but app {world.app.name!r} has {known}. "
            f"If workers in other places have it, put something in its place: replace={{{step.planned.key.id!r}: …}}"
        )
    values, keywords = arguments(world, step)
    return functools.partial(task.body, *(values if task.takes_input else ()), **keywords)


def arguments(world: World, step: OpenStep) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Give what a step's code is called with; a replacement is called with the same."""
    target = step.planned.target
    if isinstance(target, Task):
        task = world.app.tasks.get(target.name)
        what = f"the input of step {str(step.planned.key)!r}, task {target.name!r}"
        return [world.values.decode(target.input, task.input_type if task else None, what)], {}
    run = target.run if isinstance(target, Closure) else None
    return (run.args, run.keywords) if isinstance(run, functools.partial) else ((), {})


def perform(
    world: World, run: LocalRun, step: OpenStep, code: Any, values: Sequence[Any] = (), keywords: Mapping[str, Any] = {}
) -> None:
    """Let time pass if the code is `Takes`; then call it, or take it for the value."""
    key = step.planned.key
    if isinstance(code, Takes):
        limit = step.planned.attempt_timeout
        if limit is not None and code.seconds > limit:
            world.after(limit, run, step, lambda: world.finish(run, step, too_long(step)))
        else:
            world.after(code.seconds, run, step, lambda: perform(world, run, step, code.then, values, keywords))
    elif callable(code):
        step.context = AttemptContext(run.id, key.id, key.index, max(step.attempts, 1))
        code = functools.partial(code, *values, **keywords)
        step.task = world.code.start(call(world, run, step, code), f"step {key}")
    else:
        deliver(world, run, step, code)


async def call(world: World, run: LocalRun, step: OpenStep, code: Any) -> None:
    """Run a step's code to its end and say what came of it."""
    context = step.context
    assert context is not None
    timer = asyncio.timeout(step.planned.attempt_timeout)
    try:
        async with timer:
            value = await world.code.call(code, functools.partial(enter_attempt, context))
    except (Exception, asyncio.CancelledError, BaseExceptionGroup, SystemExit) as error:
        if context.cancelled:
            raise
        if issubclass(type(error), TimeoutError) and timer.expired():
            context.cancel("attempt timeout")
            world.finish(run, step, too_long(step))
        else:
            world.finish(run, step, world.values.failure(context.nested or error))
    else:
        if context.nested is not None:
            world.finish(run, step, world.values.failure(context.nested))
        else:
            deliver(world, run, step, value)


def deliver(world: World, run: LocalRun, step: OpenStep, value: Any) -> None:
    """Give a step's output; one that can't be encoded is its failure."""
    try:
        output = world.values.encode(value, output_type(world, step), f"output of step {str(step.planned.key)!r}")
    except StepwireError as error:
        world.finish(run, step, world.values.failure(error))
    else:
        world.finish(run, step, output)


def output_type(world: World, step: OpenStep) -> Any:
    """Give the type that a step's output is encoded as."""
    target = step.planned.target
    match target:
        case Closure():
            return target.encoded_as
        case Task(name) if name in world.app.tasks:
            return world.app.tasks[name].output_type
        case Invoke(_, function_id) if function_id in world.app.functions:
            return world.app.functions[function_id].output_type
    return None


def too_long(step: OpenStep) -> Failure:
    """Describe an attempt that took too long."""
    limit = step.planned.attempt_timeout
    return Failure(
        "StepTimeoutError", f"attempt {step.attempts} of step {step.planned.key} took longer than {limit:g} s"
    )


def invoke(world: World, run: LocalRun, step: OpenStep, target: Invoke) -> None:
    """Run another function of the app in this world, or what stands in its place."""
    app = target.app or world.app.name
    key, own = step.planned.key, app == world.app.name
    world.invoked.append(target.function_id if own else f"{app}/{target.function_id}")
    error = world.substitutes.error(key, 1)
    replacement = world.substitutes.replacement(key)
    if isinstance(replacement, Missing):
        replacement = world.substitutes.invoked(app, target.function_id)
    function = world.app.functions.get(target.function_id) if own else None
    if error is not None:
        world.finish(run, step, dataclasses.replace(world.values.failure(error), retryable=False))
    elif not isinstance(replacement, Missing):
        perform(world, run, step, replacement, [world.values.decode(target.input)])
    elif function is None:
        message = f"step {key} invokes {app}/{target.function_id}, which is not in app {world.app.name!r}"
        advice = f"to put something in its place: invoke={{{target.function_id!r}: …}}"
        world.finish(run, step, Failure("FunctionNotFoundError", f"{message}; {advice}", retryable=False))
    elif run.depth >= DEEPEST_INVOKE:
        message = f"step {key} invokes {target.function_id!r} {run.depth + 1} runs deep"
        failure = Failure("InvokeDepthError", f"{message}: functions invoke each other in a circle?", retryable=False)
        world.finish(run, step, failure)
    else:
        event = Event(f"invoke-{run.id}/{key}", INVOKED_EVENT, target.input, world.now)
        step.child = world.create(function, event, (run, step))
