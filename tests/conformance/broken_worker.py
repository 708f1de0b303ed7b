"""The worker of the conformance kit with one bug in it: `python broken_worker.py BUG`. The kit must find each of them.

The bugs are of the kinds that SDKs have really had; each is one place of our own SDK, changed as it might have been
written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stepwire.errors import ExecutorError
from stepwire.frames import Framer
from stepwire.replay.invocation import Invocation
from stepwire.worker import transport
from stepwire.worker.invocations import Invocations
from stepwire.worker.outbox import Outbox
from stepwire.worker.pulse import Pulse
from stepwire.worker.transport import Transport
from stepwire.worker.worker import Worker
from stepwire_proto.v1 import worker_pb2

sys.path.insert(0, str(Path(__file__).parent))
import python_worker  # type: ignore[import-not-found]


def forgets_results() -> None:
    """A result counts as done when it is written: after a reset it is not sent again."""
    opened = Outbox.open

    def open_without_results(self: Outbox, unwanted: Iterable[int] = ()) -> int:
        return opened(self, [*unwanted, *self._results])

    Outbox.open = open_without_results  # type: ignore[method-assign]


def takes_a_reset_for_a_shutdown() -> None:
    """A stream that ends with OK or CANCELLED is taken for a wish to end the worker."""
    codes: list[str] = []

    class Noted:
        """Notes how the stream has ended."""

        def __init__(self, **fields: Any) -> None:
            self.__dict__.update(fields)

    def warning(text: str, *arguments: Any) -> None:
        codes.append(" ".join(map(str, arguments)))

    connected = Transport._connect

    def connect(self: Transport) -> ExecutorError | None:
        error = connected(self)
        if codes and any(word in codes[-1] for word in ("OK", "CANCELLED")):
            self._stopping.set()
        return error

    transport.log = Noted(warning=warning, info=transport.log.info)  # type: ignore[assignment]
    Transport._connect = connect  # type: ignore[method-assign]


def ignores_refusals() -> None:
    """Only what was recorded is forgotten: a refused result is kept, and sent again and again."""
    recorded = Worker._recorded

    def without_refusals(self: Worker, message: worker_pb2.Recorded) -> None:
        del message.refusals[:]
        recorded(self, message)

    Worker._recorded = without_refusals  # type: ignore[method-assign]


def waits_for_ever() -> None:
    """The executor's silence is never too long."""
    Pulse.expect = lambda self, seconds: None  # type: ignore[method-assign]


def drops_work_in_a_drain() -> None:
    """SIGTERM gives back at once what runs."""
    drained = Worker.drain

    def drain(self: Worker) -> None:
        drained(self)
        drained(self)

    Worker.drain = drain  # type: ignore[method-assign]


def delivers_in_the_order_of_steps() -> None:
    """Results that come together are given in the order of their steps, not in that of the journal."""

    def sorted_entries(entries: Sequence[Any]) -> list[Any]:
        ordered = sorted(entries, key=lambda entry: (entry.key.id, entry.key.index))
        pairs = zip(ordered, entries, strict=True)
        return [entry._replace(sequence=place.sequence) for entry, place in pairs]

    fed = Invocation.feed
    Invocation.feed = lambda self, entries: fed(self, sorted_entries(entries))  # type: ignore[method-assign]


def makes_frames_of_any_size() -> None:
    """The limit of frames is not kept."""
    made = Framer.frames

    def frames(self: Framer[Any], messages: Iterable[Any]) -> Any:
        self.max_frame_bytes = 0
        return made(self, messages)

    Framer.frames = frames  # type: ignore[method-assign]


def keeps_bodies() -> None:
    """Bodies outlive their stream, and are never evicted."""
    Invocations.drop_all = lambda self: None  # type: ignore[method-assign]
    Invocations._evict = lambda self: None  # type: ignore[method-assign]


def comes_again_when_refused() -> None:
    """No status keeps the worker from coming again."""
    transport.FATAL.clear()


def beats_too_rarely() -> None:
    """Heartbeats come every five intervals."""
    welcomed = Pulse.welcome

    def welcome(self: Pulse, interval: float) -> None:
        welcomed(self, 15 * interval)
        self.expect(2 * interval)

    Pulse.welcome = welcome  # type: ignore[method-assign]


def has_tasks_only() -> None:
    """No bug: a worker like one of a language that only runs tasks."""
    python_worker.app.functions.clear()


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        forgets_results,
        takes_a_reset_for_a_shutdown,
        ignores_refusals,
        waits_for_ever,
        drops_work_in_a_drain,
        delivers_in_the_order_of_steps,
        makes_frames_of_any_size,
        keeps_bodies,
        comes_again_when_refused,
        beats_too_rarely,
        has_tasks_only,
    )
}

if __name__ == "__main__":
    BUGS[sys.argv[1]]()
    sys.exit(python_worker.main("python_worker:app"))
