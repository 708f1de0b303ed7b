"""Apps: what a worker serves, as it is declared with decorators."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from stepwire import arguments
from stepwire.durations import LONGEST_SECONDS, as_float, seconds
from stepwire.errors import RegistrationError
from stepwire.replay.model import Retry
from stepwire.signatures import is_async, parameter_type, return_type

if TYPE_CHECKING:
    from stepwire.values import Codec

Body = TypeVar("Body", bound=Callable[..., Any])
LONGEST_ID_BYTES = 256
LONGEST_NAME_BYTES = 128
MOST_RETRIES = 100


class FromBody:
    """A field of a declaration that, unless it is given, is read from the body's annotations when it is first needed.

    Not before that: an annotation may name a class that stands further down in the module.
    """

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, declared: Any, owner: type | None = None) -> Any:
        if declared is None:
            return None
        given = declared.__dict__[self._name]
        return self._read(declared) if given is None else given

    def __set__(self, declared: Any, value: Any) -> None:
        declared.__dict__[self._name] = value


def _return_type(declared: Any) -> Any:
    return return_type(declared.body)


def _first_parameter_type(declared: Any) -> Any:
    if not declared.takes_input:
        return None
    return parameter_type(declared.body, next(iter(inspect.signature(declared.body).parameters)))


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """Starts a function with every event of a name."""

    event_name: str


def on_event(name: str) -> EventTrigger:
    """Trigger a function by every event with this name."""
    return EventTrigger(name)


@dataclass(frozen=True)
class Function:
    """A declared function. `run_timeout` is in seconds; `output_type` is what the body says it returns, or None."""

    id: str
    body: Callable[..., Any]
    triggers: tuple[EventTrigger, ...] = ()
    retry: Retry | None = None
    run_timeout: float | None = None
    is_async: bool = True
    output_type: FromBody = FromBody(_return_type)


@dataclass(frozen=True)
class TaskDefinition:
    """A declared task. The types are what the body says, None if nothing."""

    name: str
    body: Callable[..., Any]
    is_async: bool
    takes_input: bool
    input_type: FromBody = FromBody(_first_parameter_type)
    output_type: FromBody = FromBody(_return_type)


class App:
    """A named set of functions and tasks.

    `version` tells code apart whose steps differ: runs prefer workers of the version that began them. `codec` is
    applied to every value that leaves or enters the process. Raises RegistrationError for a name that is not allowed.
    """

    def __init__(self, name: str, *, version: str = "", codec: Codec | None = None) -> None:
        _check_id("an app's name", name, LONGEST_NAME_BYTES)
        _check_part("an app's name", name)
        if version != "":
            _check_id("an app's version", version, LONGEST_NAME_BYTES)
        arguments.check_codec(codec, RegistrationError)
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

        `trigger` is `on_event(name)`, an event's name, or several; without one it can only be invoked. `retries` of its
        body, and of its steps that say nothing themselves (default 4). `timeout` of a run, in seconds or as a
        timedelta. Raises RegistrationError.
        """
        _check_id("a function's id", id)
        _check_part("a function's id", id)
        what = f"function {id!r}"
        triggers = _triggers(what, trigger)
        retry = as_retry(retries, what)
        run_timeout = None if timeout is None else seconds(timeout, f"the timeout of {what}", RegistrationError)
        if run_timeout == 0:
            raise RegistrationError(f"the timeout of {what} is 0 s: give it more, or leave it out for no limit")

        def declare(body: Body) -> Body:
            if id in self.functions:
                raise RegistrationError(f"app {self.name!r} has two functions with the id {id!r}: choose another id")
            _check_body(body, what, (2, 2), "ctx and step")
            self.functions[id] = Function(id, body, triggers, retry, run_timeout, is_async(body))
            with contextlib.suppress(TypeError):  # an object that can't be referred to weakly is invoked by its id
                _declared[body] = f"{self.name}/{id}"
            return body

        return declare

    def task(self, name: str) -> Callable[[Body], Body]:
        """Declare a task: code that functions call by its name, with one value or none. Raises RegistrationError."""
        _check_id("a task's name", name)
        what = f"task {name!r}"

        def declare(body: Body) -> Body:
            if name in self.tasks:
                raise RegistrationError(f"app {self.name!r} has two tasks named {name!r}: choose another name")
            takes_input = _check_body(body, what, (0, 1), "no argument or one, its input")
            self.tasks[name] = TaskDefinition(name, body, is_async(body), takes_input)
            return body

        return declare


