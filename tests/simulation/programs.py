"""Functions to simulate: random trees of everything that a body can do, interpreted by one app, and a fixed corpus.

A program is JSON, a list whose first item says what it is; it travels as the data of the event that starts its run. So
it can be printed, shrunk, and invoked by another one. `expected` says what its run must give.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import stepwire
from stepwire import Context, Retry, Step, StepError, SyncStep
from tests.sdk_python.replay import constructs
from tests.simulation.machine import Process

Program = list[Any]
ANY = "any"
"""Expected of a run that may end in several ways."""
FAILED = "failed"
A_MONTH = 30 * 86_400.0
"""How long waits for events take at the most: a clock that is set over a restart of the executor does not end them."""
PATIENT = Retry(50, 0.02, 0.2)
"""Retries more often than any fault lasts: losses of workers count."""

BRITTLE_TRIES = 3
"""Tries at a body that lacks something in one worker, until that has it."""
ODD: dict[str, type[BaseException]] = {
    each.__name__: each for each in (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
}
"""What bodies raise that is no Exception."""

entered: Counter[str] = Counter()
"""How often the body of a run was entered, by its id."""

app = stepwire.App("sim")


async def work(value: str, fails: int, fatal: bool, seconds: float) -> str:
    """Code of an async step."""
    if seconds:
        await asyncio.sleep(seconds)
    return outcome(value, fails, fatal)


async def work_stubbornly(value: str, seconds: float) -> str:
    """Code of a step that does not let itself be cancelled at once."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(0.2)
    return value


def work_in_thread(value: str, fails: int, fatal: bool, seconds: float) -> str:
    """Code of a sync step."""
    return outcome(value, fails, fatal)


def outcome(value: str, fails: int, fatal: bool) -> str:
    if fatal:
        raise stepwire.NonRetriableError(value)
    if stepwire.current_attempt().number <= fails:
        raise ConnectionError(value)
    return value


@app.task("work")
async def work_task(order: list[Any]) -> str:
    """Code of a task."""
    return await work(*order)


@app.function("program", trigger="sim/program", retries=PATIENT)
async def program(ctx: Context, step: Step) -> Any:
    """Run a program."""
    entered[ctx.run_id] += 1
    return await interpret(ctx, step, ctx.event.data)


@app.function("program-sync", trigger="sim/program-sync", retries=PATIENT)
def program_sync(ctx: Context, step: SyncStep) -> Any:
    """Run a program of a sync function."""
    return interpret_sync(ctx, step, ctx.event.data)


@app.function("impatient", retries=PATIENT, timeout=1.5)
async def impatient(ctx: Context, step: Step) -> Any:
    """Run a program that may take too long."""
    return await interpret(ctx, step, ctx.event.data)


@app.function("listener", trigger="sim/heard", retries=PATIENT)
async def listener(ctx: Context, step: Step) -> Any:
    """Be started by an event that another run sends."""
    return await step.run("hear", work, str(ctx.event.data), 0, False, 0.0)


