"""What a session of `stepwire dev` tells people, or scripts."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from stepwire.cli.output import DEFAULT_PORT, make_console, print_json
from stepwire.cli.plan import Plan
from stepwire.visible import one_line

STYLES = {"executor": "blue", "worker": "green", "dev": "yellow"}


class Voice:
    """Says what happens: lines with the name of who speaks, in colour, or JSON objects.

    When nobody listens any more, as the terminal is gone, it falls silent: the children still have to be stopped.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = make_console(soft_wrap=True)

    def line(self, name: str, text: str) -> None:
        """Pass on a line that a child wrote."""
        if self._as_json:
            self._put({"from": name, "line": text})
        else:
            self._say(Text.assemble((f"{name:>8} │ ", STYLES[name]), shortened(text)))

    def started(self, plan: Plan) -> None:
        """Say what runs where."""
        if self._as_json:
            return self._put({"from": "dev", "executor": plan.address, "store": plan.store, "app": plan.target})
        note = f"  (port {plan.taken} is taken)" if plan.taken else ""
        return self._say(
            Text.assemble(("stepwire dev", "bold"), f"  {plan.target}"),
            Text.assemble("  executor  ", (plan.address, "bold"), (note, "yellow")),
            f"  state     {one_line(str(plan.state))}/",
            Text("  stop      Ctrl-C\n", "dim"),
        )

    def triggers(self, plan: Plan, triggers: Sequence[tuple[str, str]]) -> None:
        """Say how to start functions, given as pairs of event name and function."""
        if self._as_json:
            return self._put({"from": "dev", "triggers": [{"event": e, "function": f} for e, f in triggers]})
        where = "" if plan.port == DEFAULT_PORT else f"--executor {plan.address} "
        commands = [
            f"stepwire send {where}{one_line(shlex.quote(event))} --data '{{}}' --wait" for event, _ in triggers
        ]
        room = max(map(len, commands))
        return self._say(
            Text.assemble(
                ("\n✓", "green"), " ", (plan.target, "bold"), " is served. Start a run from another terminal:"
            ),
            *(
                Text.assemble(f"    {command:<{room}}  ", (f"# {one_line(function)}", "dim"))
                for command, (_, function) in zip(commands, triggers, strict=True)
            ),
            "",
        )

    def _say(self, *lines: str | Text) -> None:
        with contextlib.suppress(OSError):
            for line in lines:
                self._console.print(line)

    def _put(self, value: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            print_json(value)


_LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)[.,]\d+Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
_COMMAND = re.compile(r"\x1b\].*?(\x1b\\|\x07|$)")
"""A terminal's command (OSC): a link, a title."""
_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


def shortened(line: str) -> Text:
    """Give a log line as it is of use on a terminal: the local time of day, without date, milliseconds, level INFO.

    Of what the children print colours stay, links and all else that a terminal obeys do not.
    """
    line = _COMMAND.sub("", line)
    match = _LOG_LINE.match(line)
    if match is None:
        return Text.from_ansi(line)
    written, level = match.groups()
    time_of_day = datetime.fromisoformat(f"{written}+00:00").astimezone().strftime("%H:%M:%S")
    rest = Text.from_ansi(line[match.end() :])
    if level in _LEVEL_STYLES:
        rest = Text(f"{level.lower()}: ", _LEVEL_STYLES[level]).append_text(rest)
    return Text(f"{time_of_day} ", "dim").append_text(rest)
