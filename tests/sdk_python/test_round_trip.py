"""What was recorded comes back as it was, or is refused before it is recorded, by the field that would be lost."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import typing
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from stepwire.errors import EncodingError
from stepwire.values import Values

NOON = datetime(2030, 1, 31, 12)


class Charge(BaseModel):
    charge_id: str = Field(alias="chargeId")


class Note(BaseModel):
    text: str = Field("none", alias="Text")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str
    inner_one: Camel | None = None


class Paths(BaseModel):
    choice: int = Field(validation_alias=pydantic.AliasChoices("X", "Ex"))
    path: int = Field(validation_alias=pydantic.AliasPath("ys", 0))
    written: int = Field(serialization_alias="Zed")


class WrittenByAlias(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, extra="forbid")
    x: int = Field(serialization_alias="X")


class Swapped(BaseModel):
    a: int = Field(alias="b")
    b: int = Field(alias="a")


class Square(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side * self.side


class InJson(BaseModel):
    numbers: pydantic.Json[list[int]]
    anything: pydantic.Json[Any]


class Unending(BaseModel):
    number: Decimal = Field(allow_inf_nan=True)


class Ending(BaseModel):
    number: Decimal


class Login(BaseModel):
    user: str
    token: SecretStr


class OpenLogin(BaseModel):
    token: SecretStr

    @pydantic.field_serializer("token", when_used="json")
    def write(self, token: SecretStr) -> str:
        return token.get_secret_value()


class Hidden(BaseModel):
    a: int
    b: int = Field(exclude=True)


class HiddenWithDefault(BaseModel):
    a: int
    b: int = Field(3, exclude=True)


class Private(BaseModel):
    a: int
    _b: int = pydantic.PrivateAttr(default=0)


class Animal(BaseModel):
    name: str


class Dog(Animal):
    breed: str


class Owner(BaseModel):
    pet: Animal


class Cat(BaseModel):
    name: str


class Hen(BaseModel):
    name: str


class First(BaseModel):
    kind: Literal["first"] = "first"
    n: int


class Second(BaseModel):
    kind: Literal["second"] = "second"
    n: int


class Growing(BaseModel):
    n: int

    @pydantic.field_validator("n")
    def grow(cls, n: int) -> int:  # noqa: N805
        return n + 1


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    what: Any


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Status(enum.StrEnum):
    DONE = "done"


class Exact(typing.TypedDict):
    a: int


@dataclasses.dataclass
class Counted:
    a: int
    b: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Seeded:
    a: int
    seed: dataclasses.InitVar[int]


@dataclasses.dataclass
class Unequal:
    a: int
    b: int = dataclasses.field(default=0, compare=False, init=False)


@dataclasses.dataclass(slots=True, frozen=True, eq=False)
class Slotted:
    a: int
    when: datetime


def counted(b: int) -> Counted:
    it = Counted(1)
    it.b = b
    return it


def unequal(b: int) -> Unequal:
    it = Unequal(1)
    it.b = b
    return it


def private(b: int) -> Private:
    it = Private(a=1)
    it._b = b
    return it


KEPT: list[tuple[Any, Any]] = [
    (Charge(chargeId="c"), Charge),
    ([Charge(chargeId="c")], list[Charge]),
    (Note(Text="keep me"), Note),
    (Camel(firstName="a", innerOne=Camel(firstName="b")), Camel),
    (Paths(X=1, ys=[2], written=3), Paths),
    (WrittenByAlias(x=1), WrittenByAlias),
    (Swapped(a=1, b=2), Swapped),
    (Square(side=3), Square),
    ({"a": [Square(side=3)]}, dict[str, list[Square]]),
    (InJson(numbers="[1]", anything='{"a": 1}'), InJson),
    (Unending(number=Decimal("Infinity")), Unending),
    (Decimal("1E+5"), Decimal),
    (OpenLogin(token=SecretStr("s")), OpenLogin),
    (HiddenWithDefault(a=1, b=3), HiddenWithDefault),
    (private(0), Private),
    (Owner(pet=Animal(name="Tom")), Owner),
    (Cat(name="x"), Cat | Hen),
    (Second(n=1), First | Second),
    (Second(n=1), Annotated[First | Second, Field(discriminator="kind")]),
    (b"abcd", bytes | str),
    (NOON, datetime | str),
    (Numbers([1]), Numbers),
    (Status.DONE, Status),
    (counted(0), Counted),
    (unequal(0), Unequal),
    (-0.0, float),
    (None, Cat | None),
]


@pytest.mark.parametrize(("value", "type_"), KEPT, ids=lambda each: repr(each)[:40])
def test_it_comes_back_as_it_was(value: Any, type_: Any) -> None:
    back = Values().decode(Values().encode(value, type_), type_)
    assert back == value
    assert type(back) is type(value)


@dataclasses.dataclass
class Kept:
    """Keeps what it was made with in an attribute that is no field."""

    a: int
    given: dataclasses.InitVar[int] = 5

    def __post_init__(self, given: int) -> None:
        self.seed = given

    @functools.cached_property
    def doubled(self) -> int:
        return 2 * self.a


@dataclasses.dataclass
class Loose:
    a: int
    what: Any


@dataclasses.dataclass
class Keyed:
    names: dict[int, str]


REFUSED: list[tuple[Any, Any, str]] = [
    (Login(user="u", token=SecretStr("s3cret")), Login, r"at \.token: a SecretStr is written as stars"),
    (SecretStr("s3cret"), SecretStr, "a SecretStr is written as stars"),
    (pydantic.SecretBytes(b"s3cret"), pydantic.SecretBytes, "a SecretBytes is written as stars"),
    ({"a": [SecretStr("s3cret")]}, dict[str, Any], r"at \.a\[0\]: a SecretStr"),
    ([{"a": Login(user="u", token=SecretStr("s3cret"))}], None, r"at \[0\]\.a\.token: a SecretStr"),
    (Hidden(a=1, b=2), Hidden, "b: Field required"),
    (HiddenWithDefault(a=1, b=2), HiddenWithDefault, r"at \.b: 2 would come back as another"),
    (private(4), Private, r"at \._b: 4 would come back as another"),
    (Ending.model_construct(number=Decimal("NaN")), Ending, "number: Input should be a finite number"),
    (Decimal("Infinity"), Decimal, "Input should be a finite number"),
    ("twelve", int, "Input should be a valid integer"),
    ("12", int, "the str would come back as 12"),
    (3.5, int, "Input should be a valid integer"),
    (True, int, "True would come back as 1"),
    (1, bool, "1 would come back as True"),
    ([1], list[bool], r"at \[0\]: 1 would come back as True"),
    ([True], list[int], r"at \[0\]: True would come back as 1"),
    (2**53 + 1, float, "9007199254740993 would come back as"),
    (5, type(None), "Input should be null"),
    (1, str, "Input should be a valid string"),
    (b"abcd", str, "the bytes would come back as the str"),
    (b"\xff", dict, "it is bytes"),
    ("b", Literal["a"], "Input should be 'a'"),
    (Status.DONE, str, "the Status would come back as the str"),
    ("done", Status, "the str would come back as the Status"),
    (Dog(name="Rex", breed="lab"), Animal, "the Dog would come back as the Animal"),
    ([Dog(name="Rex", breed="lab")], list[Animal], r"at \[0\]: the Dog"),
    (Owner(pet=Dog(name="Rex", breed="lab")), Owner, r"at \.pet: the Dog"),
    (Owner(pet=Dog(name="Rex", breed="lab")), None, r"at \.pet: the Dog"),
    (Hen(name="x"), Cat | Hen, "the Hen would come back as the Cat"),
    ("abcd", bytes | str, "the str would come back as the bytes"),
    ("2030-01-01T00:00:00", datetime | str, "the str would come back as the datetime"),
    ("x", Path | str, "the str would come back as the"),
    (Growing(n=1), Growing, r"at \.n: 2 would come back as another"),
    (Growing.model_construct(n="x"), Growing, "n: Input should be a valid integer"),  # type: ignore[arg-type]
    (counted(5), Counted, r"at \.b: 5 would come back as another"),
    (unequal(5), Unequal, r"at \.b: 5 would come back as another"),
    (Seeded(1, 2), Seeded, "seed: Field required"),
    ({"a": 1}, Cat, "name: Field required"),
    ({"name": "x"}, Cat, "the dict would come back as the Cat"),
    ({"a": 1, "b": 2}, Exact, r"at \.b: 2 would not come back"),
    ((1, 2), list[int], "the tuple would come back as the list"),
    ((1, 2), list, "it is no list, but a tuple"),
    (Cat(name="x"), dict, "it is no dict, but a Cat"),
    ([1, 2], tuple[int, int], "the list would come back as the tuple"),
    ([10**5000], list[int], "number out of range"),
    ([10**5000], None, r"at \[0\]: the integer has over"),
    ({Status.DONE: 1}, dict[str, int], r"at \[<Status.DONE: 'done'>\]: the Status would come back as the str"),
    ({True}, set[int], r"at \[True\]: True would come back as 1"),
    (collections.deque([1], maxlen=3), collections.deque[int], "the deque would come back as another"),
    (Kept(1, 7), Kept, r"at \.seed: 7 would come back as another"),
    (collections.defaultdict(list, {1: []}), None, "the key 1 is no text"),
    (collections.Counter([1]), dict, "the key 1 is no text"),
    ({"a": collections.OrderedDict({(1, 2): 3})}, None, r"at \.a: the key \(1, 2\) is no text"),
    ([Loose(1, {2: 3})], None, r"at \[0\]\.what: the key 2 is no text"),
    (Open(what={None: 1}, more=0), None, r"at \.what: the key None is no text"),
    ({"\ud800": 1}, None, "a key holds a lone surrogate"),
]


@pytest.mark.parametrize(("value", "type_", "message"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_would_be_lost_or_changed_is_refused_by_its_place(value: Any, type_: Any, message: str) -> None:
    with pytest.raises(EncodingError, match=message) as caught:
        Values().encode(value, type_, "the output of step 'x'")
    assert str(caught.value).startswith("the output of step 'x' can't be encoded")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "type_", "plain"),
    [
        (Open(what=NOON, more=(1, 2)), Open, Open(what="2030-01-31T12:00:00", more=[1, 2])),
        ({"a": (1, 2), "b": NOON}, dict[str, Any], {"a": [1, 2], "b": "2030-01-31T12:00:00"}),
        ((1, 2), Sequence[int], [1, 2]),
        (collections.Counter("aab"), dict[str, int], {"a": 2, "b": 1}),
        (collections.defaultdict(list, a=[1]), dict, {"a": [1]}),
        (3, float, 3.0),
        (private(4), None, {"a": 1}),
    ],
    ids=lambda each: repr(each)[:40],
)
def test_where_the_type_says_nothing_more_the_plain_form_comes_back(value: Any, type_: Any, plain: Any) -> None:
    assert Values().decode(Values().encode(value, type_), type_) == plain


@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_of_a_zone_comes_back_with_its_offset_in_the_hour_that_a_change_of_clocks_repeats(fold: int) -> None:
    when = datetime(2020, 10, 25, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin"))
    back = Values().decode(Values().encode([when], list[datetime]), list[datetime])[0]
    assert (back.replace(tzinfo=None), back.utcoffset()) == (when.replace(tzinfo=None, fold=0), when.utcoffset())


def test_what_a_dataclass_has_worked_out_once_is_not_a_part_of_it() -> None:
    value = Kept(1)
    assert value.doubled == 2
    assert Values().decode(Values().encode(value, Kept), Kept) == value


def test_keys_that_a_field_declares_may_be_no_texts_in_a_value_without_a_type() -> None:
    assert Values().decode(Values().encode([Keyed({1: "a"})])) == [{"names": {"1": "a"}}]


def test_keys_of_what_is_not_written_do_not_matter() -> None:
    class Cached(BaseModel):
        a: int
        hidden: Any = Field(None, exclude=True)
        _seen: Any = pydantic.PrivateAttr(default=None)

    value = Cached(a=1, hidden={1: 2})
    value._seen = {3: 4}
    assert Values().decode(Values().encode([value])) == [{"a": 1}]


def test_nan_is_kept_where_a_field_allows_it() -> None:
    back = Values().decode(Values().encode(Unending(number=Decimal("NaN")), Unending), Unending)
    assert back.number.is_nan()


def test_things_that_equal_nothing_are_compared_by_their_fields() -> None:
    back = Values().decode(Values().encode(Slotted(1, NOON), Slotted), Slotted)
    assert (back.a, back.when) == (1, NOON)


def test_a_model_without_a_type_is_written_so_that_its_class_can_read_it() -> None:
    for model in (Square(side=3), Swapped(a=1, b=2), Charge(chargeId="c")):
        payload = Values().encode(model)
        assert Values().decode(payload, type(model)) == model


@pytest.mark.parametrize("data", ['{"chargeId": "c"}', '{"charge_id": "c"}'])
def test_what_others_wrote_is_read_by_names_and_by_aliases(data: str) -> None:
    from stepwire.payload import Payload

    assert Values().decode(Payload(data.encode()), Charge) == Charge(chargeId="c")