async def interpret(ctx: Context, step: Step, node: Program) -> Any:
    """Do what a node of a program says."""
    match node:
        case ["run", id_, fails, fatal, seconds]:
            return await step.run(id_, work, id_, fails, fatal, seconds)
        case ["once", id_, seconds]:
            with contextlib.suppress(StepError):  # it may be lost with its worker
                await step.run(id_, work, id_, 0, False, seconds, retries=0)
            return id_
        case ["sync", id_, fails, fatal]:
            return await step.run(id_, work_in_thread, id_, fails, fatal, 0.0)
        case ["task", id_, fails, fatal, seconds]:
            return await step.call("work", [id_, fails, fatal, seconds], id=id_, retries=PATIENT)
        case ["stubborn", id_, seconds]:
            return await step.run(id_, work_stubbornly, id_, seconds)
        case ["limited", id_, seconds, timeout]:
            return await step.run(id_, work, id_, 0, False, seconds, timeout=timeout)
        case ["sleep", id_, seconds]:
            await step.sleep(id_, seconds)
            return "slept"
        case ["timer", seconds]:
            await asyncio.sleep(seconds)
            return "slept"
        case ["seq", *nodes]:
            return [await interpret(ctx, step, each) for each in nodes]
        case ["gather", *nodes]:
            return await asyncio.gather(*[interpret(ctx, step, each) for each in nodes])
        case ["group", *nodes]:
            failed: list[Exception] = []
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(interpret(ctx, step, each)) for each in nodes]
            except* StepError as errors:
                failed.extend(errors.exceptions)
            if failed:  # raised here: inside of `except*` some Pythons put it into another group
                raise failed[0]
            return [task.result() for task in tasks]
        case ["parallel", *nodes]:
            return await step.parallel(*[lambda each=each: interpret(ctx, step, each) for each in nodes])
        case ["completed", *nodes]:
            got = [await each for each in asyncio.as_completed([interpret(ctx, step, each) for each in nodes])]
            return sorted(map(str, got))
        case ["race", *nodes]:
            tasks = [asyncio.create_task(interpret(ctx, step, each)) for each in nodes]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            return [str(task.exception() or task.result()) for task in done]
        case ["times", count, child]:
            return [await interpret(ctx, step, child) for _ in range(count)]
        case ["within", seconds, child]:
            try:
                async with asyncio.timeout(seconds):
                    return await interpret(ctx, step, child)
            except TimeoutError:
                return "too late"
        case ["try", child]:
            try:
                return await interpret(ctx, step, child)
            except StepError:
                return "caught"
        case ["invoke", id_, function, child]:
            return await step.invoke(id_, function, child)
        case ["send", id_, data]:
            await step.send_events(id_, [("sim/heard", data)])
            return "sent"
        case ["exchange", id_, data, timeout]:
            waiting = asyncio.create_task(
                step.wait_for_event(f"{id_}-wait", "sim/heard", match={"n": data}, timeout=timeout)
            )
            await step.send_events(f"{id_}-send", [("sim/heard", {"n": data})])
            heard = await waiting
            return "nothing" if heard is None else heard.data["n"]
        case ["queue", id_, key, count]:
            return await queue(step, id_, key, count)
        case ["crowd", id_, key, *wanted]:
            return await crowd(step, id_, f"sim/crowd-{key}", wanted)
        case ["clumsy", tries]:
            if ctx.attempt <= tries:
                raise ConnectionError(f"body, try {ctx.attempt}")
            return ctx.attempt > tries
        case ["brittle", worker]:
            return lacks_nothing(ctx, worker)
        case ["odd", tries, kind]:
            if ctx.attempt <= tries:
                raise ODD[kind](f"body, try {ctx.attempt}")
            return True
        case ["swallows", child]:
            while True:
                try:
                    return await interpret(ctx, step, child)
                except (Exception, asyncio.CancelledError):
                    raise
                except BaseException:  # as GeneratorExit is: this body does not let itself be ended
                    await step.sleep("swallowed", 1)
        case ["polls", id_]:
            task = asyncio.create_task(step.run(id_, work, id_, 0, False, 0.0))
            while not task.done():  # noqa: ASYNC110 - this is the point
                await asyncio.sleep(0)
            return task.result()
    raise AssertionError(node)


async def queue(step: Step, id_: str, key: int, count: int) -> list[int | None]:
    """Wait for events in a loop, while they are sent one by one."""

    async def send() -> None:
        for n in range(count):
            await step.send_events(f"{id_}-send", [("sim/queue", {"key": key, "n": n})])

    sending = asyncio.create_task(send())
    got = []
    for _ in range(count):
        event = await step.wait_for_event(f"{id_}-wait", "sim/queue", match={"key": key}, timeout=A_MONTH)
        got.append(event and event.data["n"])
    await sending
    return got


async def crowd(step: Step, id_: str, name: str, wanted: list[int | None]) -> list[int | None]:
    """Wait for events side by side, for one with a number, or for any, while they are sent one by one."""
    waits = [
        asyncio.create_task(
            step.wait_for_event(f"{id_}-wait", name, match={} if each is None else {"n": each}, timeout=A_MONTH)
        )
        for each in wanted
    ]
    for n in range(len(wanted)):
        await step.send_events(f"{id_}-send", [(name, {"n": n})])
    return [event and event.data["n"] for event in await asyncio.gather(*waits)]


