"""What goes where: leads and ready steps to workers with free slots, results to the invocations that wait for them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Container, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import chain, islice

from stepwire_core import quarantine, runs, steps
from stepwire_core.commands import CancelRun, Invoke, Resume, RunBegun, StartAttempt
from stepwire_core.model import FunctionKey, Now, RunState, Step, StepKey, StepKind
from stepwire_core.state import Invocation, LoadedRun, Session, SessionState, State, pool_of
from stepwire_core.transitions import RunEvent, keep_slot, move_run
from stepwire_core.turn import Turn
from stepwire_core.turns import PoolKey, Queue

EVICTED_SHARE = 10
"""A worker that is full of live invocations is rid of one in so many that are idle."""
MOST_LOOKED_AT = 1_000
"""Of its invocations at a time, for those: the others are looked at before these are again."""

STILL_SECONDS = 0.1
"""How long short steps wait for a free slot of their lead's worker before any other may run them."""

MOST_COMPARED = 8
"""How many of a run's replicas are looked at for one that is as good as the best worker."""


class Heap:
    """Workers by how little they have to do: the least costs O(log n) to find however many there are.

    What a worker has to do may only grow while this is used, but for that of the `least`.
    """

    def __init__(self, sessions: Sequence[Session], load: Callable[[Session], tuple[float, ...]]) -> None:
        self.ids = {session.id for session in sessions}
        self.load = load
        self._heap = [(load(session), at, session) for at, session in enumerate(sessions)]
        heapify(self._heap)

    def least(self) -> Session | None:
        """Give the worker with the least to do, among equals the first; None if there is none."""
        heap = self._heap
        while heap:
            known, at, session = heap[0]
            load = self.load(session)
            if load == known:
                return session
            heapreplace(heap, (load, at, session))
        return None

    def drop(self) -> None:
        """Leave the `least` out from now on."""
        heappop(self._heap)


def deliver(turn: Turn) -> None:
    """Give the leads the results of this batch; runs without one are queued for one.

    Where a suspect has the worker, or is about to, a lead goes on elsewhere, or waits if there is no other worker. One
    that waits in a worker whose loop is blocked goes on elsewhere too, if another worker takes it.
    """
    state = turn.state
    held: list[str] = []
    for run_id in state.undelivered:
        loaded = state.runs.get(run_id)
        if loaded is None:
            continue
        if loaded.lead is None:
            runs.want_lead(state, loaded)
        elif loaded.lead.sent < len(loaded.run.journal):
            session = state.sessions[loaded.lead.session_id]
            kept_out = session.secluded and session.keeps_out(run_id)
            if kept_out and all(each.secluded for each in sessions_of(state, pool_of(loaded.run), turn.now)):
                held.append(run_id)
            elif kept_out or (session.lag and could_leave(state, loaded, loaded.lead, session, turn.now)):
                turn.cancel(CancelRun(session.id, run_id, "goes on in another worker"))
                runs.forget(state, loaded.lead)
                runs.want_lead(state, loaded)
            else:
                resume(turn, loaded, loaded.lead)
    state.undelivered.clear()
    state.undelivered.update(dict.fromkeys(held))


def could_leave(state: State, loaded: LoadedRun, lead: Invocation, session: Session, now: Now) -> bool:
    """Whether a lead can go on elsewhere than in its worker, whose loop is blocked, and nothing is lost by that.

    It must have run dry over all that it was given: then it is not the one that blocks the loop, which would take the
    fault along. What it may be running unasked, and attempts of its run in this worker, would be lost.
    """
    if not lead.parked or lead.eager_fence or any(run_id == loaded.run.id for run_id, _ in session.attempts.values()):
        return False
    others = (each for each in sessions_of(state, pool_of(loaded.run), now) if not each.lag and not each.secluded)
    return any(each.free > 0 for each in others)


def resume(turn: Turn, loaded: LoadedRun, invocation: Invocation) -> None:
    """Give an invocation all results that it has not been given."""
    state = turn.state
    session = state.sessions[invocation.session_id]
    if state.is_sent(invocation.resumed_in):
        invocation.sent_before = invocation.sent
    invocation.resumed_in = turn.decision.number
    if invocation.parked:
        invocation.busy_since = turn.now.wall
    entries = loaded.run.journal[invocation.sent :]
    invocation.sent = len(loaded.run.journal)
    eager = permit(state, loaded, session, invocation)
    session.invocations.move_to_end(loaded.run.id)
    turn.send(Resume(session.id, loaded.run, invocation.fence, entries, invocation.lead, eager))


