"""Step code and programs with clients start processes as plain programs do: pools, forks and subprocesses."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepwire
from stepwire.testing import ExecutorProcess, WorkerProcess

CODE = """
import asyncio, multiprocessing, os, signal, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
import stepwire

app = stepwire.App("children")

def square(n: int) -> int:
    return n * n

def nap() -> None:
    time.sleep(600)

def ended_at_once(method: str) -> int:
    child = multiprocessing.get_context(method).Process(target=nap)
    child.start()
    child.terminate()
    child.join()
    return child.exitcode

def ended_many_times() -> list:
    codes = []
    for _ in range(30):
        child = multiprocessing.get_context("fork").Process(target=nap)
        child.start()
        child.terminate()
        child.join()
        codes.append(child.exitcode)
    return sorted(set(codes))

def interrupted() -> int:
    child = multiprocessing.get_context("fork").Process(target=nap)
    child.start()
    os.kill(child.pid, signal.SIGINT)
    child.join()
    return child.exitcode

def pool(method: str) -> list:
    with multiprocessing.get_context(method).Pool(2) as workers:
        return workers.map(square, [1, 2, 3])

def executor(method: str) -> list:
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as workers:
        return list(workers.map(square, [1, 2, 3]))

def forked() -> int:
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def forked_and_returns() -> int:
    pid = os.fork()
    if pid == 0:
        return 1
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def forked_and_raises() -> int:
    pid = os.fork()
    if pid == 0:
        raise ValueError("in the child")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

async def forked_on_the_loop() -> int:
    return forked()

async def executor_on_the_loop() -> list:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as workers:
        return [await loop.run_in_executor(workers, square, n) for n in (1, 2, 3)]

def command() -> str:
    return subprocess.run(["echo", "hi"], capture_output=True, text=True, preexec_fn=os.setsid).stdout

def variables() -> list:
    return [name for name in os.environ if name.startswith("GRPC_ENABLE")]

def client_in_child() -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            stepwire.SyncClient(os.environ["AT"], timeout=3).send("x")
            text = "sent"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as said:
        return said.read()

CASES = {
    "ended at once, fork": (ended_at_once, "fork"),
    "ended at once, spawn": (ended_at_once, "spawn"),
    "ended at once, forkserver": (ended_at_once, "forkserver"),
    "ended many times": (ended_many_times,),
    "interrupted": (interrupted,),
    "pool, fork": (pool, "fork"),
    "pool, spawn": (pool, "spawn"),
    "pool, forkserver": (pool, "forkserver"),
    "executor, fork": (executor, "fork"),
    "executor, spawn": (executor, "spawn"),
    "forked": (forked,),
    "forked and returns": (forked_and_returns,),
    "forked and raises": (forked_and_raises,),
    "forked on the loop": (forked_on_the_loop,),
    "executor on the loop": (executor_on_the_loop,),
    "command": (command,),
    "variables": (variables,),
    "client in child": (client_in_child,),
}

@app.function("run", trigger="run", retries=0)
async def run(ctx: stepwire.Context, step: stepwire.Step):
    code, *arguments = CASES[ctx.event.data]
    return await step.run("it", code, *arguments)
"""

WANTED = {
    "ended at once, fork": -15,
    "ended at once, spawn": -15,
    "ended at once, forkserver": -15,
    "ended many times": [-15],
    "interrupted": 1,
    "pool, fork": [1, 4, 9],
    "pool, spawn": [1, 4, 9],
    "pool, forkserver": [1, 4, 9],
    "executor, fork": [1, 4, 9],
    "executor, spawn": [1, 4, 9],
    "forked": 7,
    "forked and returns": 0,
    "forked and raises": 1,
    "forked on the loop": 7,
    "executor on the loop": [1, 4, 9],
    "command": "hi\n",
    "variables": [],
    "client in child": "StepwireError: gRPC was in use in this process's parent",
}


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as executor:
        yield executor


@pytest.fixture(scope="module")
def worker(executor: ExecutorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("children")
    (folder / "children.py").write_text(CODE)
    with WorkerProcess("children:app", executor, path=folder, environment={"AT": executor.address}) as worker:
        yield worker


@pytest.mark.parametrize("case", WANTED)
def test_a_step_starts_processes_as_a_plain_program_does(
    executor: ExecutorProcess, worker: WorkerProcess, case: str
) -> None:
    with stepwire.SyncClient(executor.address) as client:
        got = client.result(client.send("run", case).run_ids[0], 60)
    wanted = WANTED[case]
    assert got.startswith(wanted) if case == "client in child" else got == wanted
    assert worker.running
    assert "draining" not in worker.log


PROGRAM = """
import asyncio, os, signal, sys, time, multiprocessing, warnings
warnings.simplefilter("ignore")
import stepwire

