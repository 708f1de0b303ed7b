"""Pages of found steps: how many a message holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwire import wire
from stepwire.replay.model import Planned
from stepwire_proto.v1 import opcode_pb2

PAGE_STEPS = 1_000
PAGE_BYTES = 256 * 1024


def pages_of(found: Sequence[Planned]) -> Iterator[list[opcode_pb2.StepPlanned]]:
    """Give the steps in pages, at least one; a page may hold one step over its size."""
    page: list[opcode_pb2.StepPlanned] = []
    size = 0
    for step in found:
        message = wire.to_planned(step)
        page.append(message)
        size += message.ByteSize()
        if size > PAGE_BYTES or len(page) >= PAGE_STEPS:
            yield page
            page, size = [], 0
    if page or not found:
        yield page
