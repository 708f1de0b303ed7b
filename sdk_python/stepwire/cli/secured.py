"""The options about tokens and TLS, which every command has that asks an executor: they become STEPWIRE_* variables.

So they reach whatever the command starts, too.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from stepwire import security

_PANEL = "Connection"


def _option(flag: str, variable: str, help: str, metavar: str = "FILE") -> Any:
    return Annotated[
        str,
        typer.Option(flag, envvar=variable, metavar=metavar, help=help, show_default=False, rich_help_panel=_PANEL),
    ]


_OPTIONS: dict[str, tuple[str, Any]] = {
    "token_file": (security.TOKEN_FILE, _option("--token-file", security.TOKEN_FILE, "File with the token.")),
    "tls_ca": (
        security.TLS_CA,
        _option("--tls-ca", security.TLS_CA, "Connect with TLS; PEM file with the CA of the executor's certificate."),
    ),
    "tls_certificate": (
        security.TLS_CERTIFICATE,
        _option("--tls-certificate", security.TLS_CERTIFICATE, "PEM file with our certificate, if it is asked for."),
    ),
    "tls_key": (security.TLS_KEY, _option("--tls-key", security.TLS_KEY, "PEM file with our certificate's key.")),
}
_TLS = Annotated[
    bool | None,
    typer.Option(
        "--tls/--no-tls", envvar=security.TLS, help="Connect with TLS.", show_default=False, rich_help_panel=_PANEL
    ),
]


def secured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options about tokens and TLS."""
    signature = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=annotation)
        for name, (_, annotation) in _OPTIONS.items()
    ]
    more.append(inspect.Parameter("tls", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_TLS))

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        tls = given.pop("tls")
        if tls is not None:
            os.environ[security.TLS] = "1" if tls else "0"
        for name, (variable, _) in _OPTIONS.items():
            value = given.pop(name)
            if value:
                os.environ[variable] = value
        return command(**given)

    parameters = [*signature.parameters.values(), *more]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    del run.__wrapped__  # typer would take its annotations
    return run
