"""Ids and draws that derive from what is known already, and from a secret, so that the core needs no randomness."""

from __future__ import annotations

from hashlib import blake2b

from stepwire_executor.core.model import Retry, StepKey

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


def backoff(retry: Retry, failures: int, run: str, key: StepKey | None) -> float:
    """Give the delay in seconds before the retry after `failures` failed attempts.

    It is exponential with full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/); the
    draw is a hash of what is tried and of how often it was.
    """
    try:
        grown = retry.initial_interval * max(retry.multiplier, 1.0) ** min(failures - 1, 64)
    except OverflowError:  # a multiplier as large as a float can be is allowed, and more than the maximum
        grown = retry.maximum_interval
    ceiling = min(retry.maximum_interval, grown)
    digest = blake2b(f"{run}\0{key!r}\0{failures}".encode(), digest_size=8).digest()
    return ceiling * int.from_bytes(digest, "big") / 2**64
