"""Apps: what a worker serves, as it is declared with decorators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, get_type_hints
from weakref import WeakKeyDictionary

from stepwire.durations import seconds
from stepwire.errors import RegistrationError
from stepwire.replay.model import Retry
from stepwire.values import Codec, return_type

Body = TypeVar("Body", bound=Callable[..., Any])
LONGEST_ID = 256
MOST_RETRIES = 100


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """Starts a function with every event of a name."""

    event_name: str


def on_event(name: str) -> EventTrigger:
    """Trigger a function by every event with this name."""
    return EventTrigger(name)


@dataclass(frozen=True, slots=True)
class Function:
    """A declared function. `run_timeout` is in seconds."""

    id: str
    body: Callable[..., Any]
    triggers: tuple[EventTrigger, ...] = ()
    retry: Retry | None = None
    run_timeout: float | None = None
    is_async: bool = True
    output_type: Any = None


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """A declared task."""

    name: str
    body: Callable[..., Any]
    is_async: bool
    input_type: Any
    output_type: Any
    takes_input: bool


class App:
    """A named set of functions and tasks.

    `version` tells code apart whose steps differ: runs prefer workers of the version that began them. `codec` is applied to
    every value that leaves or enters the process.
    """

    def __init__(self, name: str, *, version: str = "", codec: Codec | None = None) -> None:
        _check_id("an app's name", name)
        self.name = name
        self.version = version
        self.codec = codec
        self.functions: dict[str, Function] = {}
        self.tasks: dict[str, TaskDefinition] = {}

    def function(
        self,
        id: str,
        *,
        trigger: EventTrigger | str | Sequence[EventTrigger | str] | None = None,
        retries: int | Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Callable[[Body], Body]:
        """Declare a function; the decorated body stays as it is.

        `trigger` is `on_event(name)`, an event's name, or several; without one it can only be invoked. `retries` of its body, and
        of its steps that say nothing themselves (default 4). `timeout` of a run, in seconds or as a timedelta.
        Raises RegistrationError.
        """
        _check_id("a function's id", id)
        if "/" in id:
            raise RegistrationError(f"a function's id is {id!r}, but '/' separates the app from the id: choose another")
        if id in self.functions:
            raise RegistrationError(f"app {self.name!r} has two functions with the id {id!r}: give one another id")
        triggers = _triggers(id, trigger)
        retry = as_retry(retries, f"function {id!r}")
        run_timeout = (
            None if timeout is None else seconds(timeout, f"the timeout of function {id!r}", RegistrationError)
        )

        def declare(body: Body) -> Body:
            _check_body(body, f"function {id!r}", 2, "ctx and step")
            self.functions[id] = Function(
                id, body, triggers, retry, run_timeout, inspect.iscoroutinefunction(body), return_type(body)
            )
            _declared[body] = f"{self.name}/{id}"
            return body

        return declare

    def task(self, name: str) -> Callable[[Body], Body]:
        """Declare a task: code that functions call by its name, with one value or none. Raises RegistrationError."""
        _check_id("a task's name", name)
        if name in self.tasks:
            raise RegistrationError(f"app {self.name!r} has two tasks named {name!r}: give one another name")

        def declare(body: Body) -> Body:
            parameters = _check_body(body, f"task {name!r}", (0, 1), "no argument or one, its input")
            self.tasks[name] = TaskDefinition(
                name,
                body,
                inspect.iscoroutinefunction(body),
                _input_type(body, parameters),
                return_type(body),
                bool(parameters),
            )
            return body

        return declare


_declared: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()


def declared_as(body: Callable[..., Any]) -> str | None:
    """Give "app/id" of the function that a body was declared as last; None if it was not."""
    return _declared.get(body)


def as_retry(retries: int | Retry | None, what: str, error: type[Exception] = RegistrationError) -> Retry | None:
    """Make a policy of what users write; raises `error` if it is out of range."""
    if retries is None:
        return None
    retry = retries if isinstance(retries, Retry) else None
    if retry is None:
        if isinstance(retries, bool) or not isinstance(retries, int):
            raise error(
                f"{what}: retries is {retries!r}, but must be a number from 0 to {MOST_RETRIES} or a stepwire.Retry"
            )
        retry = Retry(retries)
    if not 0 <= retry.retries <= MOST_RETRIES:
        raise error(f"{what}: retries is {retry.retries}, but must be from 0 to {MOST_RETRIES} (--max-retries)")
    if not (retry.initial_interval >= 0 and retry.maximum_interval >= 0 and retry.multiplier >= 1):
        raise error(f"{what}: {retry} must have intervals of 0 s or more and a multiplier of 1 or more")
    return retry


def _triggers(
    function_id: str, trigger: EventTrigger | str | Sequence[EventTrigger | str] | None
) -> tuple[EventTrigger, ...]:
    if trigger is None:
        return ()
    several = [trigger] if isinstance(trigger, EventTrigger | str) else list(trigger)
    triggers = tuple(EventTrigger(each) if isinstance(each, str) else each for each in several)
    for each in triggers:
        if not isinstance(each, EventTrigger):
            raise RegistrationError(f"function {function_id!r}: {each!r} is no trigger: use stepwire.on_event(name)")
        _check_id(f"the event name that triggers {function_id!r}", each.event_name)
    return triggers


def _check_id(what: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise RegistrationError(f"{what} is {value!r}, but must be a text that is not empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise RegistrationError(f"{what} is {value!r}, which is not valid Unicode: it holds a lone surrogate") from None
    if size > LONGEST_ID:
        raise RegistrationError(f"{what} has {size} bytes, but at most {LONGEST_ID} are allowed: choose a shorter one")


def _check_body(body: Any, what: str, count: int | tuple[int, int], meaning: str) -> list[inspect.Parameter]:
    """Check that a body can be called with so many values; gives its positional parameters."""
    if not callable(body) or inspect.isclass(body):
        raise RegistrationError(f"{what}: {body!r} is no function: put the decorator on one")
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise RegistrationError(f"{what} is a generator: return values instead of yielding them")
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(body).parameters.values())
    fixed = [each for each in parameters if each.kind in positional]
    needed = [each for each in fixed if each.default is inspect.Parameter.empty]
    open_ended = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
    named = [
        each.name
        for each in parameters
        if each.kind is inspect.Parameter.KEYWORD_ONLY and each.default is inspect.Parameter.empty
    ]
    least, most = (count, count) if isinstance(count, int) else count
    if named or len(needed) > most or (len(fixed) < least and not open_ended):
        raise RegistrationError(f"{what} must take {meaning}, but it takes {inspect.signature(body)}")
    return fixed


def _input_type(body: Callable[..., Any], parameters: list[inspect.Parameter]) -> Any | None:
    if not parameters:
        return None
    try:
        annotation = get_type_hints(body, include_extras=True).get(parameters[0].name, Any)
    except (NameError, TypeError):
        return None
    return None if annotation is Any else annotation
