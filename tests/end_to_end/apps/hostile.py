"""An app whose every name and text tries to reach the terminal of whoever looks: a program, for its worker's name."""

from __future__ import annotations

import asyncio
import os
from typing import NoReturn

import stepwire
from stepwire.worker import Worker, logs

COLOUR = "\x1b[97;45m"
"""Colours that nothing of ours has."""
MARKUP = "[red]:bomb:"
ATTACK = f"{MARKUP}[link=evil]{COLOUR}\x1b]0;owned\x07\x9b2J\r\x08\x7f\x85\u202egnp\u2066\u200f\u2028[b]"
FORGED = '\n2026-01-01 00:00:00.000Z ERROR forged\n{"forged": 1}\nstepwire: forged\n\u2713 forged[/x]'


def name(word: str) -> str:
    """Give a name that attacks."""
    return f"{word}{ATTACK}"


EVENT, HUNG, WAITED = name("run") + "[/x]", name("hang"), name("wait") + "[/x]\n\u2713 forged"
app = stepwire.App(name("app"), version=name("v"))
NastyError = type(name("Nasty") + FORGED, (ValueError,), {"__module__": name("mod")})


def fail() -> NoReturn:
    """Fail with all of it."""
    try:
        raise KeyError(name("cause") + FORGED)
    except KeyError as cause:
        error = NastyError(name("message") + FORGED)
        error.add_note(name("note") + FORGED)
        raise error from cause


@app.task(name("task"))
def task(data: object) -> object:
    """Give the data back."""
    return data


@app.function(name("fails"), trigger=EVENT, retries=0)
async def fails(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """Fail by a step, after others."""
    ctx.logger.warning("%s", name("logged") + FORGED, extra={name("key") + FORGED: name("value") + FORGED})
    await step.call(name("task"), {name("key"): name("value")})
    await asyncio.gather(*[step.run(name("many"), str, number) for number in range(12)])
    await step.run(name("step") + FORGED, fail, retries=stepwire.Retry(retries=1, initial_interval=0.01))


@app.function(name("waits"), trigger=WAITED)
async def waits(ctx: stepwire.Context, step: stepwire.Step) -> object:
    """Wait for an event that never comes."""
    await step.wait_for_event(name("waiting") + FORGED, name("never") + FORGED, match={name("key"): name("value")})
    return ATTACK


@app.function(name("hangs"), trigger=HUNG)
async def hangs(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """Have a step in hand."""
    await step.run(name("hang") + FORGED, asyncio.sleep, 3600)


@app.function(name("gives"), trigger=name("give"))
async def gives(ctx: stepwire.Context, step: stepwire.Step) -> object:
    """Succeed with what attacks."""
    return {name("key"): [name("value") + FORGED] * 2}


async def main() -> None:
    """Serve it, with logs as the worker's command has them."""
    logs.set_up("info", as_json=os.environ.get("STEPWIRE_LOG_JSON") == "1")
    labels = {name("label"): name("value") + FORGED}
    await Worker(
        app, os.environ["STEPWIRE_EXECUTOR"], labels=labels, instance_id=name("worker") + "\n\u2713 forged"
    ).run()


if __name__ == "__main__":
    asyncio.run(main())
