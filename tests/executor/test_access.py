"""Tokens over real streams and calls: who is let in, and what of whose apps everybody sees and reaches."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from stepwire.testing import ExecutorProcess
from stepwire_executor.access import TokensError, read_tokens
from stepwire_proto.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    opcode_pb2,
    run_pb2,
    run_pb2_grpc,
    value_pb2,
    worker_pb2,
)
from tests.executor import tokens
from tests.executor.peer import Peer, bearer, refused, until

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
APPS = ("shop", "bank")
CALLS: dict[str, tuple[Any, Any]] = {
    "SendEvents": (event_pb2_grpc.EventServiceStub, event_pb2.SendEventsRequest()),
    "GetRun": (run_pb2_grpc.RunServiceStub, run_pb2.GetRunRequest()),
    "ListRuns": (run_pb2_grpc.RunServiceStub, run_pb2.ListRunsRequest()),
    "WatchRun": (run_pb2_grpc.RunServiceStub, run_pb2.WatchRunRequest()),
    "WaitRun": (run_pb2_grpc.RunServiceStub, run_pb2.WaitRunRequest()),
    "WaitRuns": (run_pb2_grpc.RunServiceStub, run_pb2.WaitRunsRequest()),
    "CancelRun": (run_pb2_grpc.RunServiceStub, run_pb2.CancelRunRequest()),
    "ExplainRun": (run_pb2_grpc.RunServiceStub, run_pb2.ExplainRunRequest()),
    "ListWorkers": (admin_pb2_grpc.AdminServiceStub, admin_pb2.ListWorkersRequest()),
    "ListFunctions": (admin_pb2_grpc.AdminServiceStub, admin_pb2.ListFunctionsRequest()),
    "GetStatus": (admin_pb2_grpc.AdminServiceStub, admin_pb2.GetStatusRequest()),
}
"""Every call that a client can make, with an empty request."""


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[ExecutorProcess]:
    settings = {"tokens_file": tokens.write(tmp_path / "tokens.toml"), "session_grace": 10}
    with ExecutorProcess(settings=settings, folder=tmp_path / "executor") as process:
        yield process


@pytest.fixture
def peers(executor: ExecutorProcess) -> Iterator[dict[str, Peer]]:
    """A worker of each app, with the function "f" that the event "paid" starts, and "g" that nothing starts."""
    serving = {app: Peer(executor.address, tokens.secret(f"{app}-workers")) for app in APPS}
    for app, peer in serving.items():
        peer.welcome(app=app, functions=[function("f", "paid"), function("g")])
    yield serving
    for peer in serving.values():
        peer.close()


def function(id: str, *events: str) -> worker_pb2.FunctionOptions:
    return worker_pb2.FunctionOptions(id=id, triggers=[worker_pb2.Trigger(event_name=event) for event in events])


def ask(channel: grpc.Channel, who: str, method: str, request: Any = None) -> Any:
    """Make a call with somebody's token; a streamed answer is given by its first message."""
    stub, empty = CALLS[method]
    metadata = bearer(tokens.secret(who)) if who else ()
    what = request if request is not None else empty
    if method == "WaitRuns":
        what = iter([what])
    call = getattr(stub(channel), method)(what, timeout=10, metadata=metadata)
    return next(call, None) if method in ("WatchRun", "WaitRuns") else call


def send(channel: grpc.Channel, who: str, name: str, **fields: Any) -> list[str]:
    """Send an event; gives the ids of its runs."""
    data = value_pb2.Payload(data=b"{}", encoding="json")
    request = event_pb2.SendEventsRequest(events=[event_pb2.Event(name=name, data=data, **fields)])
    return list(ask(channel, who, "SendEvents", request).receipts[0].run_ids)


def apps_of(channel: grpc.Channel, run_ids: list[str]) -> set[str]:
    return {ask(channel, "clients", "GetRun", run_pb2.GetRunRequest(run_id=each)).run.app for each in run_ids}


