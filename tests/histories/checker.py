"""Holds a history against the promises, I1 to I16 of the README.

A kill makes what was open unknown, never wrong: the newest records of a process may be missing, and the database is the
truth. So a promise is broken only by what is there, not by what is not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from stepwire_core.model import Event, Step, StepKind, StepState
from stepwire_core.waits import criterion
from stepwire_executor.history import digest_of_run
from stepwire_executor.matching import data_of, match_for
from tests.histories import closer, turns
from tests.histories.database import Database, digest
from tests.histories.records import Index, Record

CODE = (StepKind.CLOSURE, StepKind.TASK)
COUNTS = ("failed", "timed_out", "lost")
BAD_INPUT = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED")
SLACK = 0.005
"""Seconds by which clocks are read too late."""
AT_ONCE = 1.0
"""Seconds within which somebody is told."""
TELLING = ("stepwire-python",)
"""The SDKs whose workers write a history."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that was broken, and where."""

    promise: str
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.text}"


def check(
    records: Iterable[Record],
    database: Database,
    *,
    finished: bool = True,
    waiting: Collection[str] = (),
    misbehaving: Collection[str] = (),
    alike: bool = False,
) -> list[Breach]:
    """Give all breaches. `finished`: every run should have ended, but for those in `waiting`, which say why not.

    `misbehaving` names the workers that have sent bad input on purpose. `alike`: every worker serves everything, and no
    steps are so short that they stay with their lead; turns are counted then.
    """
    index = Index(records)
    breaches = [Breach(promise, text) for promise, law in LAWS.items() for text in law(index, database)]
    breaches += [Breach(promise, text) for promise, law in closer.LAWS for text in law(index, database)]
    if finished:
        breaches += [Breach("I7", text) for text in every_run_ends(database, waiting)]
        breaches += [Breach("I14", text) for text in attempts_are_closed(index, database)]
    if alike:
        breaches += [Breach("I16", text) for text in turns.turns_go_round(index, database)]
    breaches += [Breach("I10", text) for text in bad_input_stays_alone(index, misbehaving)]
    return breaches


def events_are_kept(index: Index, database: Database) -> Iterator[str]:
    known: dict[str, list[str]] = {}
    for record in index["acknowledged"]:
        event, run_ids = record["event"], sorted(record["run_ids"])
        first = known.setdefault(event, run_ids)
        if first != run_ids:
            yield f"event {event} was acknowledged with runs {first}, and then, to {record['process']}, with {run_ids}"
    for event, run_ids in known.items():
        there = database.of_event(event) if run_ids else set()
        if set(run_ids) != there:
            yield f"event {event} was acknowledged with runs {run_ids}, but the database has {sorted(there)} of it"
        functions = [database.runs[run_id].function_key for run_id in there]
        if len(set(functions)) < len(functions):
            yield f"event {event} started two runs of one function: {sorted(there)}"


def results_are_final(index: Index, database: Database) -> Iterator[str]:
    digests: dict[tuple[str, int], str] = {}

    def of(run: str, sequence: int) -> str:
        found = digests.get((run, sequence))
        if found is None:
            step = database.journals.get(run, {}).get(sequence)
            found = digests[run, sequence] = f"{step.key.id}:{step.key.index} {digest(step)}" if step else "nothing"
        return found

    for what in ("recorded", "delivered"):
        for record in index[what]:
            stored = of(record["run"], record["sequence"])
            if f"{record['step']} {record['digest']}" != stored:
                yield (
                    f"{record['process']} {what} {record['step']} {record['digest']} as result {record['sequence']} of "
                    f"run {record['run']}, but the database has {stored}"
                )
    for record in index["ended"]:
        run = database.runs.get(record["run"])
        stored = f"{run.state.name} {digest_of_run(run)}" if run else "nothing"
        if f"{record['state']} {record['digest']}" != stored:
            seen = f"{record['state']} {record['digest']}"
            yield f"run {record['run']} ended with {seen} for {record['process']}, but the database has {stored}"


def nothing_is_issued_after_its_result(index: Index, database: Database) -> Iterator[str]:
    recorded = {(record["run"], record["step"]): record for record in index["recorded"]}
    for record in index["dispatched"]:
        before = recorded.get((record["run"], record["step"]))
        if before is not None and before["order"] < record["order"]:
            yield (
                f"attempt {record['number']} (fence {record['fence']}) of {record['step']} of run {record['run']} was "
                f"issued to {record['worker']} {record['at'] - before['at']:.3f} s after its result was recorded"
            )


