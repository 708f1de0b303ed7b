"""Messages into frames and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwire.frames import FrameError, Framer, Joiner, executor_messages, fragments, worker_messages
from stepwire_proto.v1 import worker_pb2

LIMIT = 1024


def message(size: int, mark: str = "x") -> worker_pb2.WorkerMessage:
    return worker_pb2.WorkerMessage(need_journal=worker_pb2.NeedJournal(run_id=mark * size, invocation=size))


def fragment(id: int, data: bytes, last: bool) -> worker_pb2.Fragment:
    return worker_pb2.Fragment(id=id, data=data, last=last)


@given(
    st.lists(st.sampled_from([0, 1, 100, 127, 128, 900, 1015, 1020, 1024, 3000, 20_000]), max_size=12),
    st.sampled_from([1024, 1100, 4096, 0]),
)
def test_messages_arrive_whole_and_in_order_in_frames_that_fit(sizes: list[int], limit: int) -> None:
    sent = [message(size) for size in sizes]
    frames = list(Framer(worker_pb2.WorkerMessage, limit).frames(sent))
    assert all(0 < len(frame) <= (limit or len(frame)) for frame in frames)
    joiner = Joiner()
    assert [each for frame in frames for each in worker_messages(frame, joiner)] == sent


def test_a_frame_is_what_protobuf_itself_would_make() -> None:
    sent = [message(size) for size in (0, 5, 300, 5000)]
    assert list(Framer(worker_pb2.WorkerMessage, 0).frames(sent)) == [
        worker_pb2.WorkerFrame(messages=sent).SerializeToString()
    ]


def test_as_few_frames_as_possible_are_made() -> None:
    sent = [message(50) for _ in range(100)]
    whole = worker_pb2.WorkerFrame(messages=sent).ByteSize()
    assert len(list(Framer(worker_pb2.WorkerMessage, LIMIT).frames(sent))) == -(-whole // (LIMIT - LIMIT % 55))
    assert not list(Framer(worker_pb2.WorkerMessage, LIMIT).frames([]))


def test_fragments_have_ids_that_grow_over_all_frames_of_a_stream() -> None:
    framer = Framer(worker_pb2.WorkerMessage, LIMIT)
    ids = []
    for _ in range(2):
        for frame in framer.frames([message(2000), message(2000)]):
            ids += [each.fragment.id for each in worker_pb2.WorkerFrame.FromString(frame).messages]
    assert sorted(set(ids)) == [1, 2, 3, 4]
    assert ids == sorted(ids)


def test_other_frames_may_stand_between_fragments() -> None:
    framer = Framer(worker_pb2.WorkerMessage, LIMIT)
    big, small = message(5000, "b"), message(1, "s")
    joiner, received = Joiner(), []
    for frame in framer.frames([big]):
        received += worker_messages(frame, joiner)
        for between in Framer(worker_pb2.WorkerMessage, LIMIT).frames([small]):
            received += worker_messages(between, joiner)
    assert received[-2:] == [big, small]
    assert received[:-2] == [small] * (len(received) - 2)


def test_frames_of_the_executor_are_read_too() -> None:
    sent = [worker_pb2.ExecutorMessage(go_away=worker_pb2.GoAway(reason="x" * size)) for size in (1, 5000, 2)]
    joiner = Joiner()
    frames = Framer(worker_pb2.ExecutorMessage, LIMIT).frames(sent)
    assert [each for frame in frames for each in executor_messages(frame, joiner)] == sent


def test_a_message_is_cut_into_pieces() -> None:
    assert fragments(b"abcde", 2) == [b"ab", b"cd", b"e"]
    assert fragments(b"ab", 2) == [b"ab"]
    assert fragments(b"", 2) == [b""]


def test_pieces_are_put_together() -> None:
    joiner = Joiner()
    assert joiner.add(fragment(1, b"a", False)) is None
    assert joiner.add(fragment(1, b"b", True)) == b"ab"
    assert joiner.add(fragment(5, b"c", True)) == b"c"


def test_a_fragment_of_another_message_in_between_is_refused() -> None:
    joiner = Joiner()
    joiner.add(fragment(1, b"a", False))
    with pytest.raises(FrameError, match="fragment 2 came before the last one of 1"):
        joiner.add(fragment(2, b"a", False))


@pytest.mark.parametrize("id", [0, 3])
def test_an_id_that_does_not_grow_is_refused(id: int) -> None:
    joiner = Joiner()
    joiner.add(fragment(3, b"a", True))
    with pytest.raises(FrameError, match="ids must grow"):
        joiner.add(fragment(id, b"a", True))


def test_a_message_that_is_too_large_is_refused() -> None:
    joiner = Joiner(max_message_bytes=10)
    joiner.add(fragment(1, b"x" * 10, False))
    with pytest.raises(FrameError, match="more than 10 bytes"):
        joiner.add(fragment(1, b"x", True))


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="3 bytes can't be read as ExecutorFrame"):
        executor_messages(b"\xff\xff\xff", Joiner())


def test_fragments_of_nonsense_are_refused() -> None:
    frame = worker_pb2.WorkerFrame(messages=[worker_pb2.WorkerMessage(fragment=fragment(1, b"\xff", True))])
    with pytest.raises(FrameError, match="can't be read as WorkerMessage"):
        worker_messages(frame.SerializeToString(), Joiner())


def test_a_fragment_in_fragments_is_refused() -> None:
    inner = worker_pb2.WorkerMessage(fragment=fragment(1, b"a", True)).SerializeToString()
    frame = worker_pb2.WorkerFrame(messages=[worker_pb2.WorkerMessage(fragment=fragment(1, inner, True))])
    with pytest.raises(FrameError, match="hold another fragment"):
        worker_messages(frame.SerializeToString(), Joiner())