def found(peer: Peer, run: worker_pb2.Invoke, key: str, **target: Any) -> None:
    """Report a step of a run as its worker."""
    step = opcode_pb2.StepPlanned(key=value_pb2.StepKey(id=key), **target)
    report = opcode_pb2.StepsFound(run_id=run.run_id, invocation=run.invocation, steps=[step], quiescent=True)
    peer.send(steps_found=report)


# Who is let in.


@pytest.mark.parametrize("method", CALLS)
def test_a_call_without_a_good_token_is_refused_and_says_what_to_do(method: str, shared: grpc.Channel) -> None:
    code, message, _ = refused(lambda: ask(shared, "", method))
    assert code is UNAUTHENTICATED
    assert "STEPWIRE_TOKEN" in message
    code, message, _ = refused(lambda: ask(shared, "a stranger", method))
    assert code is UNAUTHENTICATED
    assert "unknown token" in message
    assert "stranger" not in message


@pytest.mark.parametrize("value", ["the-token-of-clients", "Basic abc", "Bearer", "Bearer ", ""])
def test_what_is_no_bearer_token_is_refused(value: str, shared: grpc.Channel) -> None:
    stub, request = CALLS["ListRuns"]
    code, _, _ = refused(lambda: stub(shared).ListRuns(request, metadata=(("authorization", value),), timeout=10))
    assert code is UNAUTHENTICATED


def test_two_tokens_at_once_are_none(shared: grpc.Channel) -> None:
    stub, request = CALLS["ListRuns"]
    both = (*bearer(tokens.secret("clients")), *bearer(tokens.secret("shop-clients")))
    assert refused(lambda: stub(shared).ListRuns(request, metadata=both, timeout=10))[0] is UNAUTHENTICATED


@pytest.mark.parametrize("token", ["", "no token at all"])
def test_a_worker_without_a_good_token_is_refused_before_its_hello(token: str, shared_address: str) -> None:
    peer = Peer(shared_address, token)
    assert peer.status()[0] is UNAUTHENTICATED
    peer.close()