def only_the_newest_attempt_counts(index: Index, database: Database) -> Iterator[str]:
    issued = index.by_step("dispatched")
    started = {(record["run"], record["fence"]) for record in index["started"]}
    begun = {(record["run"], record["step"]) for record in index["started"]}
    # What was issued to those that write no history may have been started.
    mute = {record["session"] for record in index["welcomed"] if record["sdk"] not in TELLING}
    silent = [each for each in index["dispatched"] if each["session"] in mute]
    begun.update((each["run"], each["step"]) for each in silent)
    started.update((each["run"], each["fence"]) for each in silent if started)
    for record in index["recorded"]:
        if record["kind"] not in ("CLOSURE", "TASK") or record["state"] != "SUCCEEDED":
            continue
        key = record["run"], record["step"]
        newer = [each for each in issued.get(key, ()) if each["fence"] > record["fence"]]
        newer = [each for each in newer if each["order"] < record["order"]]
        if newer:
            yield (
                f"fence {record['fence']} of {record['step']} of run {record['run']} was recorded, though fence "
                f"{newer[0]['fence']} had been issued before"
            )
        if started and (record["run"], record["fence"]) not in started:
            yield f"{record['step']} of run {record['run']} has a result of fence {record['fence']}: nobody started it"
    if not started:
        return
    if mute:
        # What they began by themselves may have been recorded by an executor that was killed before it could note that.
        noted = {(each["run"], each["step"]) for what in ("dispatched", "recorded") for each in index[what]}
        all_of_them = {(run_id, step) for run_id, steps in database.steps.items() for step in steps}
        begun |= all_of_them - noted
    for run_id, steps in database.steps.items():
        for step_name, step in steps.items():
            if step.kind in CODE and step.state is StepState.SUCCEEDED and (run_id, step_name) not in begun:
                yield f"{step_name} of run {run_id} has succeeded, but no worker has started it"


def retries_keep_to_their_policy(index: Index, database: Database) -> Iterator[str]:
    closed = {
        (record["process"], record["run"], record["step"], record["number"]): record for record in index["closed"]
    }
    for record in index["dispatched"]:
        run_id, step, number = record["run"], record["step"], record["number"]
        failed = {attempt.number for attempt in database.failed.get(run_id, {}).get(step, ())}
        missing = set(range(1, number)) - failed
        if missing:
            yield f"attempt {number} of {step} of run {run_id} was issued, but {sorted(missing)} have not failed"
        before = closed.get((record["process"], run_id, step, number - 1))
        if before is not None and before["outcome"] in COUNTS and before["order"] < record["order"]:
            waited, wanted = record["at"] - before["at"], before["retry_in"]
            if wanted is None:
                yield f"attempt {number} of {step} of run {run_id} was issued, though {number - 1} was the last one"
            elif waited < wanted - SLACK:
                yield f"attempt {number} of {step} of run {run_id} came after {waited:.3f} s, not {wanted:.3f} s"
    for run_id, steps in database.failed.items():
        for step_name, attempts in steps.items():
            step = database.steps[run_id][step_name]
            policy = step.retry or database.retries.get(database.runs[run_id].function_key) or None
            if policy is not None and max(attempt.number for attempt in attempts) > policy.retries + 1:
                yield f"{step_name} of run {run_id} has failed more often than its {policy.retries} retries allow"


def replays_discover_the_same(index: Index, database: Database) -> Iterator[str]:
    places: dict[tuple[str, int, str], tuple[str, int, int, str]] = {}
    for record in index["found"]:
        before, until = record["before"], record["sequence"]
        for step, kind in record["steps"]:
            key = record["run"], record["body_attempt"], step
            seen = places.get(key)
            if seen is None:
                places[key] = kind, before, until, record["process"]
                continue
            if seen[0] != kind:
                yield f"run {key[0]} has {step} as a {seen[0]} in {seen[3]}, but as a {kind} in {record['process']}"
            elif min(until, seen[2]) <= max(before, seen[1]):
                yield (
                    f"run {key[0]} finds {step} after result {seen[1]} to {seen[2]} in {seen[3]}, "
                    f"but after {before} to {until} in {record['process']}"
                )
            places[key] = kind, max(before, seen[1]), min(until, seen[2]), seen[3]
    for run in database.runs.values():
        if run.failure is not None and run.failure.type == "NonDeterminismError":
            yield f"run {run.id} diverged in a replay: {run.failure.message}"


