"""Declaring apps: what they hold, and what they refuse."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import stepwire
from stepwire.app import App, EventTrigger, as_retry, declared_as, on_event
from stepwire.errors import InvalidStepError, RegistrationError
from stepwire.replay.model import Retry


@pytest.fixture
def app() -> App:
    return App("shop", version="2")


def test_a_function_is_held_with_its_options(app: App) -> None:
    @app.function(
        "ship", trigger=on_event("order/paid"), retries=Retry(2, initial_interval=0.5), timeout=timedelta(hours=1)
    )
    async def ship(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, int]:
        return {}

    function = app.functions["ship"]
    assert (function.id, function.body, function.is_async) == ("ship", ship, True)
    assert function.triggers == (EventTrigger("order/paid"),)
    assert function.retry == Retry(2, initial_interval=0.5)
    assert function.run_timeout == 3600.0
    assert function.output_type == dict[str, int]
    assert declared_as(ship) == "shop/ship"
    assert (app.name, app.version, app.codec) == ("shop", "2", None)


def test_the_decorated_body_stays_as_it_is(app: App) -> None:
    def body(ctx: Any, step: Any) -> int:
        return 5

    assert app.function("f")(body) is body
    assert app.functions["f"].is_async is False
    assert app.task("t")(len) is len


@pytest.mark.parametrize(
    ("trigger", "names"),
    [
        (None, []),
        ("a/b", ["a/b"]),
        (on_event("a"), ["a"]),
        ([on_event("a"), "b"], ["a", "b"]),
        (("a",), ["a"]),
    ],
)
def test_triggers_are_names_or_on_event_one_or_several(app: App, trigger: Any, names: list[str]) -> None:
    app.function("f", trigger=trigger)(lambda ctx, step: None)
    assert [each.event_name for each in app.functions["f"].triggers] == names


def test_retries_are_a_number_or_a_policy(app: App) -> None:
    app.function("none")(lambda ctx, step: None)
    app.function("three", retries=3)(lambda ctx, step: None)
    assert app.functions["none"].retry is None
    assert app.functions["three"].retry == Retry(3)


def test_a_task_takes_its_input_or_nothing(app: App) -> None:
    @dataclass
    class Order:
        id: int

    @app.task("price")
    async def price(order: Order) -> float:
        return 1.0

    @app.task("ping")
    def ping() -> str:
        return "pong"

    assert (app.tasks["price"].takes_input, app.tasks["price"].is_async) == (True, True)
    assert app.tasks["price"].output_type is float
    assert app.tasks["price"].input_type is None, "a local class can't be found by its name"
    assert (app.tasks["ping"].takes_input, app.tasks["ping"].input_type) == (False, None)
    assert app.tasks["ping"].output_type is str


def test_annotations_may_name_what_stands_further_down() -> None:
    scope: dict[str, Any] = {"app": App("a")}
    exec(
        "from __future__ import annotations\n"
        "@app.function('f')\n"
        "def f(ctx, step) -> Later: ...\n"
        "@app.task('t')\n"
        "def t(x: Later) -> list[Later]: ...\n"
        "class Later: ...\n",
        scope,
    )
    app, later = scope["app"], scope["Later"]
    assert app.functions["f"].output_type is later
    assert app.tasks["t"].input_type is later
    assert app.tasks["t"].output_type == list[later]


def test_an_output_type_that_is_given_counts() -> None:
    assert stepwire.Function("f", lambda ctx, step: None, output_type=int).output_type is int


class Callables:
    def method(self, ctx: Any, step: Any) -> int:
        return 1

    async def __call__(self, ctx: Any, step: Any) -> int:
        return 1


def with_more(more: int, ctx: Any, step: Any) -> int:
    return more


@pytest.mark.parametrize(
    "body",
    [
        lambda ctx, step: None,
        lambda *args: None,
        lambda ctx, step, more=1, *, other=2: None,
        functools.partial(with_more, 1),
        Callables().method,
        Callables(),
    ],
)
def test_bodies_may_be_anything_that_takes_ctx_and_step(app: App, body: Callable[..., Any]) -> None:
    app.function("f")(body)
    assert app.functions["f"].body is body
    assert app.functions["f"].is_async is isinstance(body, Callables)


def generator(ctx: Any, step: Any) -> Iterator[int]:
    yield 1


async def async_generator(ctx: Any, step: Any) -> Any:
    yield 1


class Unreadable:
    __signature__ = "nonsense"

    def __call__(self, ctx: Any, step: Any) -> None: ...


REFUSED_BODIES: list[tuple[Any, str]] = [
    (generator, "is a generator: return values"),
    (async_generator, "is a generator: return values"),
    (5, "5 is no function"),
    (Callables, "is no function: put the decorator on one"),
    (lambda: None, r"must take ctx and step, but it takes \(\)"),
    (lambda ctx: None, r"must take ctx and step, but it takes \(ctx\)"),
    (lambda ctx, step, more: None, r"must take ctx and step, but it takes \(ctx, step, more\)"),
    (lambda ctx, step, *, more: None, "must take ctx and step"),
    (Unreadable(), "does not say what it takes: wrap it in a def"),
]


@pytest.mark.parametrize(
    ("body", "message"), REFUSED_BODIES, ids=[str(number) for number in range(len(REFUSED_BODIES))]
)
def test_a_body_that_can_t_be_called_is_refused(app: App, body: Any, message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        app.function("f")(body)
    assert not app.functions


@pytest.mark.parametrize("body", [lambda a, b: None, lambda *, a: None, generator])
def test_a_task_s_body_that_can_t_be_called_is_refused(app: App, body: Any) -> None:
    with pytest.raises(RegistrationError, match="task 't'"):
        app.task("t")(body)
    assert not app.tasks


REFUSED: list[tuple[Callable[[App], object], str]] = [
    (lambda app: App(""), "an app's name is '', but must be a text that is not empty"),
    (lambda app: App("a" * 129), "an app's name has 129 bytes, but at most 128"),
    (lambda app: App("a/b"), "an app's name is 'a/b', but '/' separates the app from the id: choose another"),
    (lambda app: App("/"), "'/' separates the app from the id"),
    (lambda app: app.function(""), "a function's id is ''"),
    (lambda app: app.function(5), "a function's id is 5"),  # type: ignore[arg-type]
    (lambda app: app.function("☃" * 86), "a function's id has 258 bytes, but at most 256 .* choose a shorter one"),
    (lambda app: app.function("\ud800"), "lone surrogate"),
    (lambda app: app.function("a/b"), "'/' separates the app from the id"),
    (lambda app: app.task(""), "a task's name is ''"),
    (lambda app: app.function("f", trigger=""), "the event name that triggers function 'f' is ''"),
    (lambda app: app.function("f", trigger=5), r"5 is no trigger: use stepwire.on_event\(name\)"),  # type: ignore[arg-type]
    (lambda app: app.function("f", trigger=[5]), "5 is no trigger"),  # type: ignore[list-item]
    (lambda app: app.function("f", retries=-1), "retries is -1, but must be from 0 to 100"),
    (lambda app: app.function("f", retries=101), "retries is 101, but must be from 0 to 100"),
    (lambda app: app.function("f", retries=True), "retries is True, but must be a number"),
    (lambda app: app.function("f", retries=1.5), "retries is 1.5, but must be a number"),  # type: ignore[arg-type]
    (lambda app: app.function("f", retries=Retry(1, initial_interval=-1)), "must have intervals"),
    (lambda app: app.function("f", retries=Retry(1, maximum_interval=float("inf"))), "must have intervals"),
    (lambda app: app.function("f", retries=Retry(1, multiplier=0.5)), "a multiplier of 1 or more"),
    (lambda app: app.function("f", retries=Retry(1, multiplier=float("nan"))), "a multiplier of 1 or more"),
    (lambda app: app.function("f", retries=Retry(1, initial_interval="1")), "initial_interval"),  # type: ignore[arg-type]
    (lambda app: app.function("f", retries=Retry(1, multiplier=True)), "must be numbers"),
    (lambda app: app.function("f", retries="3"), "retries is '3'"),  # type: ignore[arg-type]
    (lambda app: App("a", version=2), "an app's version is 2"),  # type: ignore[arg-type]
    (lambda app: app.function("f", timeout=10**400), "over the limit"),
    (lambda app: app.function("f", timeout=True), "must be a number of seconds"),
    (lambda app: app.function("f", timeout=0), "the timeout of function 'f' is 0 s"),
    (lambda app: app.function("f", timeout=-1), "must not be negative"),
    (lambda app: app.function("f", timeout="1h"), "must be a number of seconds or a timedelta"),  # type: ignore[arg-type]
    (lambda app: app.function("f", timeout=timedelta(days=400)), "over the limit"),
]


@pytest.mark.parametrize(("declare", "message"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_wrong_declarations_are_refused_with_a_remedy(app: App, declare: Callable[[App], object], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        declare(app)


def test_an_id_is_declared_once(app: App) -> None:
    declare = app.function("f")
    declare(lambda ctx, step: 1)
    with pytest.raises(RegistrationError, match="app 'shop' has two functions with the id 'f': choose another id"):
        declare(lambda ctx, step: 2)
    app.task("f")(lambda: 1)
    with pytest.raises(RegistrationError, match="two tasks named 'f'"):
        app.task("f")(lambda: 2)
    assert app.functions["f"].body(None, None) == 1


def test_a_step_s_policy_is_checked_in_the_same_way() -> None:
    with pytest.raises(InvalidStepError, match="step 's': retries is 101"):
        as_retry(101, "step 's'", InvalidStepError)
