"""Which functions are registered: by whom they are served, and which are forgotten since nobody has for long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stepwire_core.commands import Answer
from stepwire_core.inputs import FunctionsChecked, Hello
from stepwire_core.model import Function, FunctionKey, FunctionOptions, Now
from stepwire_core.state import SessionState, State
from stepwire_core.turn import Turn

NOTED_SECONDS = 86_400.0
"""How far what is written of a function's service may be behind."""
STARTING_SECONDS = 3_600.0
"""How long workers have to come back to an executor that was started, before a function is forgotten."""
SHARE = 10
"""Both are this part of how long functions are kept, if that is less."""
MOST_WRITTEN = 1_000
"""Functions that one decision writes or forgets; others follow with the next check."""


def served(state: State) -> set[FunctionKey]:
    """Give the functions that a connected worker serves."""
    sessions = (session for session in state.sessions.values() if session.state is SessionState.CONNECTED)
    return {(session.app, function_id) for session in sessions for function_id in session.functions}


def unserved_since(state: State, function: Function) -> float:
    """Give when a function that no connected worker serves was served last (Unix seconds); see NOTED_SECONDS."""
    noted = function.served_at or state.began.wall
    return max(noted, state.last_served.get(function.key, noted))


def present(now: Now) -> float:
    """Give the time of day by which functions grow old: a clock that was set forward makes none older."""
    return min(now.wall, now.steady)


def aged(state: State, now: Now) -> Iterator[FunctionKey]:
    """Give the functions that nobody has served for long; they may have unfinished runs."""
    kept = state.limits.forget_functions_after
    if now.mono < state.began.mono + min(STARTING_SECONDS, kept / SHARE):
        return
    here = served(state)
    for key, function in state.functions.items():
        if key not in here and unserved_since(state, function) <= present(now) - kept:
            yield key


def on_functions_checked(turn: Turn, checked: FunctionsChecked) -> None:
    """Forget functions that nobody serves and nothing needs, and write down when others were served."""
    state, now = turn.state, turn.now
    unneeded = set(checked.unneeded).intersection(aged(state, now)) if checked.unneeded else set[FunctionKey]()
    if unneeded:
        unneeded -= {loaded.run.function_key for loaded in state.runs.values()}
    for key in sorted(unneeded)[:MOST_WRITTEN]:
        state.forget(key)
        turn.decision.writes.forgotten[key] = None
    here, written = served(state), 0
    behind = min(NOTED_SECONDS, state.limits.forget_functions_after / SHARE)
    for key, function in state.functions.items():
        served_at = present(now) if key in here else unserved_since(state, function)
        if served_at >= function.served_at + behind and written < MOST_WRITTEN:
            state.functions[key] = noted = replace(function, served_at=served_at)
            turn.decision.writes.functions.append(noted)
            written += 1
    oldest = present(now) - state.limits.forget_functions_after
    state.last_served = {at: time for at, time in state.last_served.items() if time > oldest}
    for app, tasks in list(state.tasks_last_served.items()):
        while tasks and next(iter(tasks.values())) <= oldest:
            tasks.popitem(last=False)
        if not tasks:
            del state.tasks_last_served[app]
    if checked.reply is not None:
        turn.send(Answer(checked.reply, None))


def excess(state: State, worker: Hello) -> str:
    """Say what keeps a worker's functions from being registered beside those that its app has; "" if nothing does."""
    new = sum((worker.app, options.id) not in state.functions for options in worker.functions)
    if not new:
        return ""
    have, limits = sum(app == worker.app for app, _ in state.functions), state.limits
    if have + new <= limits.max_functions:
        return ""
    return (
        f"app {worker.app} has {have:,} functions, and this worker brings {new:,} more, over "
        f"--max-functions={limits.max_functions}: give functions ids that stay, or raise the limit; a function without "
        f"unfinished runs is forgotten once no worker has served it for {limits.forget_functions_after:,.0f} s "
        "(--forget-functions-after)"
    )


def is_new(state: State, worker: Hello, options: FunctionOptions) -> bool:
    """Whether a worker's function is to be registered; see `register`."""
    known = state.functions.get((worker.app, options.id))
    if known is None:
        return True
    return not worker.resume_session and (known.options, known.app_version) != (options, worker.app_version)


def count_new(state: State, worker: Hello) -> int:
    """Count the functions of a worker that are to be registered."""
    return sum(is_new(state, worker, options) for options in worker.functions)


def register(turn: Turn, worker: Hello) -> None:
    """Remember the functions that a worker serves, where they are new or have changed: new runs begin as they are now.

    A worker that comes back, after its stream was lost, brings no news; it may be of an older version than others.
    """
    for options in worker.functions:
        if is_new(turn.state, worker, options):
            function = Function(worker.app, options, worker.app_version, turn.now.wall, turn.now.wall)
            turn.state.register(function)
            turn.decision.writes.functions.append(function)
            turn.decision.writes.forgotten.pop(function.key, None)
