"""Ids and draws that derive from what is known already, and from a secret, so that the core needs no randomness."""

from __future__ import annotations

from hashlib import blake2b

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_LAST_MILLISECOND = (1 << 48) - 1


def run_id(secret: bytes, wall: float, *parts: object) -> str:
    """Make a run's id: a ULID (https://github.com/ulid/spec) whose random part is a hash of `parts`, keyed by a secret.

    Nobody without the secret can guess it. Ids of runs created later sort after those created in an earlier
    millisecond. 26 characters.
    """
    digest = blake2b("\0".join(map(str, parts)).encode(), digest_size=10, key=secret).digest()
    return _ulid(int(wall * 1000), int.from_bytes(digest, "big"))


def first_run_id(wall: float) -> str:
    """Give the least id that a run can have which is created at this time or later; for any time that there is."""
    return _ulid(min(max(int(wall * 1000), 0), _LAST_MILLISECOND), 0)


def _ulid(milliseconds: int, rest: int) -> str:
    number = (milliseconds << 80) | rest
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])
