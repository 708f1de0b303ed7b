"""How the code of a function's body is entered: with a context and a way to start steps."""

from __future__ import annotations

from typing import Any

from stepwire.body.context import Context
from stepwire.body.step import Step, SyncStep
from stepwire.replay.invocation import Invocation
from stepwire.replay.threads import Branch


async def run_body(invocation: Invocation) -> Any:
    """Run the body of an invocation's function, in a thread of its own if it is a sync one. Raises what that raises."""
    context, function = Context(invocation), invocation.function
    try:
        if function.is_async:
            return await function.body(context, Step(invocation))
        return await Branch(invocation, lambda: function.body(context, SyncStep(invocation))).run()
    finally:
        await invocation.loop.shutdown_asyncgens()
