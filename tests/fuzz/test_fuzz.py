"""The fuzz with a fixed seed, as CI runs it.

`make fuzz MINUTES=n` sends more, from another seed each time, and holds the victim's times against idle too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwire_proto.v1 import worker_pb2
from tests.fuzz.against_executor import AgainstExecutor
from tests.fuzz.against_workers import against_worker
from tests.fuzz.attack import Attack
from tests.fuzz.clients import methods
from tests.postgres import Cluster

SEED = 20261130
MESSAGES, MESSAGES_TO_A_WORKER = 10_000, 5_000
MESSAGES_ON_POSTGRESQL = 2_000
"""All but the store's statements is as on SQLite."""

pytestmark = pytest.mark.timeout(400)


def told(attack: Attack) -> str:
    """Say what was found, with what was sent last."""
    last = "\n".join(str(sent)[:2_000] for sent in list(attack.last)[-5:])
    return "\n\n".join([*attack.wrong, f"the last messages, with seed {attack.seed}:", last])


async def attacked(folder: Path, messages: int, store: str = "") -> Attack:
    """Send so many messages to an executor and see that it does no harm to anybody."""
    attack = Attack(SEED, messages=messages)
    with AgainstExecutor(folder, attack, store) as system:
        await system.run(idle_seconds=0.5)
        assert not attack.wrong, told(attack)
        assert system.attacked, "nothing of the victim ended in all that time"
    return attack


async def test_ten_thousand_messages_of_every_kind_do_no_harm_to_an_executor_or_to_others(tmp_path: Path) -> None:
    attack = await attacked(tmp_path, MESSAGES)
    kinds = [f"worker {field.name}" for field in worker_pb2.WorkerMessage.DESCRIPTOR.fields]
    missing = {*kinds, *(method.full_name for method in methods())} - attack.kinds.keys()
    assert not missing, "the fuzz has lost its bite: nothing was said of these"
    assert {"welcome", "invoke", "resume", "run_steps", "recorded", "cancel"} <= attack.heard.keys()
    assert {"stream INVALID_ARGUMENT", "stream FAILED_PRECONDITION"} <= attack.ends.keys()
    assert {"call OK", "call NOT_FOUND", "call INVALID_ARGUMENT", "call PERMISSION_DENIED"} <= attack.ends.keys()


async def test_thousands_of_messages_do_no_harm_on_postgresql_either(tmp_path: Path, cluster: Cluster) -> None:
    attack = await attacked(tmp_path, MESSAGES_ON_POSTGRESQL, cluster.url(cluster.database()))
    assert attack.count >= MESSAGES_ON_POSTGRESQL
    assert {"welcome", "invoke", "resume", "run_steps", "recorded", "GetRunResponse"} <= attack.heard.keys()
    assert "call OK" in attack.ends


@pytest.mark.parametrize("language", ["python", "typescript", pytest.param("go", marks=pytest.mark.needs("go"))])
async def test_a_worker_lives_through_whatever_an_executor_says_and_works_as_before(
    language: str, tmp_path: Path
) -> None:
    attack = Attack(SEED, messages=MESSAGES_TO_A_WORKER)
    await against_worker(language, tmp_path, attack)
    assert not attack.wrong, told(attack)
    kinds = [f"executor {field.name}" for field in worker_pb2.ExecutorMessage.DESCRIPTOR.fields]
    assert not {*kinds} - attack.kinds.keys(), "the fuzz has lost its bite: nothing was said of these"
    reports = {"step_run", "step_failed"} if language == "go" else {"steps_found", "step_run", "run_failed"}
    assert {f"{language} {kind}" for kind in reports} <= attack.heard.keys()
