"""Running workers as processes: one, or several under a supervisor, with signals and reload."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from stepwire.channel import executor_address
from stepwire.errors import ExecutorError, StepwireError
from stepwire.failures import failure_of
from stepwire.places import of_awaitable, of_thread
from stepwire.worker import logs, telemetry
from stepwire.worker.board import Board, listed
from stepwire.worker.load import load_app
from stepwire.worker.options import check_app, check_options
from stepwire.worker.signals import Signals
from stepwire.worker.worker import (
    DEFAULT_DRAIN_SECONDS,
    DEFAULT_EXECUTOR,
    DEFAULT_MAX_INVOCATIONS,
    DEFAULT_SLOTS,
    Worker,
)

log = logging.getLogger("stepwire.worker")

LEVELS = ("debug", "info", "warning", "error")
REFUSED = 5
WRONG_USE = 2
FIRST_RESTART_SECONDS = 0.2
LONGEST_RESTART_SECONDS = 10.0
HEALTHY_SECONDS = 10.0
STUBBORN_SECONDS = 1.0
"""How long user code may take to end once the worker has."""
MOST_SHOWN = 3
EXIT_SECONDS = 15.0
"""How long a child may take to end after its drain. It ends itself sooner, whatever its code does (`signals.py`)."""
COLLECTED = (10_000, 10, 10)
"""After how many new objects the garbage is collected. A body that finds thousands of steps makes many that live; with
Python's own 700 a third of a worker's time went into looking at them."""
SWITCH_SECONDS = 0.0005
"""How long the transport's threads wait for their turn while step code is busy; Python's own 5 ms are a long time."""


def serve(
    target: str,
    *,
    executor: str = DEFAULT_EXECUTOR,
    slots: int = DEFAULT_SLOTS,
    processes: int = 1,
    max_invocations: int = DEFAULT_MAX_INVOCATIONS,
    labels: Mapping[str, str] | None = None,
    drain_seconds: float = DEFAULT_DRAIN_SECONDS,
    reload: bool = False,
    log_json: bool = False,
    log_level: str = "info",
    process: str = "",
    board: int | None = None,
) -> int:
    """Serve the app `module:app` until a signal; gives an exit code: 0 drained, 2 no such app, 5 refused.

    Log lines from `log_level` on go to stderr, with the name `process` if it is one of several. `board` is a
    supervisor's: the descriptor of a `Board`.
    """
    logs.set_up(log_level, as_json=log_json, process=process)
    try:
        executor_address(executor)
        check_options(
            slots=slots,
            processes=processes,
            max_invocations=max_invocations,
            drain_seconds=drain_seconds,
            labels=labels or {},
        )
    except StepwireError as error:
        log.error("%s", error)
        return WRONG_USE
    if processes > 1 or reload:
        arguments = [target, "--executor", executor, "--slots", str(slots)]
        arguments += ["--max-invocations", str(max_invocations), "--drain-seconds", str(drain_seconds)]
        arguments += [part for key, value in (labels or {}).items() for part in ("--label", f"{key}={value}")]
        arguments += ["--log-level", log_level] + ["--log-json"] * log_json
        return Supervisor(arguments, processes, drain_seconds, reload=reload).run()
    try:
        app = load_app(target)
        check_app(app)
    except StepwireError as error:
        log.error("%s", error)
        return WRONG_USE
    try:
        worker = Worker(
            app,
            executor,
            slots=slots,
            max_invocations=max_invocations,
            labels=labels,
            drain_seconds=drain_seconds,
        )
        worker.board = Board(board) if board is not None else None
    except StepwireError as error:  # its token or certificate can't be used
        log.error("%s", error)
        return WRONG_USE
    gc.collect()
    gc.freeze()  # what was loaded stays; no collection need look at it
    gc.set_threshold(*COLLECTED)
    sys.setswitchinterval(SWITCH_SECONDS)
    log.info("worker %s serves %s with %d slots", worker.instance_id, app.name, slots)
    flush = telemetry.set_up()
    with asyncio.Runner() as runner:
        code = 0
        try:
            _run(worker, runner.get_loop())
        except ExecutorError as error:
            log.error("%s", error)
            code = REFUSED
        finally:
            flush()
        _end_leftovers(runner.get_loop(), code)
    return code


def _run(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    """Run a worker on a loop, until it has drained."""
    Signals(worker, loop)
    serving = loop.create_task(worker.run())
    while not serving.done():
        try:
            loop.run_until_complete(serving)
        except (KeyboardInterrupt, SystemExit) as error:
            # A task that step code has made, or a callback, has raised it: asyncio ends the loop for that.
            if not serving.done():
                what = failure_of(error)
                log.error("%s was raised in a task or callback of user code: the worker goes on\n%s", what, what.stack)
    serving.result()


def _end_leftovers(loop: asyncio.AbstractEventLoop, code: int) -> None:
    """Cancel what user code has left on the loop, and let the threads end that it has borrowed from the loop.

    If some of it goes on all the same, end the process without it: nobody waits for cancelled code.
    """
    for task in asyncio.all_tasks(loop):
        task.cancel()
    end = time.monotonic() + STUBBORN_SECONDS
    closing = loop.create_task(loop.shutdown_default_executor())
    while (stubborn := asyncio.all_tasks(loop)) and time.monotonic() < end:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):  # which a task may raise, and asyncio passes on
            loop.run_until_complete(asyncio.sleep(0.01))
    if not stubborn:
        return
    at = [of_awaitable(task.get_coro()) for task in stubborn - {closing}]
    at += [of_thread(thread.ident) for thread in threading.enumerate() if thread.name.startswith("asyncio_")]
    where = " and ".join([each for each in at if each][:MOST_SHOWN]) or "user code"
    log.warning("%s goes on though it was cancelled: the process ends without it", where)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


class Supervisor:
    """Keeps child processes running; passes signals on; starts them anew when a file changes."""

    def __init__(self, arguments: list[str], count: int, drain_seconds: float, *, reload: bool) -> None:
        self._command = [sys.executable, "-m", "stepwire.lifeline", "stepwire.worker", *arguments]
        self._children: list[subprocess.Popen[bytes] | None] = [None] * count
        self._boards: list[Board | None] = [None] * count
        self._started = [0.0] * count
        self._delays = [0.0] * count
        self._drain_seconds = drain_seconds
        self._reload = reload
        self._signals = 0
        self._changed = threading.Event()
        self._awake = threading.Event()

    def run(self) -> int:
        """Run until a signal; gives the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._reload:
            threading.Thread(target=self._watch, name="stepwire-reload", daemon=True).start()
        codes: list[int] = []
        while not self._signals:
            codes, before = self._tend(), codes
            if self._reload and codes and not before:
                log.info("waiting until a file changes")
            if codes and len(codes) == len(self._children) and not self._reload:
                return max(codes)
            self._awake.wait(0.1)
            if self._changed.is_set():
                self._changed.clear()
                log.info("a file has changed: starting anew")
                self._stop_all()
        return self._stop_all()

    def _tend(self) -> list[int]:
        """Start what does not run; gives the codes of children that ended for a reason that a restart won't mend."""
        final = []
        now = time.monotonic()
        for slot, child in enumerate(self._children):
            code = child.poll() if child is not None else None
            if child is not None and code is None:
                continue
            if code in (WRONG_USE, REFUSED):
                final.append(code)
                continue
            if child is not None:
                if now - self._started[slot] > HEALTHY_SECONDS:
                    self._delays[slot] = 0.0
                self._tell_end(slot, child.pid, code or 0)
                self._delays[slot] = min(LONGEST_RESTART_SECONDS, max(FIRST_RESTART_SECONDS, self._delays[slot] * 2))
                self._started[slot] = now + self._delays[slot]
                _close(child)
                self._children[slot] = None
            if now >= self._started[slot]:
                self._started[slot] = now
                # Signals of a terminal reach the supervisor alone, which passes them on; its death ends the child too.
                name = ["--process-name", f"worker-{slot + 1}"] if len(self._children) > 1 else []
                board = self._boards[slot] = Board()
                command = [*self._command, "--board", str(board.fd), *name]
                self._children[slot] = subprocess.Popen(
                    command, stdin=subprocess.PIPE, start_new_session=True, pass_fds=[board.fd]
                )
        return final

    def _tell_end(self, slot: int, pid: int, code: int) -> None:
        """Say how a child has ended, and what it was at."""
        board, self._boards[slot] = self._boards[slot], None
        texts = board.texts() if board is not None else []
        if board is not None:
            board.close()
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
        log.error(
            "worker process %d %s while it ran %s: it is started again", pid, how, listed(texts) if texts else "nothing"
        )

    def _on_signal(self, number: int, _: object) -> None:
        self._signals += 1
        self._awake.set()
        if self._signals > 1:
            for child in self._children:
                if child is not None and child.poll() is None:
                    child.send_signal(signal.SIGTERM)

    def _stop_all(self) -> int:
        """Drain all children; those that do not end in time are killed. Gives the worst exit code."""
        running = [child for child in self._children if child is not None]
        for child in running:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        end = time.monotonic() + self._drain_seconds + EXIT_SECONDS
        for child in running:
            while child.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            if child.poll() is None:
                log.warning("worker process %d does not end: it is killed", child.pid)
                child.kill()
                child.wait()
        for child in running:
            _close(child)
        self._children = [None] * len(self._children)
        # One that had no time to set up its signals has not begun anything.
        codes = [0 if child.returncode == -signal.SIGTERM else abs(child.returncode) for child in running]
        return max(codes, default=0)

    def _watch(self) -> None:
        from watchfiles import PythonFilter, watch

        for _ in watch(Path.cwd(), watch_filter=PythonFilter(), raise_interrupt=False):
            self._changed.set()
            self._awake.set()
            self._awake.clear()


def signal_name(number: int) -> str:
    """Give a signal's name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _close(child: subprocess.Popen[bytes]) -> None:
    """Let go of an ended child's lifeline."""
    if child.stdin is not None:
        child.stdin.close()
