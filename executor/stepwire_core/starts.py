"""Where steps start runs: invokes and sends. Those for which there is no room wait, and go on in turn over apps.

A waiting step holds nothing that the runs before it need, so there is room as soon as workers take those up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from stepwire_core import runs, steps, trace
from stepwire_core.commands import FollowUp
from stepwire_core.inputs import SendDue, Tick
from stepwire_core.model import Blob, Event, EventKey, Failure, Now, Step, StepKind
from stepwire_core.queued import MANY_RUNS, MOST_NEW_RUNS, MOST_RUNS, REST_SECONDS, Held
from stepwire_core.state import LoadedRun, State
from stepwire_core.transitions import StepEvent
from stepwire_core.turn import Turn


def start_child(turn: Turn, loaded: LoadedRun, step: Step) -> None:
    """Start a run of another function, once there is room for it."""
    state = turn.state
    app, _, function_id = step.target.partition("/")
    limit = state.limits.max_invoke_depth
    held = Held(loaded.run, step, 1, {app})
    if (app, function_id) not in state.functions:
        steps.record(turn, loaded, step, failure=not_found(step))
    elif loaded.run.depth >= limit:
        message = f"step {step.key} invokes {step.target} {limit + 1} runs deep, over --max-invoke-depth={limit}"
        failure = Failure("InvokeDepthError", f"{message}: functions invoke each other in a circle?", retryable=False)
        steps.record(turn, loaded, step, failure=failure)
    elif must_wait(turn, held):
        state.held.add(held)
    else:
        begin_child(turn, held)


def not_found(step: Step) -> Failure:
    """Say that nobody has a function that is invoked."""
    message = f"step {step.key} invokes {step.target}, which no worker has registered: start one that serves it"
    return Failure("FunctionNotFoundError", message, retryable=False)


def begin_child(turn: Turn, held: Held) -> None:
    """Start the run that a step invokes; its function may be gone by now."""
    state = turn.state
    app, _, function_id = held.step.target.partition("/")
    function = state.functions.get((app, function_id))
    if function is None:
        steps.record(turn, state.runs[held.run.id], held.step, failure=not_found(held.step))
    else:
        steps.written(turn, state.runs[held.run.id], held.step)
        runs.create_child(turn, held.run, held.step, function)
        turn.decision.begun_by_steps += 1


def send(
    turn: Turn, loaded: LoadedRun, step: Step, events: Sequence[Event], output: Blob, known: Mapping[EventKey, Event]
) -> None:
    """Send events, once there is room for the runs that they start."""
    state = turn.state
    held = Held(loaded.run, step, *started(state, events, known), events, output)
    failure = refusal(state, held, known)
    if failure is not None:
        steps.record(turn, loaded, step, failure=failure)
    elif held.starts and must_wait(turn, held):
        if state.held.has_too_much(held, state.limits):
            steps.record(turn, loaded, step, failure=too_many_events(state, held))
        else:
            state.held.add(held)
    else:
        for _ in publish(turn, loaded, held, known):
            pass


def too_many_events(state: State, held: Held) -> Failure:
    """Say that a step's events can't wait for room."""
    app = held.run.app
    message = (
        f"step {held.step.key} sends nothing: {state.held.bytes} bytes of events of steps, {state.held.bytes_of(app)} "
        f"of them of app {app}, wait already until there is room for the runs that they start, and {held.size} more "
        f"would be over --max-queued-bytes={state.limits.max_queued_bytes}, or what app {app} has of it beside others: "
        "add workers, send less at a time, or raise the limit"
    )
    return Failure("TooManyEventsError", message, retryable=False)


def started(state: State, events: Sequence[Event], known: Mapping[EventKey, Event]) -> tuple[int, set[str]]:
    """Count the runs that events start which were not taken before, and give the apps whose they are."""
    counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
    kinds: dict[tuple[str, tuple[str, ...]], Event] = {}
    for event in events:
        if event.key not in known and state.recent(event.key) is None:
            kind = event.name, event.apps
            counts[kind] += 1
            kinds[kind] = event
    starts, apps = 0, set[str]()
    for kind, event in kinds.items():
        functions = state.triggered(event)
        starts += counts[kind] * len(functions)
        apps.update(function.app for function in functions)
    return starts, apps


def refusal(state: State, held: Held, known: Mapping[EventKey, Event]) -> Failure | None:
    """Say why a step's events are not sent, ever."""
    conflict = runs.conflicting(state, held.events, known)
    if conflict is not None:
        message = f"step {held.step.key} sends nothing: {conflict.reason}: give each event its own id"
        return Failure("EventConflictError", message, retryable=False)
    if held.starts > MOST_RUNS:
        what = f"step {held.step.key} sends nothing: its events start {held.starts:,} runs"
        message = f"{what}, but those of a step start at most {MOST_RUNS:,}: send them in several steps"
        return Failure("TooManyRunsError", message, retryable=False)
    return None