def permit(state: State, loaded: LoadedRun, session: Session, invocation: Invocation) -> int:
    """Allow a lead to run a lone step at once, if nothing else of its run is under way; the slot is kept for it.

    A run whose worker was lost gets no leave: its next step is to be known before it runs. A lead that has got one
    before, and said nothing of it, may be using it, and gets no other.
    """
    alone = invocation.lead and not loaded.run.open and not loaded.run.lost_invocations and loaded.begun is None
    if invocation.eager_fence or not (alone and session.eager and session.free > 0) or state.draining:
        return 0
    keep_slot(session, invocation, state.next_fence())
    return invocation.eager_fence


def assign(turn: Turn) -> None:
    """Hand out what is ready, as far as there are free slots, and give bodies what they wait for.

    Steps come first: a body's leave to run a lone step takes no slot that a ready step waits for.
    """
    if not turn.state.draining:
        assign_suspects(turn)
        assign_steps(turn)
    deliver(turn)
    if not turn.state.draining:
        assign_leads(turn)


def assign_suspects(turn: Turn) -> None:
    """Hand out the steps and bodies that run alone."""
    state = turn.state
    if state.emptied is not None:
        state.emptied.emptied, state.emptied = False, None
    if state.quarantine:
        able = {pool: unblocked(sessions_of(state, pool, turn.now)) for pool in set(state.quarantine.values())}
        for loaded, step, session in quarantine.place(state, able):
            if step is not None:
                start(turn, loaded, step, session)
                session.alone = step.fence
            else:
                has_room(turn, session)
                lead(turn, loaded, session)
                session.guest = loaded.lead


def assign_leads(turn: Turn) -> None:
    """Give leads to runs that need one: in turn over functions, and over the runs of each as they came to need it."""
    for app in turn.state.leaderless.apps:
        assign_leads_of(turn, app)


def assign_leads_of(turn: Turn, app: str) -> None:
    """Do so for an app. Once its workers are full the rest of its functions is not looked at, however many wait."""
    state = turn.state
    have_room = {each.id: each for each in connected(state, app) if not each.secluded}
    ring: deque[deque[tuple[PoolKey, OrderedDict[str, None], Heap]]] = deque()

    def take(session: Session) -> bool:
        if session.id in have_room and not has_room(turn, session):
            del have_room[session.id]
        return session.id in have_room

    def go_round(places: deque[tuple[PoolKey, OrderedDict[str, None], Heap]]) -> None:
        while places:
            pool, waiting, heap = places.popleft()
            while waiting and (least := heap.least()) is not None and not take(least):
                heap.drop()
            if waiting and least is not None:
                run_id, _ = waiting.popitem(last=False)
                state.leaderless.had(pool)
                lead(turn, state.runs[run_id], least)
                places.append((pool, waiting, heap))
                ring.append(places)
                break

    for pools in state.leaderless.of(app) if have_room else ():
        go_round(deque((pool, waiting, heap_of_leads(state, pool, have_room, turn.now)) for pool, waiting in pools))
        if not have_room:
            return
    while ring and have_room:
        go_round(ring.popleft())


def heap_of_leads(state: State, pool: PoolKey, have_room: Container[str], now: Now) -> Heap:
    """Give the workers that may lead runs of a pool."""
    able = unblocked([each for each in sessions_of(state, pool, now) if not each.secluded])
    able = [each for each in able if each.id in have_room]
    return Heap(able, lambda each: (each.lag, each.free <= 0, len(each.invocations), -each.free))


def lead(turn: Turn, loaded: LoadedRun, session: Session) -> None:
    """Make a session's worker the lead of a run."""
    replica = loaded.replicas.pop(session.id, None)
    if replica is not None:
        replica.lead, loaded.lead, replica.busy_since = True, replica, turn.now.wall
        turn.state.queued.drop(loaded.run.id)
        resume(turn, loaded, replica)
        return
    begin_invocation(turn, loaded, session)


