"""`python -m stepwire.worker module:app`: the process that `stepwire worker` starts."""

from __future__ import annotations

import argparse
import os
import sys

from stepwire.errors import StepwireError
from stepwire.worker.options import labels_of
from stepwire.worker.serve import LEVELS, serve
from stepwire.worker.worker import DEFAULT_DRAIN_SECONDS, DEFAULT_EXECUTOR, DEFAULT_MAX_INVOCATIONS, DEFAULT_SLOTS


def main() -> int:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m stepwire.worker", description="Serve an app.")
    parser.add_argument("target", metavar="module:app", help="the app to serve")
    parser.add_argument(
        "--executor", default=os.environ.get("STEPWIRE_EXECUTOR", DEFAULT_EXECUTOR), metavar="HOST:PORT,…"
    )
    parser.add_argument("--slots", type=int, default=DEFAULT_SLOTS, help="attempts at once")
    parser.add_argument("--processes", type=int, default=1, help="worker processes")
    parser.add_argument("--max-invocations", type=int, default=DEFAULT_MAX_INVOCATIONS, help="live bodies")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="shown to people")
    parser.add_argument("--drain-seconds", type=float, default=DEFAULT_DRAIN_SECONDS, help="time that a drain may take")
    parser.add_argument("--reload", action="store_true", help="start anew when a file changes")
    parser.add_argument(
        "--log-json", action="store_true", default=_is_on("STEPWIRE_LOG_JSON"), help="write log lines as JSON objects"
    )
    level = os.environ.get("STEPWIRE_LOG_LEVEL", "info").lower()
    parser.add_argument("--log-level", default=level, choices=LEVELS, help="least level of log lines")
    parser.add_argument("--process-name", default="", help=argparse.SUPPRESS)
    parser.add_argument("--board", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        labels = labels_of(given.label)
    except StepwireError as error:
        parser.error(str(error))
    return serve(
        given.target,
        executor=given.executor,
        slots=given.slots,
        processes=given.processes,
        max_invocations=given.max_invocations,
        labels=labels,
        drain_seconds=given.drain_seconds,
        reload=given.reload,
        log_json=given.log_json,
        log_level=given.log_level,
        process=given.process_name,
        board=given.board,
    )


def _is_on(variable: str) -> bool:
    """Whether a variable says yes."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while the app was imported
        sys.exit(130)
