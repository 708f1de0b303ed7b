"""What becomes of a run when a replica's body fails: the run has diverged, or that worker can't run its body."""

from __future__ import annotations

from dataclasses import replace

from stepwire_core import divergence, quarantine, runs, workers
from stepwire_core.inputs import RunFailed
from stepwire_core.model import Failure
from stepwire_core.state import LoadedRun
from stepwire_core.turn import Turn


def on_run_failed(turn: Turn, failed: RunFailed) -> None:
    """Take the failure of a body.

    What a replica's body raises where the lead's has gone on has to do with its worker. The run goes
    on without that replica: its closures are run where the lead is.
    """
    state = turn.state
    loaded = state.runs.get(failed.run_id)
    replica = loaded.replicas.get(failed.session_id) if loaded is not None else None
    ours = replica is not None and replica.fence == failed.invocation
    if loaded is None or replica is None or not ours or failed.failure.type == divergence.DIVERGED:
        if loaded is not None and failed.not_found is not None:
            failed = replace(failed, failure=with_other_side(loaded, failed))
        runs.fail_body(turn, failed)
        return
    runs.forget(state, replica)
    loaded.bound = failed.failure
    quarantine.enqueue_closures(state, loaded)
    workers.requeue(state, loaded)


def with_other_side(loaded: LoadedRun, failed: RunFailed) -> Failure:
    """Add where a step was found that a worker's body has not found."""
    step = loaded.run.steps.get(failed.not_found) if failed.not_found is not None else None
    if step is None:
        return failed.failure
    other = f"another worker found the {divergence.named(step.kind, step.key, step.target, step.source)}"
    return replace(failed.failure, message=f"{other}; {failed.failure.message}")
