"""`python -m stepwire_executor`: the executor as a process.

Exit codes: 0 stopped as asked, 1 a fault of ours, which is shown (start it again), 2 wrong flags, 69 the address can't
be listened on, 74 the store can't be used.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # the process is ours; whoever imports this keeps gRPC as it is
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # Of failed handshakes gRPC says neither whose they were nor, with --log-json, does it say it as JSON.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from stepwire_executor import logs, usage
from stepwire_executor.access import Access
from stepwire_executor.settings import Settings
from stepwire_executor.store import StoreError
from stepwire_executor.store.url import open_store
from stepwire_executor.visible import indented
from stepwire_executor.vitals import Vitals, observed_loop

if TYPE_CHECKING:
    from stepwire_executor.tls import ServerTls

WRONG_FLAGS, NO_ADDRESS, NO_STORE = 2, 69, 74


class _UnusableError(Exception):
    """A setting names what can't be used."""


def complain(message: str) -> None:
    """Say what is wrong, in a line."""
    sys.stderr.write(f"stepwire executor: {indented(message)}\n")


def server_tls(settings: Settings) -> ServerTls | None:
    """Give the TLS that the settings ask for; raises ValueError."""
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if not (certificate or key or client_ca):
        return None
    if not (certificate and key):
        raise ValueError("TLS takes both --tls-certificate and --tls-key")
    from stepwire_executor.tls import ServerTls  # gRPC takes its time; without TLS --help need not wait

    return ServerTls(Path(certificate), Path(key), Path(client_ca) if client_ca else None)


def show_help() -> int:
    """Write the help; a reader that goes away is no fault, a full disk is told."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(usage.text())
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the last flush must not fail
        if not isinstance(error, BrokenPipeError):
            complain(f"can't write the output: {error.strerror}")
            return NO_STORE
    return 0


def main() -> int:
    """Run the executor, and give its exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        return show_help()
    try:
        settings = CliApp.run(Settings, cli_exit_on_error=False)
        store = open_store(settings.store, settings.takeover_after)
        access = Access(Path(settings.tokens_file) if settings.tokens_file else None)
        tls = server_tls(settings)
    except ValidationError as error:
        for problem in error.errors():
            flag = "--" + "-".join(str(part) for part in problem["loc"]).replace("_", "-")
            complain(f"{flag}: {problem['msg'].removeprefix('Value error, ')} (given: {problem['input']!r})")
        return WRONG_FLAGS
    except SettingsError as error:
        complain(f"{str(error).removeprefix('error parsing CLI: ')}; see `stepwire executor --help`")
        return WRONG_FLAGS
    except ValueError as error:
        complain(str(error))
        return WRONG_FLAGS
    logs.set_up(settings.log_level, as_json=settings.log_json)
    from stepwire_executor.server import PortError, Server  # gRPC takes its time; --help need not wait

    vitals = Vitals()

    async def serve() -> None:
        try:
            server = Server(settings, store, access, tls, vitals)
        except OSError as error:
            raise _UnusableError(f"--history {settings.history!r} can't be used: {error.strerror}") from None
        await server.run()

    try:
        with asyncio.Runner(loop_factory=lambda: observed_loop(vitals)) as runner:
            runner.run(serve())
    except _UnusableError as error:
        complain(str(error))
        return WRONG_FLAGS
    except PortError as error:
        complain(f"{error}; choose another --host or --port, or --port 0 for any free one")
        return NO_ADDRESS
    except StoreError as error:
        complain(str(error))
        return NO_STORE
    return 0


if __name__ == "__main__":
    sys.exit(main())
