"""Puts the executor together: store, engine, connections, services, telemetry and the gRPC server."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stepwire_executor import descriptors, private, reflection
from stepwire_executor.access import Access, TokensError
from stepwire_executor.clock import SystemClock
from stepwire_executor.connections import Connections
from stepwire_executor.engine import Engine
from stepwire_executor.gate import Gate
from stepwire_executor.history import history_in
from stepwire_executor.listening import why_not
from stepwire_executor.memory import Memory
from stepwire_executor.readable import Readable
from stepwire_executor.registrations import Registrations
from stepwire_executor.retention import Retention
from stepwire_executor.run_log import RunLog
from stepwire_executor.services.admin import AdminService
from stepwire_executor.services.events import EventService
from stepwire_executor.services.health import Health
from stepwire_executor.services.runs import RunService
from stepwire_executor.services.status import Status
from stepwire_executor.settings import Settings
from stepwire_executor.store import Store, StoreAwayError, StoreError
from stepwire_executor.store.url import shown
from stepwire_executor.telemetry import Telemetry
from stepwire_executor.tls import ServerTls, TlsError
from stepwire_executor.vitals import Vitals, Watchdog
from stepwire_proto.v1 import admin_pb2, admin_pb2_grpc, event_pb2, event_pb2_grpc, run_pb2, run_pb2_grpc, worker_pb2

log = logging.getLogger("stepwire.executor")

HEADROOM_BYTES = 64 * 1024
"""A frame over the limit is to reach the handler, which says so; gRPC itself would end the stream without a word."""
LARGEST_CALL_BYTES = 16 << 20
COLLECTED = (10_000, 10, 10)
"""After how many new objects the garbage is collected: most of what a fan-out makes lives until its end."""
SWITCH_SECONDS = 0.0005
"""How long the store's thread waits for its turn while the loop is busy; Python's own 5 ms are longer than a commit."""
PENDING_CALLS = 10_000
"""How many calls may have come that nobody has looked at yet. Of more than 1,000 gRPC itself would answer some with a
CANCELLED of its own making, which a client that waits for thousands of runs would meet."""
PENDING_SECONDS = 86_400
"""How long they may wait. After 30 s gRPC would cancel them, though each client has a deadline of its own."""
MOST_STREAMS = 10_000
"""Calls that one connection may have at once; its further ones wait."""
HANDSHAKE_SECONDS = 20
"""How long a connection may take to become one of HTTP/2."""
IDLE_SECONDS = 600
"""A connection without calls is closed after so long; clients open another one when they need it."""
HEALTH_SECONDS = 0.25
RECONNECT_SECONDS = 0.5


class PortError(Exception):
    """The address can't be listened on."""


