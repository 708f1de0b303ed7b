"""Whether something that has failed is tried again, and when: policies and their backoff."""

from __future__ import annotations

from hashlib import blake2b

from stepwire_core.model import Failure, Retry, Run, Step, StepKey
from stepwire_core.state import State

DEFAULT = Retry()


def policy(state: State, run: Run, step: Step | None = None) -> Retry:
    """Return the retry policy of a step, or of a run's body: its own, its function's, or the default."""
    own = step.retry if step is not None else None
    return own or state.functions[run.function_key].options.retry or DEFAULT


def delay(state: State, run: Run, failure: Failure, step: Step | None = None) -> float | None:
    """Return the seconds until a step, or a run's body, is tried again after a failure; None if it is not."""
    retry, attempt = policy(state, run, step), run.attempt if step is None else step.attempt
    if not failure.retryable or attempt > retry.retries:
        return None
    if failure.retry_after is not None:
        return failure.retry_after
    return backoff(retry, attempt, run.id, None if step is None else step.key)


def backoff(retry: Retry, failures: int, run_id: str, key: StepKey | None) -> float:
    """Return the delay in seconds before the retry after `failures` failed attempts.

    It is exponential with full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). The
    draw is a hash of what is tried and of how often it was, so that the core needs no randomness.
    """
    try:
        grown = retry.initial_interval * max(retry.multiplier, 1.0) ** min(failures - 1, 64)
    except OverflowError:  # a multiplier as large as a float can be is allowed, and more than the maximum
        grown = retry.maximum_interval
    ceiling = min(retry.maximum_interval, grown)
    digest = blake2b(f"{run_id}\0{key!r}\0{failures}".encode(), digest_size=8).digest()
    return ceiling * int.from_bytes(digest, "big") / 2**64


def longest(retry: Retry | None, failure: Failure | None) -> float:
    """Return the most seconds that the delay before a retry can have been."""
    if failure is not None and failure.retry_after is not None:
        return failure.retry_after
    return (retry or DEFAULT).maximum_interval
