"""`stepwire token`: make the tokens that an executor asks for. Nothing is sent anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stepwire import private
from stepwire.cli.exits import usage
from stepwire.cli.output import JsonOption, hints, print_json
from stepwire.visible import escaped_json

PREFIX = "stepwire_"
"""By which tokens are recognised where they should not be: in logs, in repositories."""
RANDOM_BYTES = 32


class Role(StrEnum):
    """What a token is for."""

    WORKER = "worker"
    CLIENT = "client"
    ADMIN = "admin"


Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is, like `shop-workers`.")]
Apps = Annotated[
    list[str] | None,
    typer.Option(
        "--app", metavar="APP", help="An app that it is for; give it as often as you like. All apps if left out."
    ),
]
Roles = Annotated[
    list[Role] | None,
    typer.Option(
        "--role",
        help="worker: serve apps. client: send events, see and cancel runs. admin: list workers and functions. Give "
        "it as often as you like; client if left out.",
    ),
]
File = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The executor's --tokens-file, to add it to; it is made if need be."),
]


def new(name: Name, app: Apps = None, role: Roles = None, file: File = None, as_json: JsonOption = False) -> None:
    """Make a token: print it, this once, and what the executor's --tokens-file must say of it.

    With --file that is added to the file, and only the token is printed; send the executor SIGHUP then.
    """
    if not name.strip():
        raise usage("a token's name must not be empty")
    for text in (name, *(app or ())):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise usage(f"{text!r} is not valid Unicode") from None
    for each in app or ():
        if not each or "/" in each:
            raise usage(f"{each!r} is no app: an app's name is not empty and has no '/'")
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    lines = describe(name, digest, app or ["*"], [each.value for each in role or [Role.CLIENT]])
    if file is not None:
        add(lines, name, file)
    if as_json:
        return print_json({"token": token, "name": name, "sha256": digest, "toml": lines})
    print(token)  # noqa: T201 - it is what stdout is for here
    if file is None:
        hints().print("Keep it: it is not shown again. Add this to the executor's --tokens-file:\n", style="dim")
        hints().print(lines, soft_wrap=True, end="")
    return None


def describe(name: str, digest: str, apps: list[str], roles: list[str]) -> str:
    """Write an entry of the file of tokens: TOML, whose strings are like those of JSON."""
    entry = {"name": name, "sha256": digest, "apps": apps, "roles": roles}
    values = (f"{key} = {escaped_json(json.dumps(value, ensure_ascii=False))}\n" for key, value in entry.items())
    return "[[token]]\n" + "".join(values)


def add(lines: str, name: str, file: Path) -> None:
    """Add an entry to the file of tokens, which only its owner may read when it is new."""
    try:
        with os.fdopen(private.open_to_append(file), "a+", encoding="utf-8") as opened:
            opened.seek(0)
            before = opened.read()
            if f"name = {escaped_json(json.dumps(name, ensure_ascii=False))}\n" in before:
                raise usage(f"{file} has a token {name!r}: choose another name, or take that one out first")
            opened.write(f"\n{lines}" if before else lines)
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"can't add to {file}: {getattr(error, 'strerror', None) or error}") from None
