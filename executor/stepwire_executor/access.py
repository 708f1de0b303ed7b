"""Who may do what: the tokens, and the questions that services and connections ask of them. Knows nothing of gRPC.

Without a file of tokens everybody may do everything.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from stepwire_core import inputs as i
from stepwire_core.model import Event, Failure, Run, StepKind

ALL_APPS = "*"
SCHEME = "bearer "
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "sha256", "apps", "roles"}
HOW_TO_MAKE_ONE = "`stepwire token new NAME` makes one"


class Role(StrEnum):
    """What a token is for."""

    WORKER = "worker"
    """Connect."""
    CLIENT = "client"
    """Send events; read, watch and cancel runs."""
    ADMIN = "admin"
    """AdminService."""


class AccessError(Exception):
    """Somebody may not do what they ask for. `code` is a gRPC status code's name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class TokensError(ValueError):
    """The file of tokens can't be read, or is not as it should be."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `apps` None stands for all; the name is empty where no tokens are asked for."""

    name: str
    apps: frozenset[str] | None
    roles: frozenset[Role]
    digest: str = field(default="", repr=False)
    """SHA-256 of the token, in hexadecimal."""

    def may_see(self, app: str) -> bool:
        """Say whether an app is one of the caller's."""
        return self.apps is None or app in self.apps

    def check_app(self, app: str, what: str) -> None:
        """Raise AccessError unless an app is one of the caller's. `what` begins the message."""
        if not self.may_see(app):
            raise AccessError(
                "PERMISSION_DENIED", f"{what} is of app {app!r}, but token {self.name!r} is for {self._its_apps()}"
            )

    def check_run(self, run_id: str, run: Run | None) -> Run:
        """Give the run that was found under an id.

        Raises AccessError if there is none, and the very same if it is of an app that is not the caller's.
        """
        if run is not None and self.may_see(run.app):
            return run
        others = f", or is of an app that token {self.name!r} is not for" if self.apps is not None else ""
        raise AccessError("NOT_FOUND", f"run {run_id!r} does not exist{others}")

    def check_role(self, role: Role, method: str) -> None:
        """Raise AccessError unless the caller has a role."""
        if role not in self.roles:
            theirs = ", ".join(sorted(self.roles))
            message = f"{method} takes a token with the role {role}, but token {self.name!r} has: {theirs}"
            raise AccessError("PERMISSION_DENIED", message)

    def scope(self, event: Event) -> Event:
        """Give an event as this caller may send it: it reaches the caller's apps only.

        So it is another event than one with the same id by somebody with other apps, and neither sees the other.
        """
        if self.apps is None:
            return event
        apps, text = _scope_of(self.apps)
        text = event.digest + text
        return replace(event, apps=apps, digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest())

    def restrict(self, input_: i.Input) -> i.Input:
        """Give what a worker has said with its events scoped; an invoke of an app that is not its own fails."""
        if self.apps is None or not isinstance(input_, i.StepsFound):
            return input_
        return replace(input_, steps=[self._restrict_step(step) for step in input_.steps])

    def _restrict_step(self, step: i.StepPlanned) -> i.StepPlanned:
        if step.kind is StepKind.SEND_EVENTS:
            return step._replace(events=[self.scope(event) for event in step.events])
        app = step.target.partition("/")[0]
        if step.kind is not StepKind.INVOKE or not app or self.may_see(app) or step.fault is not None:
            return step
        message = f"step {step.key} invokes {step.target}, but its worker's token {self.name!r} is for"
        fault = Failure("PermissionDeniedError", f"{message} {self._its_apps()}", retryable=False)
        return step._replace(fault=fault)

    def _its_apps(self) -> str:
        names = sorted(self.apps or ())
        return f"app{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"


@lru_cache(1_000)
def _scope_of(apps: frozenset[str]) -> tuple[tuple[str, ...], str]:
    """Give apps in order, and as the text that tells their events from others'."""
    in_order = tuple(sorted(apps))
    return in_order, json.dumps(in_order)


EVERYBODY = Caller("", None, frozenset(Role))