def interpret_sync(ctx: Context, step: SyncStep, node: Program) -> Any:
    """Do what a node of a program says, in a sync function."""
    match node:
        case ["run", id_, fails, fatal, seconds]:
            return step.run(id_, work, id_, fails, fatal, seconds)
        case ["sync", id_, fails, fatal]:
            return step.run(id_, work_in_thread, id_, fails, fatal, 0.0)
        case ["sleep", id_, seconds]:
            step.sleep(id_, seconds)
            return "slept"
        case ["seq", *nodes]:
            return [interpret_sync(ctx, step, each) for each in nodes]
        case ["parallel", *nodes]:
            return step.parallel(*[lambda each=each: interpret_sync(ctx, step, each) for each in nodes])
        case ["try", child]:
            try:
                return interpret_sync(ctx, step, child)
            except StepError:
                return "caught"
        case ["clumsy", tries]:
            if ctx.attempt <= tries:
                raise ConnectionError(f"body, try {ctx.attempt}")
            return ctx.attempt > tries
        case ["brittle", worker]:
            return lacks_nothing(ctx, worker)
        case ["odd", tries, kind]:
            if ctx.attempt <= tries:
                raise ODD[kind](f"body, try {ctx.attempt}")
            return True
    raise AssertionError(node)


def lacks_nothing(ctx: Context, worker: int) -> bool:
    """Raise where something is missing that the body needs: in one worker, for some tries."""
    if ctx.attempt <= BRITTLE_TRIES and Process.moving.startswith(f"worker-{worker}-"):
        raise LookupError(f"not in {Process.moving}")
    return True


SYNC = {"run", "sync", "sleep", "seq", "parallel", "try", "clumsy", "odd"}


class Fails(Exception):  # noqa: N818
    """The expected outcome is a failure."""


def expected(node: Program) -> Any:
    """Say what a program gives, ANY if that depends on time; raises Fails."""
    match node:
        case ["run", id_, _, fatal, _] | ["sync", id_, _, fatal] | ["task", id_, _, fatal, _]:
            if fatal:
                raise Fails
            return id_
        case ["sleep", _, _] | ["timer", _]:
            return "slept"
        case ["seq" | "gather" | "group" | "parallel", *nodes]:
            values = [expected(each) for each in nodes]
            return ANY if ANY in values else values
        case ["completed", *nodes]:
            values = [expected(each) for each in nodes]
            return ANY if ANY in values else sorted(map(str, values))
        case ["times", count, child]:
            value = expected(child)
            return ANY if value == ANY else [value] * count
        case ["try", child]:
            try:
                return expected(child)
            except Fails:
                return "caught"
        case ["stubborn" | "once", id_, _]:
            return id_
        case ["invoke", _, _, child]:
            return expected(child)
        case ["send", _, _]:
            return "sent"
        case ["clumsy", _] | ["brittle", _] | ["odd", _, _]:
            return True
        case ["swallows", child]:
            return expected(child)
        case ["polls", _]:
            raise Fails
        case ["race" | "within", *nodes]:
            for each in nodes:
                if isinstance(each, list):
                    possible(each)
            return ANY
        case ["exchange", _, data, _]:
            return data
        case ["queue", _, _, count]:
            return list(range(count))
        case ["crowd", _, _, *wanted]:
            others = iter(sorted(set(range(len(wanted))) - set(wanted)))
            return [next(others) if each is None else each for each in wanted]
        case ["limited", *_]:
            return ANY
    raise AssertionError(node)


def possible(node: Program) -> None:
    """A child whose failure may or may not show: anything goes then."""
    try:
        expected(node)
    except Fails:
        return


def outcome_of(node: Program) -> Any:
    """Say how a run of a program must end: its output, FAILED, or ANY."""
    if uncertain(node):
        return ANY
    try:
        return expected(node)
    except Fails:
        return FAILED


