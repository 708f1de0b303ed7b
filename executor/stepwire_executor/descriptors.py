"""How many files the process may have open: each worker and client takes one."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("stepwire.executor")

ENOUGH = 4096


def raise_limit() -> None:
    """Allow as many open files as the system lets this process have, and say so if they are few."""
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