def nothing_is_issued_after_a_cancellation(index: Index, database: Database) -> Iterator[str]:
    cancelled = {record["run"]: record for record in index.of_executor("ended") if record["state"] == "CANCELLED"}
    for record in index["dispatched"]:
        end = cancelled.get(record["run"])
        if end is not None and end["order"] < record["order"]:
            yield f"{record['step']} of run {record['run']} was issued to {record['worker']} after its cancellation"
    told: dict[tuple[str, str], list[Record]] = {}
    for record in index["told"]:
        told.setdefault((record["session"], record["run"]), []).append(record)
    gone: dict[str, list[float]] = {}
    for record in index["gone"]:
        gone.setdefault(record["session"], []).append(record["at"])
    for record in index["closed"]:
        issued = index.dispatched.get(record["fence"])
        if record["outcome"] != "cancelled" or issued is None or issued["process"] != record["process"]:
            continue
        if index.last_words.get(record["process"]) == record["at"]:
            continue  # it may have been killed before it could write that it did tell
        session = issued["session"]
        words = [each for each in told.get((session, record["run"]), ()) if each["fence"] in (0, record["fence"])]
        if not any(abs(each["at"] - record["at"]) < AT_ONCE for each in words) and not any(
            at <= record["at"] for at in gone.get(session, ())
        ):
            yield f"{record['worker']} was not told that {record['step']} of run {record['run']} is not wanted any more"


def slots_are_kept(index: Index, database: Database) -> Iterator[str]:
    slots = {record["process"]: record["slots"] for record in index["connected"]}
    running: dict[str, set[int]] = {}
    changes = sorted([*index["started"], *index["finished"]], key=lambda record: record["order"])
    for record in changes:
        of_worker = running.setdefault(record["process"], set())
        if record["what"] == "finished":
            of_worker.discard(record["fence"])
            continue
        if record["fence"] in of_worker:
            yield f"{record['process']} started fence {record['fence']} of {record['step']} twice"
        of_worker.add(record["fence"])
        if len(of_worker) > slots.get(record["process"], len(of_worker)):
            yield f"{record['process']} has {len(of_worker)} attempts at once, but {slots[record['process']]} slots"


def epochs_have_one_owner(index: Index, database: Database) -> Iterator[str]:
    newest: Record | None = None
    for record in index["opened"]:
        if newest is not None and record["epoch"] <= newest["epoch"]:
            yield f"{record['process']} opened epoch {record['epoch']} after {newest['process']} had {newest['epoch']}"
        newest = record
    opened = list(index["opened"])
    for what in ("dispatched", "recorded"):
        at = 0
        for record in index[what]:
            while at < len(opened) and opened[at]["order"] < record["order"]:
                at += 1
            if at and opened[at - 1]["epoch"] > record["epoch"]:
                yield (
                    f"{record['process']} {what} {record['step']} of run {record['run']} in epoch {record['epoch']}, "
                    f"though epoch {opened[at - 1]['epoch']} had begun"
                )


def nothing_goes_by_the_wall_clock(index: Index, database: Database) -> Iterator[str]:
    grace = {record["process"]: record["grace"] for record in index["opened"]}
    gone = {(record["process"], record["session"]): record for record in index["gone"]}
    welcomed: dict[tuple[str, str], float] = {
        (record["process"], record["worker"]): record["at"] for record in index["welcomed"]
    }
    for record in index["closed"]:
        issued = index.dispatched.get(record["fence"])
        if issued is None or issued["process"] != record["process"]:
            continue
        if record["outcome"] == "lost":
            left = gone.get((record["process"], issued["session"]))
            back = welcomed.get((record["process"], record["worker"]), 0.0)
            if left is not None and left["at"] <= record["at"] and back < left["at"]:
                waited, wanted = record["at"] - left["at"], grace.get(record["process"], 0.0)
                if waited < wanted - SLACK:
                    yield f"{record['worker']} was given up {waited:.3f} s after its stream ended, not {wanted:g} s"
        elif record["outcome"] == "timed_out" and issued["timeout"] is not None:
            step = database.steps.get(record["run"], {}).get(record["step"])
            ran = record["at"] - issued["at"]
            if ran < issued["timeout"] - SLACK and (step is None or step.step_timeout is None):
                wanted = issued["timeout"]
                yield f"{record['step']} of run {record['run']} timed out after {ran:.3f} s, not {wanted:g} s"