def uncertain(node: Program) -> bool:
    """Whether what a program gives depends on time."""
    if node[0] in ("race", "within", "limited") or (node[0] == "invoke" and node[2] == "impatient"):
        return True
    return any(uncertain(each) for each in node[1:] if isinstance(each, list) and each and isinstance(each[0], str))


class Generator:
    """Draws programs. `dice` is a Random; hypothesis has one that it can shrink."""

    def __init__(self, dice: random.Random, size: int) -> None:
        self.dice = dice
        self.left = size
        """How many leaves may still be drawn."""
        self._names = 0

    def program(self, depth: int = 0, kinds: Callable[[str], bool] = lambda kind: True) -> Program:
        """Draw a program."""
        dice = self.dice
        self.left -= 1
        inner = ["seq", "gather", "group", "parallel", "completed", "race", "times", "within", "try", "invoke"]
        inner += ["swallows"] if dice.random() < 0.3 else []
        leaves = [
            "run",
            "run",
            "run",
            "sync",
            "task",
            "stubborn",
            "sleep",
            "timer",
            "limited",
            "send",
            "exchange",
            "clumsy",
            "odd",
        ]
        choices = leaves if depth > 3 or self.left <= 0 else inner + inner + leaves
        if depth == 0:
            choices = inner
        kind = dice.choice([each for each in choices if kinds(each)])
        node = self._node(kind, depth, kinds)
        if depth == 0 and dice.random() < 0.02:  # last, where nothing can catch or cut off what comes of it
            return ["seq", node, ["polls", self._name()]]
        return node

    def row(self) -> Program:
        """Draw invoked runs, or waits, of which each is planned when the one before has ended."""
        dice = self.dice
        call = ["invoke", "call", "program", ["seq", ["run", "a", 0, False, 0.0]]]
        return ["times", dice.randint(6, 12), dice.choice([call, ["exchange", "x", dice.randint(0, 10**9), A_MONTH]])]

    def sync_program(self) -> Program:
        """Draw a program for a sync function."""
        return ["seq", *[self.program(2, SYNC.__contains__) for _ in range(self.dice.randint(1, 3))]]

    def _node(self, kind: str, depth: int, kinds: Callable[[str], bool]) -> Program:
        dice = self.dice
        match kind:
            case "run" | "task":
                node = [kind, self._name(), *self._trouble(), dice.choice([0.0, 0.0, 0.01, 0.05, 2.0, 6.0])]
                at_most_once = kind == "run" and kinds("once") and node[2:4] == [0, False] and self._names % 3 == 0
                return ["once", node[1], node[4]] if at_most_once else node
            case "sync":
                return [kind, self._name(), *self._trouble()]
            case "stubborn":
                return [kind, self._name(), dice.choice([0.0, 0.05, 1.0])]
            case "limited":
                return [kind, self._name(), dice.choice([0.01, 1.0]), dice.choice([0.05, 5.0])]
            case "sleep":
                return [kind, self._name(), dice.choice([0.01, 1.0, 40.0])]
            case "timer":
                return [kind, dice.choice([0.01, 1.0, 40.0])]
            case "send":
                return [kind, self._name(), dice.randint(0, 3)]
            case "exchange":
                return [kind, self._name(), dice.randint(0, 10**9), A_MONTH]
            case "clumsy":
                return [kind, dice.randint(0, 2)]
            case "odd":
                return [kind, dice.randint(0, 2), dice.choice(list(ODD))]
            case "swallows":
                return [kind, self.program(depth + 1, lambda each: each not in ("odd", "invoke") and kinds(each))]
            case "times":
                return [kind, dice.randint(1, 3), self.program(depth + 1, kinds)]
            case "within":
                return [kind, dice.choice([0.02, 1.0, 30.0]), self.program(depth + 1, kinds)]
            case "try":
                return [kind, self.program(depth + 1, kinds)]
            case "invoke":
                if dice.random() < 0.2:
                    return [kind, self._name(), "program-sync", self.sync_program()]
                return [
                    kind,
                    self._name(),
                    dice.choice(["program", "program", "impatient"]),
                    self.program(depth + 2, kinds),
                ]
        if kind == "race":  # a body that fails must end its run's attempt: its next one is to find the same steps
            kinds = lambda each, allowed=kinds: each not in ("clumsy", "odd") and allowed(each)  # noqa: E731
        return [kind, *[self.program(depth + 1, kinds) for _ in range(dice.randint(1, 4))]]

    def _trouble(self) -> tuple[int, bool]:
        dice = self.dice
        return (dice.randint(1, 3) if dice.random() < 0.2 else 0), dice.random() < 0.05

    def _name(self) -> str:
        self._names += self.dice.random() < 0.8
        return f"s{self._names}"