_declared: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()


def declared_as(body: Callable[..., Any]) -> str | None:
    """Give "app/id" of the function that a body was declared as last; None if it was not."""
    try:
        return _declared.get(body)
    except TypeError:  # nothing that can be declared
        return None


def as_retry(retries: int | Retry | None, what: str, error: type[Exception] = RegistrationError) -> Retry | None:
    """Make a policy of what users write; raises `error` if it is out of range."""
    if retries is None:
        return None
    retry = retries if isinstance(retries, Retry) else Retry(retries)
    if isinstance(retry.retries, bool) or not isinstance(retry.retries, int):
        raise error(
            f"{what}: retries is {retry.retries!r}, but must be a number from 0 to {MOST_RETRIES} or a stepwire.Retry"
        )
    if not 0 <= retry.retries <= MOST_RETRIES:
        raise error(f"{what}: retries is {retry.retries}, but must be from 0 to {MOST_RETRIES} (--max-retries)")
    values = (retry.initial_interval, retry.maximum_interval, retry.multiplier)
    named = f"{what}: the initial_interval, maximum_interval and multiplier of its retries"
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
        raise error(f"{named} are {values!r}, but must be numbers")
    initial, maximum, multiplier = map(as_float, values)
    if not (0 <= initial <= LONGEST_SECONDS and 0 <= maximum <= LONGEST_SECONDS and 1 <= multiplier < math.inf):
        longest = f"{LONGEST_SECONDS:g} s (--max-sleep)"
        raise error(f"{what}: {retry} must have intervals from 0 s to {longest}, and a multiplier of 1 or more")
    return retry


def _triggers(what: str, trigger: EventTrigger | str | Iterable[EventTrigger | str] | None) -> tuple[EventTrigger, ...]:
    if trigger is None:
        return ()
    several = (trigger,) if isinstance(trigger, EventTrigger | str) else trigger
    if not isinstance(several, Iterable):
        raise RegistrationError(f"{what}: {trigger!r} is no trigger: use stepwire.on_event(name)")
    triggers = tuple(EventTrigger(each) if isinstance(each, str) else each for each in several)
    for each in triggers:
        if not isinstance(each, EventTrigger):
            raise RegistrationError(f"{what}: {each!r} is no trigger: use stepwire.on_event(name)")
        _check_id(f"the event name that triggers {what}", each.event_name)
    return triggers


def _check_id(what: str, value: object, longest: int = LONGEST_ID_BYTES) -> None:
    size = len(arguments.text(value, what, RegistrationError).encode())
    if size > longest:
        raise RegistrationError(f"{what} has {size} bytes, but at most {longest} are allowed: choose a shorter one")


def _check_part(what: str, name: str) -> None:
    """Refuse what could not be told apart in "app/function"."""
    if "/" in name:
        raise RegistrationError(f"{what} is {name!r}, but '/' separates the app from the id: choose another")


def _check_body(body: Any, what: str, count: tuple[int, int], meaning: str) -> bool:
    """Check that a body can be called with so many values; gives whether it takes any."""
    if not callable(body) or inspect.isclass(body):
        raise RegistrationError(f"{what}: {body!r} is no function: put the decorator on one")
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise RegistrationError(f"{what} is a generator: return values instead of yielding them")
    try:
        signature = inspect.signature(body)
    except (TypeError, ValueError):
        raise RegistrationError(f"{what}: {body!r} does not say what it takes: wrap it in a def") from None
    parameters = list(signature.parameters.values())
    fixed = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    needed = [each for each in fixed if each.default is each.empty]
    named = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    takes_any_number = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    least, most = count
    if named or len(needed) > most or (len(fixed) < least and not takes_any_number):
        raise RegistrationError(f"{what} must take {meaning}, but it takes {signature}")
    return bool(fixed)
