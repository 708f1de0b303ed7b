"""What is done again and again beside the engine, for as long as the executor runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from stepwire_executor.store import StoreError

log = logging.getLogger("stepwire.executor")


async def again_and_again(what: str, work: Callable[[], Awaitable[object]], first: float, rest: float) -> None:
    """Do some work after `first` seconds, and then with so many seconds of rest in between; a failure ends no other."""
    await asyncio.sleep(first)
    while True:
        try:
            await work()
        except StoreError as error:
            log.warning("%s was broken off: %s", what, error)  # the engine learns of it in its next turn
        except Exception:
            log.exception("%s failed, which is a bug in Stepwire; it is tried again", what)
        await asyncio.sleep(rest)
