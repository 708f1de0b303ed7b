"""Tells a write-ahead log that is damaged from one that a crash has cut off; SQLite itself takes both for its end.

It knows the log's format (https://www.sqlite.org/fileformat2.html#the_write_ahead_log) and changes nothing.
"""

from __future__ import annotations

import struct
from pathlib import Path

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC = 0x377F0682
"""Its last bit says whether the checksums take words as big-endian."""
MASK = 0xFFFFFFFF


def damage(log: Path) -> str:
    """Say what of a log is damaged; "" if nothing is.

    Each transaction is synced before the next one is written, so a crash can spoil only the last one. What is spoilt
    before another transaction's pages was damaged afterwards. (In the last one the two can't be told apart.)
    """
    try:
        content = log.read_bytes()
    except FileNotFoundError:
        return ""
    if len(content) < HEADER_BYTES + FRAME_HEADER_BYTES:
        return ""  # the header is synced before anything follows it
    magic, _, page_bytes, _, *salts, one, other = struct.unpack(">8I", content[:HEADER_BYTES])
    order = ">" if magic & 1 else "<"
    if magic & ~1 != MAGIC or checksum(content[: HEADER_BYTES - 8], (0, 0), order) != (one, other):
        return "the header of its log"
    sums = (one, other)
    size = FRAME_HEADER_BYTES + page_bytes
    broken = ended = 0
    for number, at in enumerate(range(HEADER_BYTES, len(content) - size + 1, size), 1):
        _, pages, *found = struct.unpack(">6I", content[at : at + FRAME_HEADER_BYTES])
        if not broken:
            whole = checksum(content[at : at + 8] + content[at + FRAME_HEADER_BYTES : at + size], sums, order)
            if found == [*salts, *whole]:
                sums = whole
                continue
            broken = number
        if found[:2] != salts:
            continue  # of an earlier use of the file, or spoilt
        if ended:
            return f"page {broken} of its log"
        ended = pages  # the last page of a transaction says how many the database then has
    return ""


def checksum(content: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    """Go on with a checksum; the length is a multiple of 8."""
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(content) // 4}I", content))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & MASK
        second = (second + other + first) & MASK
    return first, second
