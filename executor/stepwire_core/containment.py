"""What becomes of an input whose decision raises: it costs its sender, and the runs that it was about, and nobody else.

A handler that raises has a fault of ours, and may have done half of what it was to do. So nothing of that half is kept:
what it added to the decision is taken out, and the runs that it had in its hands leave the memory with whatever this
decision was to write of them. They come back as they are stored, as after a crash; a run that this happens to again and
again fails. All others keep their workers, and what was decided for them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from stepwire_core import quarantine, runs
from stepwire_core.commands import (
    Answer,
    AttemptClosed,
    CancelAttempt,
    CancelRun,
    Command,
    Fault,
    FindEvents,
    FollowUp,
    Invoke,
    Recorded,
    Refused,
    Rejected,
    Resume,
    RunBegun,
    RunEnded,
    StartAttempt,
)
from stepwire_core.inputs import (
    ChildEnded,
    Draining,
    Heartbeat,
    Hello,
    Input,
    NotWritten,
    RunCancelled,
    SleepersWoken,
    StreamLost,
    Tick,
)
from stepwire_core.model import Event, Failure, Run, StepState
from stepwire_core.queued import Held
from stepwire_core.state import LoadedRun, Session, State
from stepwire_core.timer_queue import Timer
from stepwire_core.transitions import RunEvent, free_slot, move_run
from stepwire_core.turn import Turn

MOST_FAULTS = 3
"""Times that a run comes back after a decision about it has raised; then it fails."""
SHOWN_BYTES, SHOWN_ITEMS, SHOWN_TEXT = 32, 20, 4_000
"""How much of an input is logged: of each value, of each list, and altogether."""
STOPS = (CancelRun, CancelAttempt, Rejected)
"""What may be told though it came from half of a handler: it takes nothing from anybody that is not given again."""


class DecisionError(Exception):
    """Answers a call whose input could not be decided."""


Begun = tuple[int, int, int]
"""How many events to write, commands, and early commands a decision had before an input was decided."""


def refuse(turn: Turn, input_: Input, error: Exception, begun: Begun) -> None:
    """Take back what a handler that raised has done, and refuse its input to the sender."""
    state, decision = turn.state, turn.decision
    what = type(input_).__name__
    message = (
        f"a bug in Stepwire keeps {what} from being decided ({type(error).__name__}); the executor's log says more"
    )
    undo(turn, begun)
    sender = state.sessions.get(getattr(input_, "session_id", ""))
    named, beside = [getattr(input_, "run_id", "")], list[str]()
    if isinstance(input_, Hello):
        beside += [attempt.run_id for attempt in input_.in_hand]
        decision.commands.append(Rejected("", input_.stream, "INTERNAL", message))
        for session in list(state.sessions.values()):
            if (session.app, session.instance_id) == (input_.app, input_.instance_id):
                beside += drop_session(turn, session, message)
    elif sender is not None and isinstance(input_, StreamLost | Draining | Heartbeat):
        beside += drop_session(turn, sender, message)
    elif sender is not None:
        decision.commands.append(Rejected(sender.id, sender.stream, "INTERNAL", message))
    app = input_.app if isinstance(input_, Hello) else sender.app if sender is not None else None

    def within(run_ids: Iterable[str]) -> list[str]:  # a worker's word is not enough to stop another app's run
        known = ((run_id, state.runs.get(run_id)) for run_id in run_ids)
        return [run_id for run_id, loaded in known if loaded is not None and app in (None, loaded.run.app)]

    concerned = within((*named, *in_hands(error)))
    reply = getattr(input_, "reply", None)
    if reply is not None:
        decision.commands.append(Answer(reply, DecisionError(message)))
    begin_anew(turn, concerned, within(beside), describe(input_), error)
    if reply is None and isinstance(input_, ChildEnded | RunCancelled) and concerned:
        decision.commands.append(FollowUp(input_))  # nobody would say it again


def give_up(turn: Turn, timer: Timer, error: Exception) -> None:
    """Let go of what a timer was about whose handler has raised: a run, or a session in its grace."""
    concerned, beside = list(in_hands(error)), list[str]()
    session = turn.state.sessions.get(timer.run_id)
    if session is not None:
        beside = drop_session(turn, session, "its grace could not be ended: a bug in Stepwire")
    elif timer.run_id in turn.state.runs:
        concerned.append(timer.run_id)
    begin_anew(turn, concerned, beside, f"a timer: {describe(timer)}", error)


def do_again(turn: Turn, phase: Callable[[Turn], None], error: Exception) -> Iterator[int]:
    """Do what every decision ends with, and what has raised, again and again, without the run that it was about.

    Stops after each try, so that others can have a turn. Raises what was raised if it can't be told which run that is,
    and trying again was no help.
    """
    state = turn.state
    again = True
    while True:
        concerned = [run_id for run_id in in_hands(error) if run_id in state.runs]
        if not concerned and not again:
            raise error
        again = bool(concerned)
        begin_anew(turn, concerned[:1], (), f"{phase.__module__}.{phase.__name__}", error)
        yield len(state.runs)
        try:
            phase(turn)
            break
        except Exception as another:
            error = another
    queue_all(state)  # it may have taken something out of a queue; the next decision hands that out
    turn.decision.commands.append(FollowUp(Tick()))


def begin_anew(turn: Turn, concerned: Sequence[str], beside: Sequence[str], what: str, error: Exception) -> None:
    """Take runs out of memory, have them loaded as they are stored, and tell of it.

    `concerned` are those that a handler had in its hands which raised, `beside` those that had a part in what goes with
    them: they are not to blame.
    """
    run_ids = list(dict.fromkeys((*concerned, *beside)))
    for run_id in dict.fromkeys(concerned):
        turn.state.count_fault(run_id)
    if run_ids:
        drop_runs(turn, run_ids)
        turn.state.taken_back.update(run_ids)
        turn.decision.commands.append(FollowUp(SleepersWoken(run_ids)))
    note(turn, what, error, run_ids)


def note(turn: Turn, what: str, error: Exception, run_ids: Sequence[str]) -> None:
    """Have a fault told, with what reproduces it."""
    told = "".join(traceback.format_exception(error))
    turn.decision.faults.append(Fault(what, f"{type(error).__name__}: {error}", told, run_ids))


def came_back(turn: Turn, loaded: LoadedRun) -> None:
    """Fail a run that has been loaded after faults, if there were too many."""
    if turn.state.faults[loaded.run.id] >= MOST_FAULTS:
        runs.fail(turn, loaded, failure_of(loaded.run))


def on_not_written(turn: Turn, failed: NotWritten) -> None:
    """Have a run begin anew that a worker could not be told of; else it would cost the next one its stream, too."""
    concerned = [failed.run_id] if failed.run_id in turn.state.runs else []
    begin_anew(turn, concerned, (), failed.what, failed.error)


def not_loaded(turn: Turn, run: Run, error: Exception) -> None:
    """Take a run out of memory that could not be brought in; at the last time it is written as failed, unseen."""
    what = f"the loading of run {run.id}"
    if turn.state.faults.get(run.id, 0) < MOST_FAULTS:
        begin_anew(turn, [run.id], (), what, error)
        return
    drop_runs(turn, [run.id])
    move_run(run, RunEvent.FAILED)
    run.ended_at, run.wake_at, run.retry_at = turn.now.wall, None, None
    run.failure = failure_of(run)
    turn.changed(run)
    turn.decision.observations.append(RunEnded(run))
    turn.state.faults.pop(run.id, None)
    note(turn, what, error, [run.id])


def failure_of(run: Run) -> Failure:
    """Say why a run fails that faults of ours keep from going on."""
    message = f"bugs in Stepwire kept run {run.id} from going on {MOST_FAULTS} times; the executor's log says more"
    return Failure("InternalError", message, retryable=False)


def in_hands(error: Exception) -> Iterator[str]:
    """Give the ids of the runs that the handlers were at work on which raised, the innermost first."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            held = value[0] if isinstance(value, tuple) and value else value
            if isinstance(held, LoadedRun | Held):
                yield held.run.id


