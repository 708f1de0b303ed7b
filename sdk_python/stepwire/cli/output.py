"""What the commands share: their common options, the consoles, JSON for scripts, and calling the executor."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from stepwire.errors import StepwireError
from stepwire.visible import escaped_json, visible

if TYPE_CHECKING:
    from rich.console import Console

    from stepwire.client import Client

DEFAULT_PORT = 8377
DEFAULT_EXECUTOR = f"127.0.0.1:{DEFAULT_PORT}"

ExecutorOption = Annotated[
    str,
    typer.Option("--executor", envvar="STEPWIRE_EXECUTOR", metavar="HOST:PORT", help="The executor to ask."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.", show_default=False)]

RETRY_SECONDS = 1.0
"""A person who is waiting would rather be told soon that no executor answers."""

T = TypeVar("T")


def ask(executor: str, question: Callable[[Client], Awaitable[T]]) -> T:
    """Call the executor at HOST:PORT: run `question` with a client. Raises CommandError for whatever goes wrong."""
    import asyncio

    from stepwire.cli.exits import explain, usage

    try:
        return asyncio.run(_ask(executor, question))
    except StepwireError as error:
        raise explain(error, executor) from error
    except UnicodeEncodeError as error:  # Protobuf's, of an argument's bytes
        raise usage(f"{error.object!r} is not valid Unicode") from None


async def _ask(executor: str, question: Callable[[Client], Awaitable[T]]) -> T:
    from stepwire.client import Client

    async with Client(executor, retry_for=RETRY_SECONDS) as client:
        return await question(client)


def make_console(**options: Any) -> Console:
    """Make a console that leaves it to us what a broken pipe means: it raises BrokenPipeError.

    It shows control characters, which have no effect, and takes no text for markup. For a style give it a `Text`.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                if control is None and not text.isprintable() and text != "\n":
                    segment = Segment(visible(text), style)
                yield segment

    return PlainConsole(highlight=False, markup=False, emoji=False, **options)


def screen() -> Console:
    """Make the console for what people read on stdout; it is wide if there is neither a terminal nor COLUMNS."""
    console = make_console()
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return make_console(width=max(console.width, 120))


def hints() -> Console:
    """Make the console for what people read on stderr."""
    return make_console(stderr=True)


def print_json(value: object) -> None:
    """Print one JSON object on one line, as `--json` promises. Control characters are written as JSON's escapes."""
    sys.stdout.write(escaped_json(json.dumps(value, ensure_ascii=False)) + "\n")
    sys.stdout.flush()