def begin_invocation(turn: Turn, loaded: LoadedRun, session: Session) -> Invocation:
    """Start a run's body in a worker: as its lead if it has none, else as a replica."""
    state, decision = turn.state, turn.decision
    run = loaded.run
    invocation = Invocation(run.id, session.id, turn.fence(), loaded.lead is None, sent=len(run.journal))
    invocation.busy_since = turn.now.wall
    session.invocations[run.id] = invocation
    if invocation.lead:
        loaded.lead = invocation
        state.queued.drop(run.id)
        waiting = state.leaderless.get(pool_of(run))
        if waiting is not None:
            waiting.pop(run.id, None)
    else:
        loaded.replicas[session.id] = invocation
    if run.state is RunState.PENDING:
        move_run(run, RunEvent.BEGUN)
        run.started_at = turn.now.wall
        turn.observe(RunBegun(run))
        turn.changed(run)
    eager = permit(state, loaded, session, invocation)
    planned = list(run.open.values()) if invocation.lead else []
    command = Invoke(session.id, run, run.attempt, invocation.fence, invocation.lead, list(run.journal), planned, eager)
    if not invocation.lead and hears(state, session) and state.is_sent(loaded.recorded_in):
        turn.send_early(command)  # it gives nothing but what is durable, and promises nothing
    else:
        invocation.begun_in = decision.number
        turn.send(command)
    return invocation


def has_room(turn: Turn, session: Session) -> bool:
    """Whether a worker can take one more invocation, at the price of others that have nothing to do."""
    return len(session.invocations) < session.max_invocations or make_room(turn, session)


def make_room(turn: Turn, session: Session) -> bool:
    """Drop some of a worker's invocations that have nothing to do, the longest unused first; says if any were found."""
    idle = []
    at_work = {run_id for run_id, _ in session.attempts.values()}
    for invocation in list(islice(session.invocations.values(), MOST_LOOKED_AT)):
        session.invocations.move_to_end(invocation.run_id)
        loaded = turn.state.runs[invocation.run_id]
        silent = invocation.parked and not loaded.busy and invocation.sent == len(loaded.run.journal)
        waits = silent and bool(loaded.run.open)  # a body that awaits nothing is about to end
        if waits if invocation.lead else invocation.run_id not in at_work:
            idle.append(invocation)
            if len(idle) * EVICTED_SHARE >= session.max_invocations:
                break
    for invocation in idle:
        runs.forget(turn.state, invocation)
        turn.cancel(CancelRun(session.id, invocation.run_id, "evicted to make room"))
    return bool(idle)


def assign_steps(turn: Turn) -> None:
    """Hand out ready steps: in turn over functions and tasks, in turn over the runs of each."""
    for app in turn.state.ready.apps:
        assign_steps_of(turn, app)


def assign_steps_of(turn: Turn, app: str) -> None:
    """Do so for an app."""
    state = turn.state
    freest_of_all = Heap([each for each in connected(state, app) if not each.secluded], fullness)
    ring: deque[deque[tuple[PoolKey, Queue, Heap]]] = deque()

    def go_round(places: deque[tuple[PoolKey, Queue, Heap]]) -> None:
        while places:
            pool, queue, heap = places.popleft()
            freest = heap.least()
            at = next_ready(state, pool, queue) if freest is not None and freest.room > 0 else None
            if freest is not None and at is not None:
                state.ready.had(pool)
                start(turn, *at, choose(state, *at, freest, heap))
                places.append((pool, queue, heap))
                ring.append(places)
                break

    for pools in state.ready.of(app):
        freest = freest_of_all.least()
        is_full = freest is None or freest.free <= 0
        places: deque[tuple[PoolKey, Queue, Heap]] = deque()
        for pool, queue in pools:
            if is_full and not pool.home:
                continue  # steps with a home are looked at, so that they do not wait for it for ever
            free = [session for session in takers(state, pool, queue, turn.now) if session.free > 0]
            if free:
                places.append((pool, queue, Heap(free, fullness)))
        go_round(places)
    while ring:
        go_round(ring.popleft())


def fullness(session: Session) -> tuple[float, ...]:
    """Give what workers are compared by that are to be given steps, the emptiest first."""
    room = session.room
    return room <= 0, session.lag, -room


def takers(state: State, pool: PoolKey, queue: Queue, now: Now) -> Sequence[Session]:
    """Give the sessions that steps of a pool may go to now: all that can run them, or the home of short ones.

    A home that has had no free slot for a while is busy with what takes longer than one more body does.
    """
    home = state.sessions.get(pool.home)
    gone = home is None or home.state is not SessionState.CONNECTED or home.lag
    if home is None or gone or not state.are_short((pool.app, pool.name)):
        return unblocked(sessions_of(state, pool, now))
    if home.free > 0 or queue.moved_at is None:
        queue.moved_at = now.mono
    elif queue.moved_at + STILL_SECONDS <= now.mono:
        return unblocked(sessions_of(state, pool, now))
    state.timers.look_again(now, now.mono + STILL_SECONDS)
    return (home,)