def undo(turn: Turn, begun: Begun) -> None:
    """Take out of a decision what was added since: events with their runs, and what was to be told."""
    decision = turn.decision
    events, commands, early = begun
    del decision.early[early:]
    decision.commands[commands:] = [each for each in decision.commands[commands:] if isinstance(each, STOPS)]
    drop_events(turn, decision.writes.events[events:])


def drop_events(turn: Turn, events: Sequence[Event]) -> None:
    """Take events out of a decision, with the runs that they were to start."""
    decision = turn.decision
    if not events:
        return
    gone = {event.key for event in events}
    decision.writes.events[:] = [event for event in decision.writes.events if event.key not in gone]
    for event in events:
        decision.recent.pop(event.key, None)
    run_ids = [run_id for event in events for run_id in event.run_ids]
    drop_runs(turn, run_ids)
    for run_id in run_ids:
        decision.writes.new_runs.pop(run_id, None)


def drop_session(turn: Turn, session: Session, message: str) -> list[str]:
    """Forget a session, whatever state it is in; gives the runs of which it has something."""
    state = turn.state
    state.drop(session)
    state.leaves(session, turn.now)
    if state.emptied is session:
        state.emptied = None
    turn.decision.commands.append(Rejected(session.id, session.stream, "INTERNAL", message))
    held = [run_id for run_id, _ in session.attempts.values()]
    return [*session.invocations, *held, *session.begun.values()]


