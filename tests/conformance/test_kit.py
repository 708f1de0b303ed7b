"""The kit's own parts: the cases on disk, patterns, and what its command says of wrong use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from stepwire_conformance import CaseError, executor_cases, worker_cases
from stepwire_conformance.patterns import Names, differences, not_zero
from stepwire_proto.v1 import worker_pb2
from tests.conformance.kit import PYTHON_WORKER, outcomes, run_kit

ROOT = Path(__file__).parents[2]


def message(text: str) -> worker_pb2.WorkerMessage:
    return text_format.Parse(text, worker_pb2.WorkerMessage())


FOUND = (
    'steps_found { run_id: "r" invocation: 1 sequence: 2 steps { key { id: "a" index: 1 } source: "f:1" closure {} } }'
)
RUN = 'step_run { attempt { run_id: "r" key { id: "a" } fence: 3 } output { data: \'{"a": [1, true]}\' } }'


@pytest.mark.parametrize(
    ("pattern", "came"),
    [
        ('steps_found { invocation: 1 sequence: 2 steps { key { id: "a" index: 1 } closure {} } }', FOUND),
        ('step_run { output { data: \'{"a":[1.0,true]}\' encoding: "json" } }', RUN),
        ("heartbeat {}", "heartbeat { attempts_in_hand: 1 }"),
        (
            'hello { functions { id: "b" } tasks: "t" }',
            'hello { functions { id: "a" } functions { id: "b" triggers { event_name: "e" } } tasks: "s" tasks: "t" }',
        ),
        (
            'hello { attempts_in_hand { run_id: "r" fence: 1 } attempts_in_hand { run_id: "r" fence: 2 } }',
            'hello { attempts_in_hand { run_id: "r" fence: 2 } attempts_in_hand { run_id: "r" fence: 1 } }',
        ),
    ],
)
def test_a_pattern_matches_what_gives_the_same_and_more(pattern: str, came: str) -> None:
    assert differences(message(pattern), message(came)) == []


@pytest.mark.parametrize(
    ("pattern", "came", "told"),
    [
        ('steps_found { steps { key { id: "a" index: 1 } } }', FOUND, "steps_found.sequence: awaited 0, came 2"),
        ('steps_found { sequence: 2 steps { key { id: "a" } } }', FOUND, "steps[0].key.index: awaited 0, came 1"),
        ("steps_found { sequence: 2 }", FOUND, "steps_found.steps: awaited 0: []; came 1"),
        (
            'steps_found { sequence: 2 steps { key { id: "a" index: 1 } task { name: "t" } } }',
            FOUND,
            'steps[0].task: awaited name: "t", came closure',
        ),
        ("step_run { output { data: '{\"a\": [1, 1]}' } }", RUN, 'step_run.output: awaited {"a": [1, 1]}, came'),
        ('step_run { output { encoding: "binary" } }', RUN, "output.encoding: awaited 'binary', came 'json'"),
        ('step_run { attempt { run_id: "r" fence: 3 } }', RUN, "attempt.key"),
        ('hello { tasks: "u" }', 'hello { tasks: "t" }', "hello.tasks: awaited ['u'] in any place, came ['t']"),
        (
            'hello { attempts_in_hand { run_id: "r" fence: 1 } }',
            'hello { attempts_in_hand { run_id: "r" fence: 2 } }',
            "hello.attempts_in_hand: awaited",
        ),
        ("heartbeat {}", "draining {}", "heartbeat: awaited it, came draining"),
    ],
)
def test_what_differs_is_named(pattern: str, came: str, told: str) -> None:
    (line,) = differences(message(pattern), message(came))
    assert told in line


def test_a_name_stands_for_what_was_met_first() -> None:
    names = Names()
    pattern = message('evicted { run_id: "$evicted" invocation: 9001 }')
    assert differences(pattern, message('evicted { run_id: "run-2" invocation: 7 }'), names) == []
    assert len(differences(pattern, message('evicted { run_id: "run-3" invocation: 7 }'), names)) == 1
    answer = worker_pb2.ExecutorMessage(resume=worker_pb2.Resume(run_id="$evicted", invocation=9001))
    names.resolve(answer)
    assert (answer.resume.run_id, answer.resume.invocation) == ("run-2", 7)


def test_a_field_that_must_be_unset_is_named_if_it_is_not() -> None:
    came = message("step_failed { failure { retryable: true retry_after { seconds: 1 } } }")
    paths = ["step_failed.failure.retryable", "step_failed.failure.retry_after", "step_failed.failure.type"]
    assert [line.split(":")[0] for line in not_zero(came, paths)] == paths[:2]


def test_every_case_says_what_it_shows_and_needs_what_it_uses() -> None:
    for named in worker_cases():
        used = {m.invoke.function_id for act in named.case.acts for m in act.send.messages if m.HasField("invoke")}
        assert used - {"no-such-function"} <= set(named.case.needs.functions), named.name
    names = [named.name for named in (*worker_cases(), *executor_cases())]
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


def test_the_documents_app_is_the_one_that_is_served() -> None:
    from tests.conformance.python_worker import app

    text = (ROOT / "docs" / "conformance.md").read_text()
    listed = re.findall(r"^\| `([a-z-]+)` \|", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted([*app.functions, *app.tasks])


def test_a_case_that_can_not_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "odd.txtpb").write_text('shows: "a"\nrule: "b"\nacts { nothing {} }\n')
    with pytest.raises(CaseError, match=r"odd\.txtpb:3: .*nothing"):
        worker_cases(folder=tmp_path)
    with pytest.raises(CaseError, match="there is no case 'even'"):
        worker_cases(["even"])


def test_a_case_of_ones_own_is_run(tmp_path: Path) -> None:
    (tmp_path / "own.txtpb").write_text('shows: "a"\nrule: "b"\nacts { accept { hello { app: "another" } } }\n')
    code, _, output = run_kit(tmp_path, "worker", "--cases", str(tmp_path), "--", *PYTHON_WORKER)
    assert 'app: awaited "another", came "conformance"' in output
    assert code == 1


def test_the_documents_case_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "conformance.md").read_text()
    (tmp_path / "documented.txtpb").write_text(text.partition("```textproto\n")[2].partition("```")[0])
    code, report, output = run_kit(tmp_path, "worker", "--cases", str(tmp_path), "--", *PYTHON_WORKER)
    assert outcomes(report) == {"documented": "passed"}, output
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["worker"], "say what to start"),
        (["worker", "--case", "nope", "--", "true"], "there is no case 'nope'"),
        (["worker", "--case", "hello", "--", "no-such-command-here"], "'no-such-command-here' can't be started"),
        (["worker", "--case", "hello", "--", "true"], "the process has ended with exit code 0"),
        (["executor", "--address", "127.0.0.1:1", "--", "true"], "give either --address or a command"),
        (["executor", "--", "true"], "no executor came"),
    ],
)
def test_wrong_use_is_told_in_a_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    code, _, output = run_kit(tmp_path, *arguments)
    assert code == 2
    assert told in output


def test_the_cases_are_listed(tmp_path: Path) -> None:
    code, _, output = run_kit(tmp_path, "worker", "--list")
    assert code == 0
    assert "lost_recorded" in output
