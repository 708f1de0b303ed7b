"""Ids of traces and spans. They derive from the run's own, so that every life of the executor gives the same.

The format is W3C Trace Context, https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from stepwire_core.model import Run

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


def parse(traceparent: str) -> tuple[str, str, str] | None:
    """Split a traceparent into trace id, span id and flags (hexadecimal); None if it is not a valid one."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return (match[1], match[2], match[3]) if match else None


def trace_id(run: Run) -> str:
    """Give the sender's trace id, or one derived from the run's id; 32 hexadecimal digits."""
    sender = parse(run.event.traceparent)
    return sender[0] if sender else blake2b(run.id.encode(), digest_size=16).hexdigest()


def run_span_id(run: Run) -> str:
    """Give the id of the run's span; 16 hexadecimal digits."""
    return blake2b(f"run\0{run.id}".encode(), digest_size=8).hexdigest()


def attempt_span_id(run: Run, fence: int) -> str:
    """Give the id of the span of one attempt at a step, which its fence tells apart; 16 hexadecimal digits."""
    return blake2b(f"{run.id}\0{fence}".encode(), digest_size=8).hexdigest()


def flags(run: Run) -> str:
    """Give the sender's trace flags, or "01" (sampled)."""
    sender = parse(run.event.traceparent)
    return sender[2] if sender else "01"


def run_traceparent(run: Run) -> str:
    """Give the trace context of the run's span."""
    return f"00-{trace_id(run)}-{run_span_id(run)}-{flags(run)}"


def attempt_traceparent(run: Run, fence: int) -> str:
    """Give the trace context of an attempt's span."""
    return f"00-{trace_id(run)}-{attempt_span_id(run, fence)}-{flags(run)}"