def next_ready(state: State, pool: PoolKey, queue: Queue) -> tuple[LoadedRun, Step] | None:
    """Take the next step that is still ready; others have been cancelled, or taken over by a worker that came back.

    Closures of a run whose body is to be tried again later are left out: running one would try the body now. Those that
    have been bound to their lead's worker since go into its queue.
    """

    def find(run_id: str, key: StepKey) -> tuple[LoadedRun, Step] | None:
        at = state.step(run_id, key)
        if at is None or not quarantine.is_ready(state, *at):
            return None
        if at[0].bound is not None and not pool.bound and (own := state.pool(*at)) != pool:
            state.ready.at(own).push(run_id, key)
            return None
        return at

    return queue.pop(find)


def choose(state: State, loaded: LoadedRun, step: Step, freest: Session, heap: Heap) -> Session:
    """Choose the session that is best; among equals one that holds the run, if that is soon found."""
    if loaded.run.id in freest.invocations:
        return freest
    lead = () if loaded.lead is None else (loaded.lead,)
    for invocation in chain(lead, islice(loaded.replicas.values(), MOST_COMPARED)):
        session = state.sessions[invocation.session_id]
        if session.id in heap.ids and heap.load(session) == heap.load(freest):
            return session
    return freest


def start(turn: Turn, loaded: LoadedRun, step: Step, session: Session) -> None:
    """Start an attempt in a worker, with the invocation that a closure needs."""
    state = turn.state
    run = loaded.run
    invocation = None
    if step.kind is StepKind.CLOSURE:
        invocation = session.invocations.get(run.id)
        if invocation is None:
            invocation = begin_invocation(turn, loaded, session)
        elif invocation.sent < step.found_after:
            resume(turn, loaded, invocation)
    steps.issue(turn, loaded, step, session, turn.fence())
    command = StartAttempt(
        session.id,
        run,
        step.key,
        step.fence,
        step.attempt,
        step.attempt_timeout,
        invocation.fence if invocation else 0,
        step.target,
        step.input,
    )
    early = step.attempt == 1 and hears(state, session) and (invocation is None or knows(state, invocation, step))
    (turn.decision.early if early else turn.decision.commands).append(command)


def hears(state: State, session: Session) -> bool:
    """Whether what is sent early to a worker can be understood: nothing that is unsent must reach it before."""
    # A slot may be one that the worker does not know to be free, or room that has still to be made.
    for decision in state.unsent:
        if session.id in decision.cancelling:
            return False
    return state.is_sent(session.welcomed_in)


def knows(state: State, invocation: Invocation, step: Step) -> bool:
    """Whether a body has found a step by what is sent."""
    given = invocation.sent if state.is_sent(invocation.resumed_in) else invocation.sent_before
    return state.is_sent(invocation.begun_in) and step.found_after <= max(given, invocation.reported)


def unblocked(sessions: Sequence[Session]) -> Sequence[Session]:
    """Leave out workers whose loop is blocked, unless all are: what they were given would begin late.

    That holds while the others are full, too: a blocked worker begins nothing before it goes on, and then says so.
    """
    return [session for session in sessions if not session.lag] or sessions


def sessions_of(state: State, pool: PoolKey, now: Now) -> list[Session]:
    """Give the sessions that can run a pool's steps."""
    if pool.task:
        return [session for session in connected(state, pool.app) if pool.name in session.tasks]
    home = state.sessions.get(pool.home) if pool.bound else None
    if home is not None and home.state is SessionState.CONNECTED:
        return [home]
    function_key = pool.app, pool.name
    return of_version(state, sessions_for(state, *function_key), function_key, pool.version, now)


def connected(state: State, app: str) -> list[Session]:
    """Give the connected sessions of an app."""
    return [each for each in state.sessions_in.get(app, {}).values() if each.state is SessionState.CONNECTED]


def sessions_for(state: State, app: str, function_id: str) -> list[Session]:
    """Give the connected sessions that serve a function."""
    return [session for session in connected(state, app) if function_id in session.functions]


def of_version(
    state: State, serving: list[Session], function_key: FunctionKey, version: str, now: Now
) -> list[Session]:
    """Give those of an app version. If there is none: all, unless one may come back, for its code began the run.

    Whoever was connected before the executor was started again may come back too.
    """
    own = [session for session in serving if session.app_version == version]
    if own or not serving:
        return own
    app, function_id = function_key
    if now.mono < state.began.mono + state.limits.session_grace:
        return []
    expected = any(
        session.state is SessionState.LOST
        and not session.draining
        and session.app_version == version
        and function_id in session.functions
        for session in state.sessions_in.get(app, {}).values()
    )
    return [] if expected else serving