def starting_program(dice: random.Random) -> Program:
    """Draw a program that starts runs, several at a time, and gives some of them up."""
    nodes: list[Program] = []
    for at in range(dice.randint(2, 5)):
        invoke = ["invoke", f"call-{at}", "program", ["run", "inside", 0, False, dice.choice([0.0, 0.2])]]
        started = dice.choice([invoke, ["send", f"tell-{at}", at], ["exchange", f"talk-{at}", dice.random(), 60.0]])
        if dice.random() < 0.3:
            started = ["race", started, ["sleep", f"nap-{at}", dice.choice([0.01, 0.3, 2.0])]]
        nodes.append(started)
    return [dice.choice(["gather", "seq", "parallel"]), *nodes]


def waiting_program(dice: random.Random) -> Program:
    """Draw a program whose waits compete for events: in loops and side by side, with fields and without."""

    def leaf() -> Program:
        key, count = dice.randint(0, 10**9), dice.randint(1, 8)
        if dice.random() < 0.5:
            return ["queue", f"q{key}", key, count]
        chosen = dice.sample(range(count), dice.randint(0, count))
        return ["crowd", f"c{key}", key, *chosen, *[None] * (count - len(chosen))]

    def node() -> Program:
        match dice.choice(["leaf", "leaf", "times", "rest", "within"]):
            case "times":
                return ["times", 2, leaf()]
            case "rest":
                return ["seq", ["sleep", f"s{dice.randint(0, 10**9)}", dice.choice([0.01, 1.0, 30.0])], leaf()]
            case "within":
                return ["within", dice.choice([0.02, 1.0, 30.0]), leaf()]
        return leaf()

    return [dice.choice(["seq", "gather", "group"]), *[node() for _ in range(dice.randint(1, 3))]]


def simpler(node: Program) -> Sequence[Program]:
    """Give programs that are a little simpler, for shrinking."""
    found: list[Program] = []
    children = [
        at for at, each in enumerate(node) if at and isinstance(each, list) and each and isinstance(each[0], str)
    ]
    for at in children:
        found.append(node[at])
        if len(children) > 1 and node[0] not in ("within", "times", "invoke"):
            found.append(node[:at] + node[at + 1 :])
        found += [[*node[:at], each, *node[at + 1 :]] for each in simpler(node[at])]
    if node[0] in ("run", "task") and node[2:] != [0, False, 0.0]:
        found.append([node[0], node[1], 0, False, 0.0])
    return found


def corpus() -> dict[str, stepwire.App]:
    """Give an app for each construct that the replay engine is tested with, by the name of its event."""
    apps = {}
    for body in constructs.TABLE:
        if body.__name__ != "steps_of_every_kind":
            event = f"corpus/{body.__name__}"
            apps[event] = stepwire.App("sim")
            apps[event].function(body.__name__, trigger=event, retries=PATIENT)(body)
    return apps


CORPUS = corpus()


def app_for(events: Iterable[str]) -> stepwire.App:
    """Give the app with the interpreter and those of the corpus that have these events."""
    wanted = [CORPUS[event] for event in events if event in CORPUS]
    if not wanted:
        return app
    whole = stepwire.App("sim")
    whole.tasks = app.tasks
    whole.functions = dict(app.functions)
    for each in wanted:
        whole.functions.update(each.functions)
    return whole
