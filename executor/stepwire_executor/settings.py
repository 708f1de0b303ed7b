"""The executor's settings: flags and STEPWIRE_* variables, flags first."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from stepwire_core.model import Limits

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d*)?)\s*(ms|s|m|h|d|)\s*")


def parse_seconds(value: object) -> object:
    """Read a duration: seconds, or a number with a unit (ms, s, m, h, d)."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError("not a duration: give seconds, or a number with ms, s, m, h or d, like 30s")
        return float(match[1]) * _UNITS[match[2]]
    return value


def printable(value: str) -> str:
    """Refuse control characters: gRPC writes an address that it can't use to stderr as it is."""
    if not value.isprintable():
        raise ValueError("an address has no control characters")
    return value


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0)]
Address = Annotated[str, AfterValidator(printable)]
_DEFAULT = Limits()


class Settings(BaseSettings):
    """Every setting is a flag, --like-this, and an environment variable, STEPWIRE_LIKE_THIS. Durations: 30s, 5m, 2h."""

    model_config = SettingsConfigDict(
        env_prefix="STEPWIRE_",
        cli_prog_name="stepwire executor",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    host: Address = Field("127.0.0.1", description="address to listen on, or unix:PATH; loopback unless told otherwise")
    port: int = Field(8377, ge=0, le=65535, description="port to listen on; 0 for any free one")
    store: str = Field(
        "sqlite:///stepwire.db",
        description="sqlite:///relative.db, sqlite:////absolute.db, postgresql://user@host/database, or memory:",
    )
    takeover_after: Seconds = Field(
        10.0, description="how long another executor on the same PostgreSQL may be silent before this one takes over"
    )
    retention: Seconds | None = Field(
        None, description="how long runs are kept after their end; without it they are kept for ever"
    )
    ready_file: str = Field(
        "", description="file to write the address into, HOST:PORT or unix:PATH, once the executor takes calls"
    )
    tls_certificate: str = Field("", description="PEM file with the certificate (and its chain): TLS for everybody")
    tls_key: str = Field("", description="PEM file with the certificate's key")
    tls_client_ca: str = Field("", description="PEM file with the CA whose certificates clients and workers must show")
    tokens_file: str = Field("", description="TOML file of the tokens that let in; see `stepwire token new --help`")
    drain_seconds: Seconds = Field(30.0, description="how long a stop may take before it is cut short")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level of log lines")
    history: str = Field("", description="folder to write what happens into, for a checker; see CONTRIBUTING.md")
    log_runs: bool = Field(False, description="log each run's begin and end, too, not only what fails")
    log_json: bool = Field(False, description="write log lines as JSON objects")
    max_output_bytes: int = Field(_DEFAULT.max_output_bytes, gt=0, description="largest output of a step or run")
    max_journal_bytes: int = Field(_DEFAULT.max_journal_bytes, gt=0, description="most bytes of results of a run")
    max_steps: int = Field(_DEFAULT.max_steps, gt=0, description="most steps of a run")
    max_step_id_bytes: int = Field(_DEFAULT.max_step_id_bytes, gt=0, description="longest id of a step")
    max_event_bytes: int = Field(_DEFAULT.max_event_bytes, gt=0, description="largest data of an event")
    max_events_per_call: int = Field(_DEFAULT.max_events_per_call, gt=0, description="most events sent at once")
    max_frame_bytes: int = Field(_DEFAULT.max_frame_bytes, ge=4096, description="largest frame on a worker's stream")
    max_retries: int = Field(_DEFAULT.max_retries, ge=0, description="most retries a policy may ask for")
    max_sleep: Seconds = Field(_DEFAULT.max_sleep, description="longest sleep, wait or timeout")
    max_invoke_depth: int = Field(_DEFAULT.max_invoke_depth, gt=0, description="how deep runs may invoke each other")
    max_lost_invocations: int = Field(
        _DEFAULT.max_lost_invocations, gt=0, description="workers that a run's body may lose without progress"
    )
    max_functions: int = Field(_DEFAULT.max_functions, gt=0, description="most functions of an app")
    forget_functions_after: Seconds = Field(
        _DEFAULT.forget_functions_after,
        description="how long a function without unfinished runs is kept that no worker serves",
    )
    max_queued_runs: int = Field(_DEFAULT.max_queued_runs, gt=0, description="most runs that wait for a worker")
    max_queued_bytes: int = Field(_DEFAULT.max_queued_bytes, gt=0, description="most bytes of their events and results")
    max_unread_bytes: int = Field(64 << 20, gt=0, description="most bytes queued for a worker that does not read")
    max_connections: int = Field(20_000, gt=0, description="most connections of workers and clients at once")
    heartbeat_interval: Seconds = Field(_DEFAULT.heartbeat_interval, description="how often workers say they live")
    session_grace: Seconds = Field(_DEFAULT.session_grace, description="how long a lost worker's attempts are kept")

    def limits(self) -> Limits:
        """Give the core's part of the settings."""
        return Limits(**{name: getattr(self, name) for name in Limits.__slots__})


for _name, _field in Settings.model_fields.items():
    _field.description = f"{_field.description} [STEPWIRE_{_name.upper()}]"
