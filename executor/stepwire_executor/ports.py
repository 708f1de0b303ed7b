"""What the engine needs of its surroundings, and they of it; nobody has to import in a circle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from stepwire_core.commands import Command, Observation
from stepwire_core.inputs import Input, Reply
from stepwire_core.model import Now, Run
from stepwire_core.state import State
from stepwire_executor.store import StoreError
from stepwire_executor.vitals import Vitals

Clock = Callable[[], Now]
Observer = Callable[[Sequence[Observation]], None]


class Outbound(Protocol):
    """Where commands to workers go: Welcomed, Rejected, Invoke, Resume, StartAttempt, Recorded and so on."""

    def send(self, commands: Sequence[Command]) -> None:
        """Queue commands for their streams, in this order; never blocks. Those for unknown sessions are dropped.

        Everything needed is read from the commands' runs and steps before it returns.
        """

    def close_all(self, code: str, message: str) -> None:
        """End every stream with a gRPC status code's name; the engine has forgotten all sessions."""


class EngineHandle(Protocol):
    """What connections and services see of the engine. Only to be used from its event loop."""

    @property
    def state(self) -> State:
        """The state in memory; durable only right after `wait_durable`."""

    def now(self) -> Now:
        """Read both clocks."""

    @property
    def failing(self) -> bool:
        """True while the store fails or another executor has it: nothing is accepted then."""

    def refusal(self) -> StoreError:
        """Give the reason why nothing is accepted while `failing`."""

    @property
    def vitals(self) -> Vitals:
        """What the executor observes of itself."""

    @property
    def queued(self) -> tuple[int, float]:
        """How many inputs wait to be decided, and how many seconds the first of them has waited."""

    @property
    def decisions(self) -> int:
        """How many decisions were begun, each with all that was submitted before it."""

    async def decides(self) -> None:
        """Return once everything that was submitted is being decided, or the engine begins anew."""

    @property
    def watches(self) -> int:
        """How many watch runs, or wait for their ends."""

    @property
    def overloaded(self) -> bool:
        """True while more is queued than the engine should be given."""

    @property
    def draining(self) -> bool:
        """True once the executor has been told to stop."""

    def submit(self, input_: Input) -> None:
        """Queue an input; inputs are decided in the order of their submission."""

    async def ask(self, make: Callable[[Reply], Input]) -> Any:
        """Submit the input that `make` builds around a reply token, and return the value of its Answer.

        Raises StoreError if the store fails before the answer is durable, and DecisionError if a bug of ours keeps the
        input from being decided.
        """

    async def caught_up(self) -> None:
        """Return once everything that was submitted is decided and durable, or the store has failed."""

    async def wait_durable(self) -> None:
        """Return once everything that `state` shows is durable, at a point where nothing is being decided.

        Read the state right after it, before the next await. Raises StoreError if the store fails.
        """

    def changes(self, run_id: str, *, end_only: bool = False) -> AsyncIterator[Run | None]:
        """Yield at once, and then after commits that changed the run (several may be one): the run, if it has ended.

        With `end_only` it yields once more when the run has ended, and not before. Close it after use.
        """

    def watch_end(self, run_id: str, tell: Callable[[Run | None], None]) -> Callable[[], None]:
        """Have `tell` called with the run once its end is durable, and with None when the store fails.

        Gives what ends the watch. What is durable already is not told.
        """
