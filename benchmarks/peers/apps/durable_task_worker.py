"""Durable Task's orchestrators and activity, and a process that runs them: `… ADDRESS`.

The activity is a plain function, because the SDK's worker gives its activities threads.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Generator
from typing import Any

from durabletask import task, worker


def nothing(_: task.ActivityContext, n: int) -> int:
    """Do nothing."""
    return n


def fan(ctx: task.OrchestrationContext, count: int) -> Generator[Any, Any, int]:
    """Run activities in parallel."""
    results = yield task.when_all([ctx.call_activity(nothing, input=n) for n in range(count)])
    return sum(results)


def chain(ctx: task.OrchestrationContext, count: int) -> Generator[Any, Any, int]:
    """Run activities one after the other."""
    n = 0
    for _ in range(count):
        n = yield ctx.call_activity(nothing, input=n + 1)
    return n


if __name__ == "__main__":
    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.ERROR)  # by default it writes lines for each orchestration
    with worker.TaskHubGrpcWorker(host_address=sys.argv[1], logger=quiet) as works:
        works.add_orchestrator(fan)
        works.add_orchestrator(chain)
        works.add_activity(nothing)
        works.start()
        sys.stdout.write("started\n")
        sys.stdout.flush()
        signal.pause()