def publish(turn: Turn, loaded: LoadedRun, held: Held, known: Mapping[EventKey, Event]) -> Iterator[int]:
    """Send events, once: they are written together with the step's result. In pieces, see `decide`."""
    context = trace.attempt_traceparent(loaded.run, held.step.fence)
    turn.decision.begun_by_steps += held.starts
    for event in held.events:
        if turn.state.recent(event.key) is None and event.key not in known:
            taken = runs.take_event(turn, replace(event, traceparent=event.traceparent or context))
            yield 1 + len(taken.run_ids)
    steps.record(turn, loaded, held.step, output=held.output)


def must_wait(turn: Turn, held: Held) -> bool:
    """Whether a step has to wait: for room, for its turn, or since a decision begins no more runs than so many.

    One that starts many waits for a decision of its own, which is made in pieces.
    """
    state = turn.state
    others = state.held.pressed or state.held.has_waiting(held.run.app)
    return others or held.starts > MANY_RUNS or is_enough(turn) or has_no_room(state, held)


def is_enough(turn: Turn) -> bool:
    """Whether a decision is to begin no more runs for steps."""
    return turn.decision.begun_by_steps + turn.state.held.granted_runs >= MOST_NEW_RUNS


def has_no_room(state: State, held: Held) -> bool:
    """Whether the runs of a step have to wait. There is room for all of them as soon as there is for one."""
    queued, limits = state.queued, state.limits
    return any(queued.has_too_many(app, limits) or queued.has_too_much(app, limits) for app in held.apps)


def lacking_room(state: State, held: Held) -> str:
    """Say what fills the room that a step waits for; "" if it waits for its turn only."""
    queued, limits = state.queued, state.limits
    for app in sorted(held.apps):
        runs, size = queued.of(app)
        if queued.has_too_many(app, limits):
            most = f"--max-queued-runs={limits.max_queued_runs}"
            return f"{len(queued):,} runs wait for workers, {runs:,} of them of app {app} ({most})"
        if queued.has_too_much(app, limits):
            most = f"--max-queued-bytes={limits.max_queued_bytes}"
            return f"{queued.bytes:,} bytes of runs wait for workers, {size:,} of them for app {app} ({most})"
    return ""


def go_on(turn: Turn) -> None:
    """Start what steps have waited for, as far as there is room.

    Events are sent in a decision of their own, as it has to be known which ids of events were used meanwhile.
    """
    state, now = turn.state, turn.now
    state.held.pressed = False
    if not state.held.is_wanted:
        return
    for held in state.held.in_turn():
        if has_no_room(state, held):
            continue
        if rests(state, held, now):
            state.timers.look_again(now, state.held.rests_until)
            continue
        if is_enough(turn):
            state.held.pressed = True
            break
        if held.starts > MANY_RUNS and len(state.sessions_in) > 1:
            state.held.rests_until = now.mono + held.starts * REST_SECONDS
        if held.events:
            state.held.grant(held)
            step = held.step
            turn.send(FollowUp(SendDue(held.run.id, step.key, step.fence, held.events)))
        else:
            state.held.begin(held)
            begin_child(turn, held)


def rests(state: State, held: Held, now: Now) -> bool:
    """Whether a step that starts many runs waits until other apps have had the executor for a while."""
    return held.starts > MANY_RUNS and now.mono < state.held.rests_until


def come_back(turn: Turn) -> None:
    """Have another decision made if there is room for a step that waits."""
    state = turn.state
    if not state.held.is_wanted:
        return
    if not all(has_no_room(state, held) or rests(state, held, turn.now) for held in state.held.in_turn()):
        turn.send(FollowUp(Tick()))


def on_send_due(turn: Turn, due: SendDue) -> Iterator[int]:
    """Send the events of a step that has got room for the runs that they start. In pieces, see `decide`."""
    state = turn.state
    held = state.held.granted(due.run_id, due.key, due.fence)
    if held is None:  # it was given up meanwhile
        return
    loaded = state.runs[due.run_id]
    state.held.drop(*held.key)
    held.starts, held.apps = started(state, held.events, due.known)
    failure = refusal(state, held, due.known)
    if failure is None:
        yield from publish(turn, loaded, held, due.known)
    else:
        steps.record(turn, loaded, held.step, failure=failure)


def load(turn: Turn, loaded: LoadedRun, step: Step) -> None:
    """Take up a stored step that starts runs, if it had no room yet.

    Events are not stored before they are sent: the body plans their step again, as one that was given up.
    """
    if step.kind is StepKind.INVOKE and not step.child_run_id:
        turn.state.held.add(Held(loaded.run, step, 1, {step.target.partition("/")[0]}))
    elif step.kind is StepKind.SEND_EVENTS:
        step.ended_at = turn.now.wall
        steps.move(turn, loaded, step, StepEvent.CANCELLED)
        turn.state.close(loaded.run, step)
