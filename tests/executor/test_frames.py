"""Frames and pages: under their limits, in order, and no large message in memory for longer than it must be."""

from __future__ import annotations

import pytest

from stepwire_core.commands import Invoke, Resume
from stepwire_core.model import Event, Run, Step, StepKey, StepKind, StepState
from stepwire_executor.frames import PAGE_BYTES, frames, pages
from stepwire_executor.outgoing import invoke, resume
from stepwire_executor.stream import Stream
from stepwire_executor.telemetry import Telemetry
from stepwire_proto.v1 import value_pb2, worker_pb2

LIMIT = 4096
OFF = Telemetry()


def message(size: int) -> worker_pb2.ExecutorMessage:
    return worker_pb2.ExecutorMessage(go_away=worker_pb2.GoAway(reason="x" * size))


def joined(parts: list[bytes]) -> list[worker_pb2.ExecutorMessage]:
    found = []
    fragments = b""
    for each in [each for part in parts for each in worker_pb2.ExecutorFrame.FromString(part).messages]:
        if not each.HasField("fragment"):
            found.append(each)
            continue
        fragments += each.fragment.data
        if each.fragment.last:
            found.append(worker_pb2.ExecutorMessage.FromString(fragments))
            fragments = b""
    return found


@pytest.mark.parametrize("sizes", [[], [1], [10] * 1_000, [LIMIT], [3 * LIMIT, 1, LIMIT - 40, 5, 2 * LIMIT], [0, 0]])
async def test_frames_keep_to_the_limit_and_hold_every_message_in_order(sizes: list[int]) -> None:
    sent = [message(size) for size in sizes]
    made = list(frames(Stream(0.0), list(sent), LIMIT))
    assert all(len(frame) <= LIMIT for frame in made)
    assert joined(made) == sent


async def test_a_message_is_let_go_of_when_its_frames_are_made() -> None:
    waiting = [message(3 * LIMIT), message(3 * LIMIT), message(3 * LIMIT)]
    made = frames(Stream(0.0), waiting, LIMIT)
    next(made)
    assert len(waiting) == 2
    list(made)
    assert waiting == []


def recorded(count: int, size: int) -> Run:
    run = Run("01Q9GDNPSSAV9HBX15X5N7D6QG", "app", "function", "1", Event("e", "go", b"", 1.0), 1.0)
    output = value_pb2.Payload(encoding="json", data=b"x" * size).SerializeToString()
    for number in range(1, count + 1):
        step = Step(StepKey("step", number - 1), number, StepKind.CLOSURE, state=StepState.SUCCEEDED, ended_at=2.0)
        step.sequence, step.output = number, output
        run.journal.append(step)
    return run


@pytest.mark.parametrize(("count", "size", "expected"), [(0, 0, []), (10, 10, [10]), (5, PAGE_BYTES // 2, [2, 2, 1])])
def test_a_journal_has_pages_by_their_size(count: int, size: int, expected: list[int]) -> None:
    assert [len(page) for page in pages(recorded(count, size).journal)] == expected


async def test_leave_to_run_eagerly_comes_with_the_last_results() -> None:
    run, stream = recorded(5, PAGE_BYTES // 2), Stream(0.0)
    resume(OFF, stream, Resume("session", run, 7, run.journal, lead=True, eager_fence=9))
    resumes = [each.resume for each in stream.messages]
    assert [[entry.sequence for entry in each.entries] for each in resumes] == [[1, 2], [3, 4], [5]]
    assert [each.eager_fence for each in resumes] == [0, 0, 9]
    assert all(each.lead and each.invocation == 7 for each in resumes)


async def test_a_resume_without_results_is_still_one() -> None:
    stream = Stream(0.0)
    resume(OFF, stream, Resume("session", recorded(0, 0), 7, [], lead=True, eager_fence=9))
    assert [each.resume.eager_fence for each in stream.messages] == [9]


async def test_an_invoke_is_followed_by_the_rest_of_its_journal() -> None:
    run, stream = recorded(5, PAGE_BYTES // 2), Stream(0.0)
    invoke(OFF, stream, Invoke("session", run, 1, 7, True, run.journal, [], 0))
    first, *rest = stream.messages
    assert first.invoke.journal_length == 5
    assert [entry.sequence for entry in first.invoke.journal] == [1, 2]
    assert [[entry.sequence for entry in each.journal_chunk.entries] for each in rest] == [[3, 4], [5]]
    assert {each.journal_chunk.invocation for each in rest} == {7}
    assert first.invoke.journal[0].output.data == b"x" * (PAGE_BYTES // 2)