class Server:
    """One executor process."""

    def __init__(self, settings: Settings, store: Store, access: Access, tls: ServerTls | None, vitals: Vitals) -> None:
        limits = settings.limits()
        self._settings = settings
        self._access = access
        self._tls = tls
        self._telemetry = Telemetry.from_environment()
        history = history_in(settings.history)
        self._connections = Connections(
            limits, self._telemetry, settings.max_unread_bytes, history=history, access=access
        )
        self._run_log = RunLog(lambda *call: asyncio.get_running_loop().call_later(*call), log_runs=settings.log_runs)
        observers = [self._telemetry.observe, self._run_log.observe]
        self._vitals = vitals
        self._engine = Engine(store, limits, SystemClock(), self._connections, observers, history, vitals=vitals)
        self._connections.attach(self._engine)
        self._retention = Retention(self._engine, store, settings.retention) if settings.retention else None
        self._memory = Memory(self._engine, store)
        self._registrations = Registrations(self._engine, store, limits.forget_functions_after)
        most_connections = min(settings.max_connections, descriptors.raise_limit())
        self._grpc = grpc.aio.server(
            interceptors=(Readable(),) if access.is_open else (Gate(access), Readable()),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.http2.bdp_probe", 0),
                ("grpc.max_receive_message_length", max(LARGEST_CALL_BYTES, limits.max_frame_bytes + HEADROOM_BYTES)),
                ("grpc.max_send_message_length", -1),
                ("grpc.server.max_pending_requests", PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
                ("grpc.server_max_unrequested_time_in_server", PENDING_SECONDS),
                ("grpc.keepalive_time_ms", 5_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.http2.ping_timeout_ms", 5_000),  # a minute otherwise, whatever keepalive_timeout says
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.max_concurrent_streams", MOST_STREAMS),
                ("grpc.max_allowed_incoming_connections", most_connections),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
                ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
            ],
        )
        self._grpc.add_generic_rpc_handlers((self._connections.handler(),))
        event_pb2_grpc.add_EventServiceServicer_to_server(EventService(self._engine, limits, access), self._grpc)
        run_pb2_grpc.add_RunServiceServicer_to_server(RunService(self._engine, store, access), self._grpc)
        status = Status(self._engine, self._connections.held)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(self._engine, access, status), self._grpc)
        names = [
            descriptor.services_by_name[name].full_name
            for descriptor, name in (
                (worker_pb2.DESCRIPTOR, "WorkerService"),
                (event_pb2.DESCRIPTOR, "EventService"),
                (run_pb2.DESCRIPTOR, "RunService"),
                (admin_pb2.DESCRIPTOR, "AdminService"),
                (health_pb2.DESCRIPTOR, "Health"),
            )
        ]
        self._health = Health(names)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable(names, self._grpc)

    async def run(self) -> None:
        """Serve until a signal asks for the end. Raises StoreError and PortError if it can't begin.

        A fault of ours that the engine does not survive ends it too, and is raised: it is to be started again.
        """
        stop = asyncio.Event()
        now = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: (now if stop.is_set() else stop).set())
        if self._tls is not None or not self._access.is_open:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            try:
                await self._engine.start()
            except StoreAwayError as error:
                log.warning("%s", error)  # whoever calls is told so; the engine goes on trying
            port = self._listen()
        except (StoreError, PortError):
            await self._engine.stop()
            raise
        watchdog = Watchdog(self._vitals)
        watchdog.start()
        work = asyncio.create_task(self._engine.run())
        work.add_done_callback(lambda _: stop.set())
        helpers = [asyncio.create_task(self._connections.watch()), asyncio.create_task(self._report_health())]
        helpers.append(asyncio.create_task(self._registrations.run()))
        helpers.append(asyncio.create_task(self._memory.run()))
        if self._retention is not None:
            helpers.append(asyncio.create_task(self._retention.run()))
        await self._grpc.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTED)
        sys.setswitchinterval(SWITCH_SECONDS)
        self._announce(port)
        await stop.wait()
        if not work.done():
            await self._wind_down(now)
        for task in helpers:
            task.cancel()
        await self._grpc.stop(None)
        await self._engine.stop()
        await asyncio.gather(*helpers, return_exceptions=True)
        await asyncio.to_thread(self._telemetry.shutdown)
        self._run_log.close()
        watchdog.stop()
        await work
        log.info("stopped")

    async def _wind_down(self, now: asyncio.Event) -> None:
        """Drain, for as long as that may take and `now` is not set."""
        drain, cut = asyncio.create_task(self._drain()), asyncio.create_task(now.wait())
        await asyncio.wait({drain, cut}, timeout=self._settings.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            log.warning("the drain is cut short; what was acknowledged is safe")
        for task in (drain, cut):
            task.cancel()
        await asyncio.gather(drain, cut, return_exceptions=True)

    def _listen(self) -> int:
        address = address_of(self._settings.host, self._settings.port)
        try:
            if self._tls is None:
                port = self._grpc.add_insecure_port(address)
            else:
                port = self._grpc.add_secure_port(address, self._tls.credentials())
        except RuntimeError:
            port = 0
        if port == 0:
            raise PortError(f"can't listen on {address}: {why_not(address)}")
        return port

    def _announce(self, port: int) -> None:
        address = address_of(self._settings.host, port)
        log.info("listening on %s, store %s", address, shown(self._settings.store))
        if not is_loopback(self._settings.host):
            missing = ["TLS (--tls-certificate, --tls-key)"] * (self._tls is None)
            missing += ["tokens (--tokens-file)"] * self._access.is_open
            if missing:
                advice = "whoever reaches it can read or run everything; set them, or listen on loopback"
                log.warning("other machines can reach %s, without %s: %s", address, " and ".join(missing), advice)
        if self._settings.ready_file:
            private.replace_file(Path(self._settings.ready_file), address)

    def _reload(self) -> None:
        """Read certificate and tokens again; what can't be used changes nothing."""
        for what, part in (("certificate", self._tls), ("tokens", self._access)):
            try:
                if part is not None:
                    part.reload()
                    log.info("%s: read again", what)
            except (TlsError, TokensError) as error:
                log.error("%s; what was read before stays in use", error)
        self._connections.recheck()

    async def _drain(self) -> None:
        """Hand out nothing new, have everything that was reported durable, and send the workers away."""
        log.info("draining")
        await self._engine.drain()
        self._connections.go_away("the executor is stopping", RECONNECT_SECONDS)
        await asyncio.sleep(0.1)  # the frames with GoAway are on their way
        self._connections.close_all("UNAVAILABLE", "the executor is stopping; reconnect")
        await self._engine.drain()

    async def _report_health(self) -> None:
        """Say whether the executor takes work."""
        before = None
        while True:
            self._vitals.turn()
            well = not (self._engine.failing or self._engine.draining)
            if well is not before:
                before = well
                await self._health.tell(well=well)
            await asyncio.sleep(HEALTH_SECONDS)


def address_of(host: str, port: int) -> str:
    """Give the address that clients take: HOST:PORT, an IPv6 address in brackets, or unix:PATH as it is."""
    if host.startswith("unix:"):
        return f"unix:{Path(host.removeprefix('unix:')).absolute()}"
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address to listen on."""
    name = host.strip("[]")
    return name == "localhost" or name.startswith("127.") or name == "::1" or host.startswith("unix:")