def attempts_are_closed_once(index: Index, database: Database) -> Iterator[str]:
    closed: dict[tuple[str, int], Record] = {}
    for record in index["closed"]:
        before = closed.setdefault((record["run"], record["fence"]), record)
        if before is not record:
            yield (
                f"fence {record['fence']} of {record['step']} of run {record['run']} was closed "
                f"as {before['outcome']}, and again as {record['outcome']}"
            )


def attempts_are_closed(index: Index, database: Database) -> Iterator[str]:
    newest = max((record["epoch"] for record in index["opened"]), default=0)
    if any(record["epoch"] == newest for record in index["failed"]):
        return
    closed = {(record["run"], record["fence"]) for record in index["closed"]}
    for record in index["dispatched"]:
        if record["epoch"] == newest and (record["run"], record["fence"]) not in closed:
            run = database.runs.get(record["run"])
            if run is not None and run.state.ended:
                yield f"fence {record['fence']} of {record['step']} of run {record['run']} was issued and never closed"


def every_run_ends(database: Database, waiting: Collection[str]) -> Iterator[str]:
    for run in database.runs.values():
        if not run.state.ended and run.id not in waiting:
            yield f"run {run.id} of {run.function_id} is {run.state.name} and does not say what it waits for"


def bad_input_stays_alone(index: Index, misbehaving: Collection[str]) -> Iterator[str]:
    for record in index["refused_stream"]:
        if record["code"] in BAD_INPUT and record["worker"] not in misbehaving:
            yield f"the stream of {record['worker']} was ended: {record['code']}: {record['message']}"


def waits_get_their_events(index: Index, database: Database) -> Iterator[str]:
    for run_id, steps in database.steps.items():
        waits = [step for step in steps.values() if step.kind is StepKind.WAIT_FOR_EVENT]
        given: dict[int, Step] = {}
        for wait in waits:
            other = given.setdefault(wait.event_position, wait) if wait.event_position else wait
            if other is not wait:
                yield f"run {run_id} gave event {wait.event_position} to {other.key} and to {wait.key}"
        since = database.runs[run_id].event.position
        for wait in waits:
            position = wait.event_position
            if position is None:
                continue
            of_name = [event for event in database.events.get(wait.target, ()) if event.position > since]
            if position not in [event.position for event in of_name if fits(wait, event)]:
                yield f"{wait.key} of run {run_id} was given event {position}, which is not for it"
            for event in of_name:
                taken = given.get(event.position)
                free = taken is None or taken.sequence > wait.sequence
                if event.position < position and free and fits(wait, event):
                    yield f"{wait.key} of run {run_id} was given event {position}, though {event.position} was free"


def fits(wait: Step, event: Event) -> bool:
    """Whether an event is one that a wait is for."""
    paths, match = criterion(wait)
    return match_for(paths, data_of(event)) == match


LAWS: dict[str, Callable[[Index, Database], Iterator[str]]] = {
    "I1": events_are_kept,
    "I2": results_are_final,
    "I3": nothing_is_issued_after_its_result,
    "I4": only_the_newest_attempt_counts,
    "I5": retries_keep_to_their_policy,
    "I6": replays_discover_the_same,
    "I8": nothing_is_issued_after_a_cancellation,
    "I9": slots_are_kept,
    "I11": epochs_have_one_owner,
    "I12": nothing_goes_by_the_wall_clock,
    "I14": attempts_are_closed_once,
    "I15": waits_get_their_events,
}
"""I7, I10 and I16 need to be told more, and I13 compares two databases: `differences`."""


def differences(one: Database, other: Database) -> list[Breach]:
    """Promise I13: the same work has come to the same, whatever happened on the way."""
    left, right = one.outcomes(), other.outcomes()
    return [
        Breach("I13", f"{path} came to {left.get(path)} here and to {right.get(path)} there")
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    ]