def drop_runs(turn: Turn, run_ids: Sequence[str]) -> None:
    """Take runs out of memory, whatever state they are in, with all that a decision was to write and tell of them."""
    state, decision = turn.state, turn.decision
    named = set(run_ids)
    gone = {run_id: loaded.run for run_id in run_ids if (loaded := state.runs.pop(run_id, None)) is not None}
    for run_id in run_ids:
        for index in (state.undelivered, state.idle_candidates, state.idle):
            index.pop(run_id, None)
        state.queued.drop(run_id)
        state.held.drop_run(run_id)
    for app in state.leaderless.apps:
        for pools in state.leaderless.of(app):
            for _, waiting in pools:
                for run_id in named & waiting.keys():
                    del waiting[run_id]
    for suspect in [each for each in state.quarantine if each[0] in named]:
        del state.quarantine[suspect]
    for sought in [each for each in state.seeking if each[0] in named]:
        del state.seeking[sought]
    for session in state.sessions.values():
        leave(turn, session, named)
    if not gone:
        return  # they had ended, and what is to be written of that holds
    decision.early[:] = [each for each in decision.early if run_of(each) not in gone]
    decision.commands[:] = [each for each in decision.commands if run_of(each) not in gone]
    decision.recorded[:] = [each for each in decision.recorded if each[0] not in gone]
    decision.observations[:] = [
        each
        for each in decision.observations
        if not (isinstance(each, AttemptClosed | RunBegun | RunEnded) and each.run.id in gone)
    ]
    decision.changed_runs |= gone.keys()
    forget_writes(turn, gone)


def leave(turn: Turn, session: Session, run_ids: Set[str]) -> None:
    """Take runs out of a session, and have its worker stop what it has of them."""
    held = {fence: run_id for fence, (run_id, _) in session.attempts.items() if run_id in run_ids}
    begun = {fence: run_id for fence, run_id in session.begun.items() if run_id in run_ids}
    live = run_ids & session.invocations.keys()
    for fence in held:
        del session.attempts[fence]
    for fence in begun:
        del session.begun[fence]
    for run_id in live:
        free_slot(session, session.invocations.pop(run_id))
    if session.guest is not None and session.guest.run_id in run_ids:
        session.guest = None
    for run_id in sorted({*held.values(), *begun.values(), *live}):
        turn.decision.cancel(CancelRun(session.id, run_id, "a bug in Stepwire: the run goes on from what is stored"))


def forget_writes(turn: Turn, gone: Mapping[str, Run]) -> None:
    """Have nothing written of runs, but for new ones that they are there, as they were when their events came."""
    writes = turn.decision.writes
    for run_id in gone.keys() & writes.new_runs.keys():
        new = writes.new_runs[run_id]
        fresh = Run(new.id, new.app, new.function_id, new.app_version, new.event, new.created_at)
        fresh.parent_run_id, fresh.parent_key, fresh.depth = new.parent_run_id, new.parent_key, new.depth
        fresh.deadline_at = new.deadline_at
        writes.new_runs[run_id] = fresh
    for run_id in gone.keys() & writes.runs.keys():
        del writes.runs[run_id]
    for rows in (writes.new_steps, writes.steps, writes.new_waits, writes.ended_waits):
        for at in [at for at in rows if at[0] in gone]:
            del rows[at]  # type: ignore[arg-type]
    writes.failed_attempts[:] = [each for each in writes.failed_attempts if each.run_id not in gone]
    drop_events(turn, [each.event for each in writes.new_runs.values() if each.parent_run_id in gone])


def run_of(command: Command) -> str:
    """Name the run that a command is about; not of one that stops something, which is told all the same."""
    match command:
        case Invoke() | Resume() | StartAttempt():
            return command.run.id
        case Recorded() | Refused():
            return command.attempt.run_id
        case FindEvents():
            return command.run_id
    return ""


def queue_all(state: State) -> None:
    """Put everything that can begin into its queue again; who is there twice is handed out once."""
    for loaded in state.runs.values():
        for step in loaded.run.open.values():
            if step.state is StepState.READY:
                quarantine.enqueue(state, loaded, step)
        runs.want_lead(state, loaded)


def describe(thing: Any) -> str:
    """Write an input so that one can make it again, but for the contents of long values."""
    return shown(thing)[:SHOWN_TEXT]


def shown(value: Any) -> str:
    """Write a value in a line."""
    match value:
        case Mapping():
            return f"<{len(value)} entries>"
        case bytes() if len(value) > SHOWN_BYTES:
            return f"<{len(value)} bytes>"
        case str() if len(value) > SHOWN_TEXT:
            return f"{value[:SHOWN_TEXT]!r}…"
        case list() | tuple() if not hasattr(value, "_fields"):
            more = ", …" if len(value) > SHOWN_ITEMS else ""
            return f"[{', '.join(shown(each) for each in value[:SHOWN_ITEMS])}{more}] ({len(value)})"
    names = getattr(value, "_fields", None) or getattr(value, "__slots__", None)
    if not names or isinstance(value, str | bytes | int | float):
        return repr(value)
    return f"{type(value).__name__}({', '.join(f'{name}={shown(getattr(value, name))}' for name in names)})"