class Access:
    """The tokens that are good now. `file` None asks nobody for one. Raises TokensError."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._callers: list[Caller] = []
        self.reload()

    def reload(self) -> None:
        """Read the file again; what it says counts from now on. Raises TokensError, and then nothing has changed."""
        if self._file is not None:
            self._callers = read_tokens(self._file)

    @property
    def is_open(self) -> bool:
        """True if nobody is asked for a token."""
        return self._file is None

    def is_good(self, caller: Caller) -> bool:
        """Say whether somebody who was let in would be let in now, and as the same."""
        return self.is_open or any(caller == known for known in self._callers)

    def caller(self, call: Any, role: Role) -> Caller:
        """Say who makes a call, by `call.invocation_metadata()`; asked again as long as it is open.

        Raises AccessError if it has no token that is good, or that has not the role any more.
        """
        if self.is_open:
            return EVERYBODY
        caller = self.identify(call.invocation_metadata() or ())
        caller.check_role(role, "this call")
        return caller

    def identify(self, metadata: Iterable[tuple[str, Any]]) -> Caller:
        """Say whose token stands in a call's metadata. Raises AccessError if there is none that is good."""
        if self.is_open:
            return EVERYBODY
        given = [value for key, value in metadata if key == "authorization"]
        if not given:
            message = "no token: this executor asks for one; give it with STEPWIRE_TOKEN or --token-file, or in the"
            raise AccessError("UNAUTHENTICATED", f"{message} metadata as `authorization: Bearer TOKEN`")
        text = given[0]
        if len(given) > 1 or not isinstance(text, str) or not text.lower().startswith(SCHEME):
            raise AccessError("UNAUTHENTICATED", "the metadata `authorization` must be once `Bearer TOKEN`")
        digest = hashlib.sha256(text[len(SCHEME) :].strip().encode()).hexdigest()
        found = None
        for caller in self._callers:  # all of them, so that the time says nothing of which it is
            if hmac.compare_digest(caller.digest, digest):
                found = caller
        if found is None:
            message = "an unknown token: it was mistyped, or taken back; ask whoever runs this executor for one"
            raise AccessError("UNAUTHENTICATED", f"{message} ({HOW_TO_MAKE_ONE})")
        return found


def read_tokens(file: Path) -> list[Caller]:
    """Read a file of tokens. Raises TokensError."""
    try:
        tables = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise TokensError(f"can't read the tokens in {file}: {error.strerror or error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise TokensError(f"{file} is not TOML: {error}") from None
    entries = tables.pop("token", [])
    if tables or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TokensError(f"{file} must have [[token]] tables and nothing else; {HOW_TO_MAKE_ONE}")
    if not entries:
        raise TokensError(f"{file} has no token, so nobody could connect; {HOW_TO_MAKE_ONE}")
    callers = [_read_token(entry, f"{file}: token {number}") for number, entry in enumerate(entries, 1)]
    for what, values in (
        ("name", [caller.name for caller in callers]),
        ("sha256", [caller.digest for caller in callers]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise TokensError(f"{file} has two tokens with the {what} {twice[0]!r}: give each its own")
    return callers


def _read_token(entry: dict[str, Any], where: str) -> Caller:
    unknown = sorted(entry.keys() - _FIELDS)
    missing = sorted(_FIELDS - entry.keys())
    if unknown or missing:
        what = f"has {unknown[0]!r}, which means nothing" if unknown else f"lacks {missing[0]!r}"
        raise TokensError(f"{where} {what}; it has name, sha256, apps and roles")
    name, digest = entry["name"], entry["sha256"]
    if not isinstance(name, str) or not name:
        raise TokensError(f"{where}: its name must be a text")
    where = f"{where} ({name})"
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise TokensError(f"{where}: sha256 must be the SHA-256 of the token in 64 small hexadecimal digits")
    apps = _names(entry["apps"], f"{where}: apps", 'of names, or ["*"] for all')
    roles = _names(entry["roles"], f"{where}: roles", f"of {', '.join(Role)}")
    wrong = [role for role in roles if role not in list(Role)]
    if wrong:
        raise TokensError(f"{where}: there is no role {wrong[0]!r}; there are {', '.join(Role)}")
    its_apps = None if ALL_APPS in apps else frozenset(apps)
    return Caller(name, its_apps, frozenset(map(Role, roles)), digest)


def _names(value: object, what: str, of: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise TokensError(f"{what} must be a list {of}, and not empty")
    return value
