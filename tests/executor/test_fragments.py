"""Unfinished messages in fragments: small pieces take no more memory than large ones, and all together have a bound."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import grpc
import pytest

from stepwire_executor.access import EVERYBODY
from stepwire_executor.fragments import Fragments
from stepwire_executor.stream import Ended, Stream
from stepwire_proto.v1 import worker_pb2
from tests.executor.altered import AlteredExecutor
from tests.executor.peer import Peer

LARGEST = 1_000
PIECES = 100_000


def piece(data: bytes, *, number: int = 1, last: bool = False) -> worker_pb2.Fragment:
    return worker_pb2.Fragment(id=number, data=data, last=last)


def stream(token: str = "") -> Stream:
    return Stream(0.0, replace(EVERYBODY, name=token))


async def test_pieces_of_two_bytes_take_little_more_than_their_bytes() -> None:
    fragments, sender, two = Fragments(4 << 20), stream(), piece(b"ab")
    tracemalloc.start()
    try:
        for _ in range(PIECES):
            fragments.add(sender, two, "")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 3 * PIECES
    assert fragments.add(sender, piece(b"!", last=True), "") == b"ab" * PIECES + b"!"
    assert fragments.held_bytes == 0


async def test_a_message_over_the_limit_is_refused() -> None:
    fragments, sender = Fragments(LARGEST), stream()
    fragments.add(sender, piece(bytes(LARGEST)), "")
    with pytest.raises(Ended, match="a message of over 1000 bytes in fragments"):
        fragments.add(sender, piece(b"x"), "")
    fragments.drop(sender)
    assert fragments.held_bytes == 0


async def test_of_too_many_unfinished_messages_the_oldest_of_who_holds_the_most_goes() -> None:
    fragments = Fragments(LARGEST, most_bytes=5 * LARGEST)
    patient = stream("other")
    fragments.add(patient, piece(bytes(600)), "")
    hoarders = [stream("hoarder") for _ in range(6)]
    for each in hoarders:
        fragments.add(each, piece(bytes(800)), "")
    ended = [each.ending.done() for each in hoarders]
    assert ended == [True, False, False, False, False, False]
    assert hoarders[0].ending.result().code == "RESOURCE_EXHAUSTED"
    assert "unfinished fragments have 4800 bytes, of 5000 that all may have" in hoarders[0].ending.result().message
    assert fragments.add(hoarders[0], piece(bytes(800)), "") is None, "what it goes on to send is not kept"
    assert fragments.held_bytes == 600 + 5 * 800
    assert fragments.add(patient, piece(b"", last=True), "") == bytes(600)


async def test_one_large_piece_ends_as_many_tiny_messages_as_it_needs_room_for() -> None:
    fragments = Fragments(LARGEST, most_bytes=2 * LARGEST)
    other = stream("other")
    fragments.add(other, piece(bytes(500)), "")
    tiny = [stream("hoarder") for _ in range(1_000)]
    for each in tiny:
        fragments.add(each, piece(b"x"), "")
    large = stream("hoarder")
    fragments.add(large, piece(bytes(LARGEST)), "")
    assert fragments.held_bytes == 2 * LARGEST
    assert [each.ending.done() for each in tiny] == [True] * 500 + [False] * 500
    assert not other.ending.done()
    assert not large.ending.done()


async def test_all_unfinished_messages_may_have_256_mib() -> None:
    fragments, first, second = Fragments(LARGEST), stream(), stream()
    fragments.held_bytes = (256 << 20) - LARGEST  # as if others had so much
    fragments.add(first, piece(bytes(LARGEST)), "")
    assert not first.ending.done()
    fragments.add(second, piece(b"x"), "")
    assert f"of {256 << 20} that all may have" in first.ending.result().message


class SmallExecutor(AlteredExecutor):
    """An executor in which all unfinished messages may have 16 MiB."""

    before = "from stepwire_executor.fragments import Fragments; Fragments.__init__.__defaults__ = (16 << 20,)"


def test_messages_that_are_never_finished_do_not_fill_the_executor() -> None:
    """Each stream leaves most of what a message may have; nobody waits for what comes of it."""
    many = (16 << 20) // 5_000_000 + 2
    with SmallExecutor() as executor:
        peers = [Peer(executor.address) for _ in range(many)]
        try:
            for number, peer in enumerate(peers):
                peer.welcome(instance_id=f"i-{number}", app="app")
                for _ in range(5):
                    peer.send(fragment=piece(bytes(1_000_000)))
                peer.send(heartbeat=worker_pb2.Heartbeat())
            code, message = peers[0].status(timeout=30)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"of {16 << 20} that all may have: send the pieces of a message without delay" in message
            assert not peers[-1].ended.is_set()
        finally:
            for peer in peers:
                peer.close()
