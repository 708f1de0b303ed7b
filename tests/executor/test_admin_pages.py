"""Lists of workers and functions come in pages of bounded size, which clients read to the end."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

import stepwire
from stepwire.testing import ExecutorProcess
from stepwire_executor.services.pages import PAGE_BYTES, write_token
from stepwire_proto.v1 import admin_pb2, admin_pb2_grpc, worker_pb2
from tests.executor.peer import Peer, refused

WORKERS, FUNCTIONS = 25, 500
OTHERS = 3


def function(number: int) -> str:
    return f"{number:04}" + "f" * 120


@pytest.fixture(scope="module")
def admin() -> Iterator[tuple[admin_pb2_grpc.AdminServiceStub, stepwire.SyncClient]]:
    """Give the calls of an executor with workers that have long lists of functions, and a client of it."""
    with ExitStack() as opened:
        executor = opened.enter_context(ExecutorProcess())
        options = [worker_pb2.FunctionOptions(id=function(number)) for number in range(FUNCTIONS)]
        for number in range(WORKERS):
            opened.enter_context(Peer(executor.address)).welcome(
                instance_id=f"i-{number:02}", app="large", functions=options, slots=1
            )
        for number in range(OTHERS):
            opened.enter_context(Peer(executor.address)).welcome(
                instance_id=f"o-{number}", app="other", functions=options[: number + 1], slots=1
            )
        channel = opened.enter_context(grpc.insecure_channel(executor.address))
        yield admin_pb2_grpc.AdminServiceStub(channel), opened.enter_context(stepwire.SyncClient(executor.address))


Admin = tuple[admin_pb2_grpc.AdminServiceStub, stepwire.SyncClient]


def test_pages_of_workers_end_by_their_bytes_and_leave_none_out(admin: Admin) -> None:
    stub, client = admin
    request = admin_pb2.ListWorkersRequest()
    found: list[str] = []
    pages = 0
    while pages == 0 or request.page_token:
        page = stub.ListWorkers(request)
        assert sum(worker.ByteSize() for worker in page.workers[:-1]) < PAGE_BYTES
        found += [worker.instance_id for worker in page.workers]
        pages += 1
        request.page_token = page.next_page_token
    assert found == [*(f"i-{number:02}" for number in range(WORKERS)), *(f"o-{number}" for number in range(OTHERS))]
    assert pages > 1
    assert [worker.instance_id for worker in client.workers()] == found
    assert len(client.workers(app="other")) == OTHERS


def test_pages_of_functions_follow_each_other_and_say_how_many_serve_each(admin: Admin) -> None:
    stub, client = admin
    request = admin_pb2.ListFunctionsRequest(page_size=100)
    found: list[tuple[str, str, int]] = []
    while not found or request.page_token:
        page = stub.ListFunctions(request)
        assert len(page.functions) <= 100
        found += [(each.app, each.options.id, each.workers) for each in page.functions]
        request.page_token = page.next_page_token
    of_large = [("large", function(number), WORKERS) for number in range(FUNCTIONS)]
    assert found == [*of_large, *(("other", function(number), OTHERS - number) for number in range(OTHERS))]
    assert len(client.functions()) == len(found)
    assert [each.workers for each in client.functions(app="other")] == [3, 2, 1]


@pytest.mark.parametrize("place", ["", "x", "1 ", "9" * 30 + " s", "no time s", "large", f"1 {'s' * 300}"])
def test_a_forged_token_is_an_invalid_argument(admin: Admin, place: str) -> None:
    stub, _ = admin
    for token in (write_token(place, ""), base64.urlsafe_b64encode(place.encode()).decode() + "?"):
        request = admin_pb2.ListWorkersRequest(page_token=token)
        code, _, fields = refused(lambda request=request: stub.ListWorkers(request))  # type: ignore[misc]
        assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])


def test_a_token_is_good_for_its_own_list_only(admin: Admin) -> None:
    stub, _ = admin
    token = stub.ListFunctions(admin_pb2.ListFunctionsRequest(app="large", page_size=1)).next_page_token
    assert token
    refusals = [
        refused(lambda: stub.ListFunctions(admin_pb2.ListFunctionsRequest(app="other", page_token=token))),
        refused(lambda: stub.ListWorkers(admin_pb2.ListWorkersRequest(app="large", page_token=token))),
    ]
    assert [fields for _, _, fields in refusals] == [["page_token"]] * 2


def test_too_large_a_page_is_an_invalid_argument(admin: Admin) -> None:
    stub, _ = admin
    code, message, fields = refused(lambda: stub.ListWorkers(admin_pb2.ListWorkersRequest(page_size=1_001)))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_size"])
    assert "at most 1000" in message
