"""A closer look at the same promises: what follows for each from what executors note without gaps.

An executor notes every decision after its commit. So of each of its lives (an epoch) the records are all that it has
decided, but for the newest, which a kill may have cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from stepwire_core.model import StepKind, StepState
from stepwire_core.state import EPOCH_BITS
from tests.histories.database import Database
from tests.histories.records import Index, Record

CODE = (StepKind.CLOSURE, StepKind.TASK)
SOON = 1.0
"""Seconds within which a worker that has replaced its session is welcomed."""


def the_journal_is_whole(index: Index, database: Database) -> Iterator[str]:
    for run_id, journal in database.journals.items():
        steps = database.steps[run_id].values()
        if sorted(journal) != list(range(1, sum(step.sequence > 0 for step in steps) + 1)):
            yield f"the journal of run {run_id} has gaps or doubles: {sorted(journal)}"
    times = Counter((record["run"], record["sequence"]) for record in index["recorded"])
    for (run_id, sequence), count in times.items():
        if count > 1:
            yield f"entry {sequence} of run {run_id} was recorded {count} times"


def no_fence_is_newer_than_the_recorded_one(index: Index, database: Database) -> Iterator[str]:
    """The note of a record may be lost; that of a later attempt tells of it all the same."""
    for record in index["dispatched"]:
        step = database.steps.get(record["run"], {}).get(record["step"])
        if step is not None and step.state is StepState.SUCCEEDED and record["fence"] > step.fence:
            yield f"{attempt(record)} was issued to {record['worker']}, but fence {step.fence} was recorded"


def the_newest_attempt_is_not_refused(index: Index, database: Database) -> Iterator[str]:
    open_ = Open(index)
    for record in index["refused"]:
        issued = open_.at(record)
        if issued is not None and issued["session"] == record["session"]:
            yield f"the report of {attempt(issued)} was refused, though {issued['worker']} held it and none was newer"


def only_what_its_worker_finished_is_closed(index: Index, database: Database) -> Iterator[str]:
    """A report of an older attempt must not close a newer one."""
    started = {record["fence"]: record for record in index["started"]}
    finished = {record["fence"]: record for record in reversed(index["finished"])}
    for record in index["closed"]:
        if record["outcome"] not in ("succeeded", "failed") or record["fence"] not in started:
            continue
        end = finished.get(record["fence"])
        if end is None or end["order"] > record["order"]:
            worker = started[record["fence"]]["process"]
            yield f"{attempt(record)} was closed as {record['outcome']}, but {worker} had not finished it"


def failures_are_counted_one_by_one(index: Index, database: Database) -> Iterator[str]:
    for run_id, steps in database.failed.items():
        for step_name, attempts in steps.items():
            numbers = [row.number for row in sorted(attempts, key=lambda row: row.fence)]
            # A body that is tried again may plan anew what it had cancelled, and what was cancelled has a number too.
            anew = database.runs[run_id].attempt > 1
            wanted = sorted(set(numbers)) if anew else list(range(1, len(numbers) + 1))
            if numbers != wanted:
                yield f"the failed attempts of {step_name} of run {run_id} are {numbers}, and should be {wanted}"
    for run in database.runs.values():
        policy = database.retries.get(run.function_key)
        if policy is not None and run.attempt > policy.retries + 1:
            yield f"the body of run {run.id} was tried {run.attempt} times; its policy has {policy.retries} retries"


def code_that_begins_is_counted(index: Index, database: Database) -> Iterator[str]:
    """A lone step may begin before its plan is known; it has to count before the step is issued anew.

    What an executor's death costs is not charged, so each of its lives is looked at alone, and what
    was stopped is not counted, as a worker of an earlier life had begun the same step before.
    """
    stopped = {(record["run"], record.get("fence")): record["order"] for record in index["told"]}
    begun: dict[tuple[str, str], list[Record]] = {}
    for record in index["started"]:
        begun.setdefault((record["run"], record["step"]), []).append(record)
    for key, attempts in index.by_step("dispatched").items():
        issued = {(each["epoch"], each["fence"]) for each in attempts}
        for record in begun.get(key, ()):
            epoch = record["fence"] >> EPOCH_BITS
            newer = [each for each in attempts if each["epoch"] == epoch and each["fence"] > record["fence"]]
            if newer and stopped.get((record["run"], record["fence"]), newer[0]["order"]) < newer[0]["order"]:
                continue
            if newer and (epoch, record["fence"]) not in issued:
                yield f"{attempt(newer[0])} was issued, but fence {record['fence']} had begun in {record['process']}"


def no_code_begins_more_often_than_its_policy_says(index: Index, database: Database) -> Iterator[str]:
    """Nobody's fault are attempts that were given back, and what the executor's own death has cost."""
    lives = len({record["epoch"] for record in index["opened"]})
    begun = Counter((record["run"], record["step"]) for record in index["started"])
    returned = Counter((each["run"], each["step"]) for each in index["closed"] if each["outcome"] == "returned")
    for (run_id, step_name), count in begun.items():
        run, step = database.runs.get(run_id), database.steps.get(run_id, {}).get(step_name)
        if run is None or step is None or run.attempt > 1:  # what a body gave up may be planned anew by its next try
            continue
        policy = step.retry or database.retries.get(run.function_key)
        if policy is not None and count > policy.retries + returned[run_id, step_name] + max(1, lives):
            yield f"{step_name} of run {run_id} was begun {count} times; its policy has {policy.retries} retries"


def what_is_in_hand_is_not_taken_back(index: Index, database: Database) -> Iterator[str]:
    """A worker goes on with what it has in hand, in a drain and over a lost stream too; only it can give that back."""
    ends = {record["fence"]: record for record in index["finished"]}
    told = {(record["session"], record["run"]) for record in index["told"]}
    issued = {(record["epoch"], record["fence"]): record for record in index["dispatched"]}
    for record in index["closed"]:
        of = issued.get((record["epoch"], record["fence"]))
        end = ends.get(record["fence"])
        if record["outcome"] != "returned" or of is None or end is None or (of["session"], record["run"]) in told:
            continue
        if end["outcome"] != "cancelled" or end["order"] > record["order"]:
            yield f"{attempt(of)} was taken back from {end['process']}, which had it in hand: it {end['outcome']} there"


def the_journal_is_given_in_order(index: Index, database: Database) -> Iterator[str]:
    given: dict[tuple[str, str, int], int] = {}
    for record in index["delivered"]:
        body = record["process"], record["run"], record["invocation"]
        before, given[body] = given.get(body, 0), record["sequence"]
        if record["sequence"] != before + 1:
            yield f"{body[0]} gave entry {record['sequence']} to a body of run {body[1]} after entry {before}"


def nothing_is_issued_after_the_end(index: Index, database: Database) -> Iterator[str]:
    ended = {record["run"]: record for record in index.of_executor("ended")}
    for record in index["dispatched"]:
        end = ended.get(record["run"])
        if end is not None and end["order"] < record["order"]:
            yield f"{attempt(record)} was issued to {record['worker']} after the run had {end['state']}"


def no_worker_is_given_more_than_its_slots(index: Index, database: Database) -> Iterator[str]:
    slots = {record["session"]: record["slots"] for record in index["connected"]}
    held: dict[tuple[int, str], set[int]] = {}
    at: dict[tuple[int, int], tuple[int, str]] = {}
    for record in sorted([*index["dispatched"], *index["closed"]], key=lambda each: int(each["order"])):
        life = record["epoch"], record["fence"]
        if record["what"] == "closed":
            if life in at:
                held[at[life]].discard(record["fence"])
            continue
        session = at[life] = record["epoch"], record["session"]
        fences = held.setdefault(session, set())
        fences.add(record["fence"])
        if len(fences) > slots.get(session[1], len(fences)):
            more = f"which held {len(fences) - 1} already and has {slots[session[1]]} slots"
            yield f"{attempt(record)} was issued to {record['worker']}, {more}"


def nobody_is_given_up_whose_stream_is_there(index: Index, database: Database) -> Iterator[str]:
    gone = {(record["epoch"], record["session"]) for record in index["gone"]}
    welcomed: dict[tuple[int, str], list[Record]] = {}
    for record in index["welcomed"]:
        welcomed.setdefault((record["epoch"], record["worker"]), []).append(record)
    issued = {(record["epoch"], record["fence"]): record for record in index["dispatched"]}
    for record in index["closed"]:
        of = issued.get((record["epoch"], record["fence"]))
        if record["outcome"] != "lost" or of is None or (record["epoch"], of["session"]) in gone:
            continue
        welcomes = welcomed.get((record["epoch"], record["worker"]), ())
        known = any(each["session"] == of["session"] for each in welcomes)
        replaced = any(each["session"] != of["session"] and abs(each["at"] - record["at"]) < SOON for each in welcomes)
        # The welcome of the one that replaces it comes after the commit: a kill may have cut it off.
        if known and not replaced and index.last_words[record["process"]] > record["at"] + SOON:
            yield f"{attempt(of)} was given up as lost, though the stream of {record['worker']} had not ended"


def attempts_are_closed_in_time(index: Index, database: Database) -> Iterator[str]:
    open_ = Open(index)
    issued = {(record["epoch"], record["fence"]) for record in index["dispatched"]}
    for record in index["closed"]:
        if (record["epoch"], record["fence"]) not in issued:
            yield f"{attempt(record)} was closed in epoch {record['epoch']}, which never issued it"
    for attempts in index.by_step("dispatched").values():
        for before, after in pairwise(attempts):
            if before["epoch"] == after["epoch"] and open_.until(before, after):
                yield f"{attempt(before)} was still open when fence {after['fence']} was issued"
    by_step = index.by_step("dispatched")
    for record in index["recorded"]:
        for each in by_step.get((record["run"], record["step"]), ()):
            if each["epoch"] == record["epoch"] and open_.until(each, record):
                yield f"{attempt(each)} was still open when the step was recorded"


class Open:
    """Tells which attempts were open when."""

    def __init__(self, index: Index) -> None:
        self.issued = {(record["epoch"], record["fence"]): record for record in index["dispatched"]}
        self.closed: dict[tuple[int, int], int] = {}
        for record in index["closed"]:
            self.closed.setdefault((record["epoch"], record["fence"]), record["order"])

    def at(self, record: Record) -> Record | None:
        """Give the attempt that a record names by its fence, if it was open then."""
        issued = self.issued.get((record["epoch"], record["fence"]))
        return issued if issued is not None and self.until(issued, record) else None

    def until(self, issued: Record, record: Record) -> bool:
        """Whether an attempt was open from its issue until a record."""
        closed = self.closed.get((issued["epoch"], issued["fence"]))
        return bool(issued["order"] < record["order"] and (closed is None or closed > record["order"]))


def attempt(record: Record) -> str:
    """Name an attempt."""
    return f"attempt {record['number']} (fence {record['fence']}) of {record['step']} of run {record['run']}"


LAWS: list[tuple[str, Callable[[Index, Database], Iterator[str]]]] = [
    ("I2", the_journal_is_whole),
    ("I3", no_fence_is_newer_than_the_recorded_one),
    ("I4", the_newest_attempt_is_not_refused),
    ("I4", only_what_its_worker_finished_is_closed),
    ("I5", failures_are_counted_one_by_one),
    ("I5", code_that_begins_is_counted),
    ("I5", no_code_begins_more_often_than_its_policy_says),
    ("I5", what_is_in_hand_is_not_taken_back),
    ("I6", the_journal_is_given_in_order),
    ("I8", nothing_is_issued_after_the_end),
    ("I9", no_worker_is_given_more_than_its_slots),
    ("I12", nobody_is_given_up_whose_stream_is_there),
    ("I14", attempts_are_closed_in_time),
]