AT = sys.argv[1]

def in_child(call):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = str(call())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(reader) as said:
        return said.read() or f"exit code {code}"

def send(client):
    return "sent" if client.send("x").event_id else "not sent"

async def asend(client):
    return "sent" if (await client.send("x")).event_id else "not sent"

def square(n):
    return n * n
"""


def said(tmp_path: Path, executor: ExecutorProcess, code: str) -> list[str]:
    """Run a program with `code` in it; give the lines that it printed."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + code)
    command = [sys.executable, str(program), executor.address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            printed, complaint = process.communicate(timeout=100)
        finally:
            with contextlib.suppress(ProcessLookupError):  # children that it has forked, should they hang
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, complaint
    return printed.splitlines()


USED = "StepwireError: this client was used before its process was forked"
TORN = "StepwireError: gRPC was in use in this process's parent"


def test_a_forked_child_makes_a_client_of_its_own_and_is_told_not_to_use_its_parents(
    tmp_path: Path, executor: ExecutorProcess
) -> None:
    lines = said(
        tmp_path,
        executor,
        """
client, unused = stepwire.SyncClient(AT), stepwire.SyncClient(AT)
print(send(client))
print(in_child(lambda: send(stepwire.SyncClient(AT, retry_for=0))))
print(in_child(lambda: send(unused)))
print(in_child(lambda: send(client)))
print(in_child(lambda: client.close()))
print(in_child(lambda: asyncio.run(asend(stepwire.Client(AT)))))
print(send(client))
""",
    )
    assert lines[0:3] == ["sent", "sent", "sent"]
    assert lines[3].startswith(USED)
    assert lines[4:] == ["None", "sent", "sent"]


def test_children_of_a_program_with_an_asyncio_client_that_waits_are_whole(
    tmp_path: Path, executor: ExecutorProcess
) -> None:
    lines = said(
        tmp_path,
        executor,
        """
async def main():
    async with stepwire.Client(AT) as client:
        receipt = await client.send("nobody")
        try:
            await client.result("01AAAAAAAAAAAAAAAAAAAAAAAA")
        except stepwire.ExecutorError as error:
            print(error.code)
        for fork in (in_child, lambda call: asyncio.to_thread(in_child, call)):
            for _ in range(20):
                answer = fork(lambda: 1)
                print(answer if isinstance(answer, str) else await answer)
        print(in_child(lambda: asyncio.run(asend(client))))
        print(in_child(lambda: send(stepwire.SyncClient(AT))))
        print(in_child(lambda: sys.exit(3)))
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(square, [1, 2, 3]))
        print(await asend(client))
asyncio.run(main())
""",
    )
    assert lines[0] == "NOT_FOUND"
    assert lines[1:41] == ["1"] * 40
    assert lines[41].startswith(USED)
    assert lines[42].startswith(TORN)
    assert lines[43:] == ["SystemExit: 3", "[1, 4, 9]", "sent"]


def test_a_child_that_exits_as_programs_do_ends(tmp_path: Path, executor: ExecutorProcess) -> None:
    lines = said(
        tmp_path,
        executor,
        """
client = stepwire.SyncClient(AT)
print(send(client), flush=True)
pid = os.fork()
if pid == 0:
    sys.exit(4)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(send(client))
""",
    )
    assert lines == ["sent", "4", "sent"]


def test_importing_stepwire_leaves_grpc_as_the_program_has_it(tmp_path: Path, executor: ExecutorProcess) -> None:
    lines = said(
        tmp_path,
        executor,
        """
before = dict(os.environ)
stepwire.Client(AT), stepwire.SyncClient(AT), stepwire.App("a")
print("grpc" in sys.modules, os.environ == before)
import grpc
settled = time.monotonic() + 5

def plain():
    with grpc.insecure_channel(AT, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary("/stepwire.v1.EventService/SendEvents")
        try:
            call(b"", timeout=5)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

answer = plain()
while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < settled:
    time.sleep(0.1)  # gRPC leaves a child without its care if a thread of its own is at work as it is forked
print(answer == in_child(plain))
client = stepwire.SyncClient(AT)
print(send(client), os.environ == before)
""",
    )
    assert lines == ["False True", "True", "sent True"]
