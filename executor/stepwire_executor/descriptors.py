"""How many files the process may have open: each worker and client takes one."""

from __future__ import annotations

import logging
import resource
import sys

log = logging.getLogger("stepwire.executor")

ENOUGH = 4096
OWN = 128
"""What the store, listeners, logs and exporters may take themselves."""


def raise_limit() -> int:
    """Allow as many open files as the system lets this process have, and say so if they are few.

    Gives how many connections have one each, beside what else is open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError) as error:  # macOS says infinity and means less
            log.info("the limit of open files stays at %d: %s", soft, error)
    if soft != resource.RLIM_INFINITY and soft < ENOUGH:
        advice = "each worker and client takes one; raise the hard limit (ulimit -Hn) before the start"
        log.warning("only %d files may be open: %s", soft, advice)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - OWN, soft // 2)
