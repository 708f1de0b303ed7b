"""Workers that were compiled from another language and serve the tasks of examples/mixed_languages, as processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from stepwire.security import Security
from stepwire.sync_client import SyncClient
from stepwire.testing import ProcessError
from stepwire.testing.process import ManagedProcess
from tests.end_to_end.processes import System
from tests.executor import tokens
from tests.faults.test_tls import Authority, serving


class TaskWorker(ManagedProcess):
    """A compiled worker, connected to an executor; `client` is the executor's address for others than the worker."""

    def __init__(
        self,
        program: Path,
        executor: str,
        *,
        client: str = "",
        security: Security | None = None,
        client_security: Security | None = None,
    ) -> None:
        variables = (
            {}
            if security is None
            else {"STEPWIRE_TLS_CA": os.fspath(security.tls_ca), "STEPWIRE_TOKEN": security.token}
        )
        super().__init__(program.name, None, {"STEPWIRE_EXECUTOR": executor, **variables})
        self._security = client_security
        self._program = program
        self._client = client or executor

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return [str(self._program)]

    @property
    def mark(self) -> str:
        """What its instance id holds."""
        return f"-{self.pid}-"

    def wait_ready(self, timeout: float) -> None:
        """Return once the executor knows it."""
        with SyncClient(self._client, security=self._security) as client:
            self.wait_until(
                lambda: any(self.mark in each.instance_id for each in client.workers()), "connected", timeout
            )


async def done_by(system: System, run_id: str, worker: TaskWorker, least: int) -> bool:
    """Whether a worker has done so many steps of a run."""
    return sum(worker.mark in step.worker and step.state.ended for step in await system.steps(run_id)) >= least


async def idle(system: System, worker: TaskWorker) -> bool:
    """Whether the executor takes all slots of a worker for free."""
    return [each.slots_taken for each in await system.client.workers() if worker.mark in each.instance_id] == [0]


def check_security(program: Path, folder: Path) -> None:
    """Hold that a worker connects over TLS with a token, and ends without a valid one, saying why."""
    certificates = Authority(folder / "certificates")
    tokens_file = tokens.write(folder / "tokens.toml")
    with serving(certificates.sign("server"), tokens_file=tokens_file) as executor:
        known = Security(tls_ca=certificates.file, token=tokens.secret("workers"))
        admin = Security(tls_ca=certificates.file, token=tokens.secret("admins"))
        with TaskWorker(program, executor.address, security=known, client_security=admin) as worker:
            assert worker.stop() == 0
        unknown = Security(tls_ca=certificates.file, token="nobody")
        stranger = TaskWorker(program, executor.address, security=unknown, client_security=admin)
        try:
            with pytest.raises(ProcessError):
                stranger.start()
            assert stranger.returncode == 1
            assert "the executor refuses this worker" in stranger.log
        finally:
            stranger.destroy()