def test_health_and_reflection_take_no_token(shared: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(shared).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(shared)
    services = next(stub.ServerReflectionInfo(iter([request]), timeout=10)).list_services_response.service
    assert "stepwire.v1.RunService" in [service.name for service in services]


@pytest.mark.parametrize(
    ("who", "method", "role"),
    [
        ("workers", "SendEvents", "client"),
        ("admins", "SendEvents", "client"),
        ("workers", "GetRun", "client"),
        ("admins", "CancelRun", "client"),
        ("clients", "ListWorkers", "admin"),
        ("workers", "ListFunctions", "admin"),
    ],
)
def test_a_token_is_good_for_its_roles_only(who: str, method: str, role: str, shared: grpc.Channel) -> None:
    code, message, _ = refused(lambda: ask(shared, who, method))
    assert code is DENIED
    assert f"role {role}" in message
    assert repr(who) in message


def test_a_clients_token_serves_no_app(shared_address: str) -> None:
    peer = Peer(shared_address, tokens.secret("clients"))
    code, message = peer.status()
    assert code is DENIED
    assert "role worker" in message
    peer.close()


def test_a_worker_serves_no_app_but_those_of_its_token(shared_address: str) -> None:
    peer = Peer(shared_address, tokens.secret("shop-workers"))
    peer.hello(app="bank")
    code, message = peer.status()
    assert code is DENIED
    assert "app 'bank'" in message
    assert "app 'shop'" in message
    peer.close()


@pytest.fixture(scope="module")
def shared_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An executor for tests that leave nothing behind."""
    file = tokens.write(tmp_path_factory.mktemp("shared") / "tokens.toml")
    with ExecutorProcess(settings={"tokens_file": file}) as process:
        yield process.address


@pytest.fixture(scope="module")
def shared(shared_address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(shared_address) as channel:
        yield channel


# Another tenant's ids.


def test_a_limited_client_sees_and_cancels_runs_of_its_apps_only(peers: dict[str, Peer], channel: grpc.Channel) -> None:
    by_app = {peer: peers[peer] for peer in APPS}
    send(channel, "clients", "paid")
    ids = {app: peer.next("invoke").run_id for app, peer in by_app.items()}
    nobodys = ids["bank"][:-1] + ("0" if ids["bank"][-1] != "0" else "1")
    for method, request in (
        ("GetRun", run_pb2.GetRunRequest(run_id=ids["bank"])),
        ("WatchRun", run_pb2.WatchRunRequest(run_id=ids["bank"])),
        ("WaitRun", run_pb2.WaitRunRequest(run_id=ids["bank"])),
        ("CancelRun", run_pb2.CancelRunRequest(run_id=ids["bank"])),
        ("ExplainRun", run_pb2.ExplainRunRequest(run_id=ids["bank"])),
    ):
        answers = set()
        for run_id in (ids["bank"], nobodys):
            request.run_id = run_id
            code, message, _ = refused(
                lambda method=method, request=request: ask(channel, "shop-clients", method, request)
            )
            answers.add((code, message.replace(run_id, "RUN")))
        says = "run 'RUN' does not exist, or is of an app that token 'shop-clients' is not for"
        assert answers == {(grpc.StatusCode.NOT_FOUND, says)}, method
    for run_id in (ids["bank"], nobodys):
        (end,) = ask(channel, "shop-clients", "WaitRuns", run_pb2.WaitRunsRequest(run_ids=[run_id])).ends
        assert (end.run_id, end.error.code) == (run_id, grpc.StatusCode.NOT_FOUND.value[0])
        assert end.error.message == says.replace("RUN", run_id)
    bank = ask(channel, "clients", "GetRun", run_pb2.GetRunRequest(run_id=ids["bank"])).run
    assert bank.state == run_pb2.RUN_STATE_RUNNING, "it was not cancelled"
    mine = ask(channel, "shop-clients", "CancelRun", run_pb2.CancelRunRequest(run_id=ids["shop"])).run
    assert mine.state == run_pb2.RUN_STATE_CANCELLED
    unknown = run_pb2.GetRunRequest(run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert refused(lambda: ask(channel, "shop-clients", "GetRun", unknown))[0] is grpc.StatusCode.NOT_FOUND


def test_lists_show_the_apps_of_the_token(peers: dict[str, Peer], channel: grpc.Channel) -> None:
    for _ in range(3):
        send(channel, "clients", "paid")

    def listed(who: str, **fields: Any) -> list[str]:
        """Read all pages, of two each."""
        request, apps = run_pb2.ListRunsRequest(page_size=2, **fields), []
        while True:
            answer = ask(channel, who, "ListRuns", request)
            apps += [run.app for run in answer.runs]
            request.page_token = answer.next_page_token
            if not request.page_token:
                return apps

    assert listed("shop-clients") == ["shop"] * 3
    assert listed("shop-clients", app="shop") == ["shop"] * 3
    assert sorted(listed("two-clients")) == ["bank"] * 3 + ["shop"] * 3
    assert listed("two-clients") == listed("clients"), "newest first, over both"
    code, message, _ = refused(lambda: listed("shop-clients", app="bank"))
    assert code is DENIED
    assert "app 'bank'" in message
    workers, functions = (ask(channel, "shop-admins", method) for method in ("ListWorkers", "ListFunctions"))
    assert [worker.app for worker in workers.workers] == ["shop"]
    assert {each.app for each in functions.functions} == {"shop"}
    assert {worker.app for worker in ask(channel, "admins", "ListWorkers").workers} == set(APPS)
    others = admin_pb2.ListWorkersRequest(app="bank")
    assert refused(lambda: ask(channel, "shop-admins", "ListWorkers", others))[0] is DENIED


def test_nobody_takes_over_a_session_or_a_name_of_another_token(executor: ExecutorProcess) -> None:
    owner = Peer(executor.address, tokens.secret("shop-workers"))
    session = owner.welcome(app="shop", instance_id="shop-1").session_id

    def thief(token: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
        peer = Peer(executor.address, tokens.secret(token))
        peer.hello(**fields)
        status = peer.status()
        peer.close()
        return status

    for token, fields in {
        "bank-workers": {"app": "bank", "instance_id": "bank-1", "resume_session": session},
        "workers": {"app": "shop", "instance_id": "shop-1", "resume_session": session},
        "shop-workers": {"app": "shop", "instance_id": "shop-2", "resume_session": session},
    }.items():
        code, message = thief(token, **fields)
        assert code is DENIED, token
        assert "session" in message
    code, message = thief("workers", app="shop", instance_id="shop-1")
    assert code is DENIED
    assert "an instance id of its own" in message
    assert not owner.ended.is_set(), "the owner was not disturbed"
    again = Peer(executor.address, tokens.secret("shop-workers"))
    assert again.welcome(app="shop", instance_id="shop-1", resume_session=session).resumed
    again.close()
    owner.close()


def test_what_a_run_of_another_app_waits_for_is_not_told(executor: ExecutorProcess, channel: grpc.Channel) -> None:
    peers = {app: Peer(executor.address, tokens.secret("workers")) for app in APPS}
    for app, peer in peers.items():
        peer.welcome(app=app, functions=[function("f", f"{app}-paid"), function("g")])
    send(channel, "clients", "shop-paid")
    parent = peers["shop"].next("invoke")
    found(peers["shop"], parent, "child", invoke=opcode_pb2.InvokeTarget(app="bank", function_id="g"))
    peers["bank"].next("invoke")
    request = run_pb2.ExplainRunRequest(run_id=parent.run_id)
    (everything,) = ask(channel, "two-clients", "ExplainRun", request).causes
    (own,) = ask(channel, "shop-clients", "ExplainRun", request).causes
    assert everything.causes
    assert not own.causes
    for peer in peers.values():
        peer.close()


def test_every_call_of_the_contract_is_tried_here() -> None:
    services = [
        *event_pb2.DESCRIPTOR.services_by_name.values(),
        *run_pb2.DESCRIPTOR.services_by_name.values(),
        *admin_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    assert {method.name for service in services for method in service.methods} == CALLS.keys()


# What events and runs reach.


def test_an_event_of_a_limited_token_starts_functions_of_its_apps_only(
    peers: dict[str, Peer], channel: grpc.Channel
) -> None:
    assert apps_of(channel, send(channel, "shop-clients", "paid")) == {"shop"}
    assert apps_of(channel, send(channel, "two-clients", "paid")) == {"shop", "bank"}
    assert apps_of(channel, send(channel, "clients", "paid")) == {"shop", "bank"}


def test_functions_of_other_apps_are_nothing_that_a_limited_token_starts(
    executor: ExecutorProcess, channel: grpc.Channel
) -> None:
    for app, count in (("bank", 1_000), ("shop", 1)):
        with Peer(executor.address, tokens.secret(f"{app}-workers")) as peer:
            functions = [
                worker_pb2.FunctionOptions(id=f"f{n}", triggers=[worker_pb2.Trigger(event_name="crowded")])
                for n in range(count)
            ]
            peer.welcome(app=app, functions=functions)
    events = [event_pb2.Event(name="crowded") for _ in range(51)]
    receipts = ask(channel, "shop-clients", "SendEvents", event_pb2.SendEventsRequest(events=events)).receipts
    assert [len(receipt.run_ids) for receipt in receipts] == [1] * 51
    code, message, _ = refused(
        lambda: ask(channel, "clients", "SendEvents", event_pb2.SendEventsRequest(events=events))
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "51,051 runs" in message


def test_an_event_id_is_once_only_among_those_who_reach_the_same_apps(
    peers: dict[str, Peer], channel: grpc.Channel, executor: ExecutorProcess
) -> None:
    senders = ("two-clients", "shop-clients", "clients")
    ids = {token: send(channel, token, "paid", id="order-1") for token in senders}
    assert len({run_id for started in ids.values() for run_id in started}) == 5
    for _ in range(2):
        assert {token: send(channel, token, "paid", id="order-1") for token in senders} == ids
        executor.kill()
        executor.start()


def test_nobody_can_send_ahead_an_event_that_a_step_is_to_send(peers: dict[str, Peer], channel: grpc.Channel) -> None:
    send(channel, "clients", "paid")
    invoke = peers["bank"].next("invoke")
    events = [event_pb2.Event(name="shipped")]
    found(peers["bank"], invoke, "ship", send_events=opcode_pb2.SendEventsTarget(events=events))
    (entry,) = peers["bank"].next("resume").entries
    (sent,) = json.loads(entry.output.data)
    for token in ("shop-clients", "clients"):
        code, message, fields = refused(lambda token=token: send(channel, token, "shipped", id=sent))
        assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["events[0].id"])
        assert "ids of this form are given to events of steps" in message


def test_a_wait_is_ended_by_events_that_reach_its_app_only_also_after_a_restart(
    peers: dict[str, Peer], channel: grpc.Channel, executor: ExecutorProcess
) -> None:
    send(channel, "clients", "paid")
    wait = opcode_pb2.WaitForEventTarget(event_name="shipped")
    runs = {app: peers[app].next("invoke") for app in APPS}
    found(peers["bank"], runs["bank"], "wait", wait_for_event=wait)
    steps = run_pb2.GetRunRequest(run_id=runs["bank"].run_id, include_steps=True, include_outputs=True)
    until(lambda: len(ask(channel, "clients", "GetRun", steps).steps) == 1)
    send(channel, "shop-clients", "shipped", id="for-the-shop")
    found(peers["shop"], runs["shop"], "wait", wait_for_event=wait)  # after its event: it is found when looked for
    (entry,) = peers["shop"].next("resume").entries
    assert b"for-the-shop" in entry.output.data
    executor.kill()
    executor.start()  # looks for events that waits may have missed
    assert ask(channel, "clients", "GetRun", steps).steps[0].state == run_pb2.STEP_STATE_WAITING
    send(channel, "two-clients", "shipped", id="for-both")
    until(lambda: ask(channel, "clients", "GetRun", steps).steps[0].state == run_pb2.STEP_STATE_SUCCEEDED)
    assert b"for-both" in ask(channel, "clients", "GetRun", steps).steps[0].output.data


def test_a_run_reaches_what_its_workers_token_reaches(
    peers: dict[str, Peer], channel: grpc.Channel, executor: ExecutorProcess
) -> None:
    send(channel, "shop-clients", "paid")
    invoke = peers["shop"].next("invoke")
    found(peers["shop"], invoke, "others", invoke=opcode_pb2.InvokeTarget(app="bank", function_id="g"))
    (entry,) = peers["shop"].next("resume").entries
    assert entry.failure.type == "PermissionDeniedError"
    assert "bank/g" in entry.failure.message
    events = [event_pb2.Event(name="paid", id="from-a-run")]
    found(peers["shop"], invoke, "send", send_events=opcode_pb2.SendEventsTarget(events=events))
    peers["shop"].next("resume")
    started = ask(channel, "clients", "ListRuns", run_pb2.ListRunsRequest(event_id="from-a-run"))
    assert [run.app for run in started.runs] == ["shop"]
    found(peers["shop"], invoke, "own", invoke=opcode_pb2.InvokeTarget(function_id="g"))
    until(lambda: peers["shop"].next("invoke").function_id == "g")


# The file.


def test_the_file_is_read_again_on_sighup(
    peers: dict[str, Peer], channel: grpc.Channel, executor: ExecutorProcess, tmp_path: Path
) -> None:
    def reload(said: str) -> None:
        before = executor.log.count(said)
        executor.signal(signal.SIGHUP)
        until(lambda: executor.log.count(said) > before)

    file = tmp_path / "tokens.toml"
    file.write_text("[[token]]\nname = ")
    reload("what was read before stays in use")
    assert "is not TOML" in executor.log
    assert send(channel, "shop-clients", "paid"), "the old ones are good"
    waiting = run_pb2.WaitRunsRequest(run_ids=send(channel, "shop-clients", "paid"))
    ends = run_pb2_grpc.RunServiceStub(channel).WaitRuns(
        iter([waiting, run_pb2.WaitRunsRequest(run_ids=["nope"])]), metadata=bearer(tokens.secret("shop-clients"))
    )
    assert next(ends).ends[0].run_id == "nope", "so both have arrived"
    tokens.write(file, "bank-workers", "shop-clients")
    with file.open("a") as more:
        more.write("\n" + tokens.entry("new", ["shop"], ["client"]))
    reload("tokens: read again")
    assert send(channel, "new", "paid")
    assert refused(lambda: send(channel, "shop-clients", "paid"))[0] is UNAUTHENTICATED
    ask(channel, "new", "CancelRun", run_pb2.CancelRunRequest(run_id=waiting.run_ids[0]))
    assert next(ends).ends[0].error.code == UNAUTHENTICATED.value[0], "it is not told to whoever has no token now"
    assert peers["bank"].status()[0] is grpc.StatusCode.UNAVAILABLE, "its stream is ended, so that it asks again"
    peer = Peer(executor.address, tokens.secret("bank-workers"))
    assert peer.status()[0] is UNAUTHENTICATED
    peer.close()
    assert not peers["shop"].ended.is_set(), "others are not disturbed"


def test_open_calls_tell_nothing_more_to_a_token_that_has_lost_its_role_or_app(
    peers: dict[str, Peer], channel: grpc.Channel, executor: ExecutorProcess, tmp_path: Path
) -> None:
    runs = run_pb2_grpc.RunServiceStub(channel)
    for roles, apps, code in ((["admin"], ["shop"], DENIED), (["client"], ["bank"], grpc.StatusCode.NOT_FOUND)):
        tokens.write(tmp_path / "tokens.toml")
        executor.signal(signal.SIGHUP)
        (run_id,) = send(channel, "shop-clients", "paid")
        until(lambda run_id=run_id: peers["shop"].next("invoke").run_id == run_id)
        metadata = bearer(tokens.secret("shop-clients"))
        watch = runs.WatchRun(run_pb2.WatchRunRequest(run_id=run_id), metadata=metadata)
        waits = runs.WaitRuns(
            iter([run_pb2.WaitRunsRequest(run_ids=[run_id]), run_pb2.WaitRunsRequest(run_ids=["nope"])]),
            metadata=metadata,
        )
        wait = runs.WaitRun.future(run_pb2.WaitRunRequest(run_id=run_id), metadata=metadata)
        assert next(watch).run.id == run_id
        assert next(waits).ends[0].run_id == "nope", "so both have arrived"
        tokens.write(tmp_path / "tokens.toml", "shop-clients")
        with (tmp_path / "tokens.toml").open("a") as more:
            more.write("\n" + tokens.entry("shop-clients", apps, roles))
        before = executor.log.count("tokens: read again")
        executor.signal(signal.SIGHUP)
        until(lambda before=before: executor.log.count("tokens: read again") > before)
        ask(channel, "clients", "CancelRun", run_pb2.CancelRunRequest(run_id=run_id))
        assert next(waits).ends[0].error.code == code.value[0]
        assert refused(lambda watch=watch: list(watch))[0] is code
        assert wait.exception().code() is code


GOOD = tokens.entry("a", ["*"], ["client"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no token"),
        ("[token]", "[[token]]"),
        ("surprise = 1\n" + GOOD, "[[token]]"),
        ("[[token]", "not TOML"),
        ('[[token]]\nname = "a"', "token 1 lacks 'apps'"),
        (GOOD + "expires = 1", "token 1 has 'expires'"),
        (GOOD.replace('"a"', '""'), "name"),
        (GOOD.replace("sha256 = ", 'sha256 = "secret" #'), "token 1 (a): sha256"),
        (GOOD.replace('["*"]', "[]"), "token 1 (a): apps"),
        (GOOD.replace('["*"]', '"shop"'), "token 1 (a): apps"),
        (GOOD.replace("client", "king"), "no role 'king'; there are worker, client, admin"),
        (GOOD + GOOD, "two tokens with the name 'a'"),
        (GOOD + GOOD.replace('"a"', '"b"'), "two tokens with the sha256"),
    ],
)
def test_a_file_of_tokens_that_is_not_right_says_where(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    with pytest.raises(TokensError) as caught:
        read_tokens(file)
    assert reason in str(caught.value)
    assert str(file) in str(caught.value)
