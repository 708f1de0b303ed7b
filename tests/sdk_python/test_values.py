"""Values: what comes back as it was, what comes back plain, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import math
import typing
import uuid
import warnings
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwire.errors import EncodingError, OutputTooLargeError
from stepwire.payload import Payload
from stepwire.signatures import Converted
from stepwire.values import Values

T = TypeVar("T")
NOW = datetime(2030, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    label: str


class Movie(TypedDict):
    title: str
    seen_at: datetime
    rating: NotRequired[int]


class Model(pydantic.BaseModel):
    a: int
    when: datetime | None = None
    number: float | None = None


class Blob(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Plain(pydantic.BaseModel):
    data: bytes


class Box(pydantic.BaseModel, Generic[T]):
    item: T


@dataclasses.dataclass
class Record:
    id: uuid.UUID
    raw: bytes
    pair: tuple[int, str]
    tags: set[str]
    model: Model | None = None


@dataclasses.dataclass
class Tree:
    name: str
    children: list[Tree]


class Opaque:
    pass


@pytest.fixture
def values() -> Values:
    return Values()


RECORD = Record(uuid.UUID(int=7), b"\xff\x00", (1, "a"), {"x", "y"}, Model(a=1, when=NOW))

TYPED: list[tuple[Any, Any]] = [
    ("text \u0000 ☃", str),
    (2**70, int),
    (-0.5, float),
    (1e300, float),
    (True, bool),
    (None, type(None)),
    (None, str | None),
    (Model(a=1, when=NOW), Model),
    ([Model(a=1)], list[Model]),
    (Box[int](item=3), Box[int]),
    (Blob(data=b"\xff\x00abc"), Blob),
    ([Blob(data=b"\xff")], list[Blob]),
    (Plain(data=b"only text"), Plain),
    ({"p": [Plain(data=b"abcd")]}, dict[str, list[Plain]]),
    (RECORD, Record),
    ({"k": [RECORD]}, dict[str, list[Record]]),
    (Tree("a", [Tree("b", [])]), Tree),
    (NOW, datetime),
    (datetime(2030, 1, 1), datetime),
    (date(2030, 1, 1), date),
    (timedelta(days=3, microseconds=5), timedelta),
    (uuid.UUID(int=5), uuid.UUID),
    (Color.RED, Color),
    (Level.HIGH, Level),
    (Decimal("1.10"), Decimal),
    (b"\xff\x00", bytes),
    (b"", bytes),
    (b"ab", bytes | None),
    ([b"\xff", b"abcd"], list[bytes]),
    ({"k": b"\xff"}, dict[str, bytes]),
    ((1, "a", NOW), tuple[int, str, datetime]),
    ((1, 2, 3), tuple[int, ...]),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    (Point(1, "a"), Point),
    ({"title": "t", "seen_at": NOW}, Movie),
    ([{"title": "t", "seen_at": NOW, "rating": 3}], list[Movie]),
    ({"a": {"title": "t", "seen_at": NOW}}, dict[str, Movie | None]),
    ({1: 2}, dict[int, int]),
    ({NOW: 1}, dict[datetime, int]),
    ({uuid.UUID(int=1): [1]}, dict[uuid.UUID, list[int]]),
    ("a", Literal["a", "b"]),
    (5, Annotated[int, pydantic.Field(gt=1)]),
    ([1, 2], Sequence[int]),
    ([1, 2], Iterable[int]),
    ({"a": [1, {"b": None}]}, dict),
    ([{"a": 1.5}], list[dict[str, Any]]),
]


@pytest.mark.parametrize(("value", "type_"), TYPED, ids=lambda each: repr(each)[:40])
def test_a_value_comes_back_as_its_type_says(values: Values, value: Any, type_: Any) -> None:
    back = values.decode(values.encode(value, type_), type_)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Model(a=1), {"a": 1, "when": None, "number": None}),
        (RECORD.model, {"a": 1, "when": "2030-01-31T12:00:00.123456Z", "number": None}),
        (NOW, "2030-01-31T12:00:00.123456Z"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ((1, (2, 3)), [1, [2, 3]]),
        (Color.RED, "red"),
        ({"a": Level.HIGH}, {"a": 3}),
        (Decimal("1.5"), "1.5"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
    ],
    ids=lambda each: "memoryview" if isinstance(each, memoryview) else repr(each)[:40],
)
def test_without_a_type_plain_values_come_back(values: Values, value: Any, plain: Any) -> None:
    assert values.decode(values.encode(value)) == plain


def test_bytes_are_stored_as_they_are(values: Values) -> None:
    assert values.encode(b"\xff", bytes) == values.encode(b"\xff") == Payload(b"\xff", "binary")
    assert values.decode(Payload(b"\xff", "binary"), bytearray) == bytearray(b"\xff")


def test_the_empty_payload_is_none(values: Values) -> None:
    assert values.decode(Payload(b"", ""), int) is None


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(json_values)
@settings(max_examples=150, deadline=None)
def test_all_plain_values_come_back(value: Any) -> None:
    values = Values()
    assert values.decode(values.encode(value)) == value
    assert values.decode(values.encode(value, Any), Any) == value


def nested(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def circle() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


REFUSED: list[tuple[Any, Any, str]] = [
    (math.nan, None, "nan is no number"),
    (math.inf, float, "inf is no number"),
    ({"a": [1.0, -math.inf]}, None, r"at \.a\[1\]: -inf"),
    ([math.nan], list[float], r"at \[0\]: nan"),
    (Model(a=1, number=math.nan), Model, r"at \.number: nan"),
    ({"m": Model(a=1, number=math.inf)}, None, r"at \.m\.number: inf"),
    ("\ud800", None, "lone surrogate"),
    ({"a": {"b": "\udfff"}}, None, r"at \.a\.b: the text holds a lone surrogate"),
    ({"\ud800": 1}, None, "can't be encoded"),
    (circle(), None, "contains itself"),
    (nested(201), None, "more than 200 deep"),
    (nested(201), list, "more than 200 deep"),
    (10**5000, int, "the integer has over"),
    ({1: "a"}, None, "the key 1 is no text"),
    ({1: "a"}, dict, "the key 1 is no text"),
    ([{True: "a"}], list[dict[str, Any]], r"at \[0\]\[True\]: the str would not come back"),
    ({None: "a"}, None, "the key None"),
    ({"a": {(1, 2): 3}}, None, r"at \.a: the key \(1, 2\)"),
    ({(1, 2): 3}, dict[tuple[int, int], int], r"1,2\.\[key\]: Input should be a valid array"),
    (Opaque(), None, "Opaque is neither plain data"),
    ({"rows": [1, Opaque()]}, None, r"at \.rows\[1\]: Opaque"),
    (Opaque(), Opaque, "the type Opaque is not known to pydantic"),
    ({"a": 1}, dict[str, "Missing"], "Missing"),  # type: ignore[name-defined]  # noqa: F821
    ((each for each in [1]), list[int], "return a list of it"),
    (Plain(data=b"\xff"), Plain, "ser_json_bytes"),
    ("abcd", bytes, "the str would come back as the bytes"),
    ({"k": "abcd"}, dict[str, bytes], r"at \.k: the str would come back as the bytes"),
]


@pytest.mark.parametrize(("value", "type_", "message"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_would_not_come_back_is_refused_by_its_place(values: Values, value: Any, type_: Any, message: str) -> None:
    with pytest.raises(EncodingError, match=message) as caught:
        values.encode(value, type_, "output of step 'x'")
    assert str(caught.value).startswith("output of step 'x' ")


def test_what_can_be_encoded_can_be_decoded_up_to_the_limits(values: Values) -> None:
    for value in (nested(200), 10**4200):
        assert values.decode(values.encode(value)) == value


@pytest.mark.parametrize(
    ("stored", "type_", "message"),
    [
        ("x", int, "as int: Input should be a valid integer"),
        (5, type(None), "as NoneType"),
        ({"a": "x"}, Model, "as Model: a: Input should be a valid integer"),
        ([1], dict, "it is a list"),
        ([{"title": 1}], list[Movie], "title: .*; 0.seen_at: Field required"),
    ],
)
def test_what_others_stored_is_told_if_it_is_not_of_the_wanted_type(
    values: Values, stored: Any, type_: Any, message: str
) -> None:
    with pytest.raises(EncodingError, match=message):
        values.decode(values.encode(stored), type_, "output of step 'x'")


def test_what_others_stored_is_read_as_the_wanted_type(values: Values) -> None:
    assert values.decode(values.encode({"a": 1}), Model) == Model(a=1)
    assert values.decode(values.encode("red"), Color) is Color.RED
    assert values.decode(values.encode([1, 2]), tuple[int, int]) == (1, 2)


def test_plain_data_is_converted_to_a_type_that_was_asked_for(values: Values) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values.decode(values.encode({"a": 1}, Converted(Model)), Model) == Model(a=1)
        assert values.decode(values.encode("red", Converted(Color)), Converted(Color)) is Color.RED
    with pytest.raises(EncodingError, match="a: Field required"):
        values.encode({}, Converted(Model))


@pytest.mark.parametrize(
    ("payload", "type_", "message"),
    [
        (Payload(b"{", "json"), None, "can't be read as JSON"),
        (Payload(b'"abcd"', "json"), bytes, "it is JSON, not bytes"),
        (Payload(b"\xff", "binary"), int, "1 raw bytes"),
        (Payload(b"x", "secret"), None, "the codec that it was encoded with"),
        (Payload(b"[" * 300 + b"]" * 300, "json"), None, "recursion"),
        (Payload(b'"\\ud800"', "json"), str, "can't be read"),
    ],
)
def test_bytes_that_are_no_such_value_are_refused(values: Values, payload: Payload, type_: Any, message: str) -> None:
    with pytest.raises(EncodingError, match=message) as caught:
        values.decode(payload, type_, "output of step 'x'")
    assert str(caught.value).startswith("output of step 'x' ")


def test_an_output_over_the_limit_is_refused_with_limit_size_and_setting() -> None:
    values = Values(max_output_bytes=10)
    assert values.encode("12345678").data == b'"12345678"'
    with pytest.raises(OutputTooLargeError, match=r"output of 'f' has 11 bytes, over --max-output-bytes=10"):
        values.encode("123456789", what="output of 'f'")
    assert len(values.encode("x" * 100, limit=0).data) == 102
    with pytest.raises(OutputTooLargeError, match="over the limit=3"):
        values.encode("x" * 100, limit=3)


class Sealed:
    """Compresses and signs."""

    key = b"secret"

    def encode(self, payload: Payload) -> Payload:
        data = zlib.compress(payload.data)
        mac = hmac.new(self.key, data, hashlib.sha256).hexdigest()
        return Payload(data, "sealed", {"mac": mac, "inner": payload.encoding})

    def decode(self, payload: Payload) -> Payload:
        if payload.encoding != "sealed":
            return payload
        mac = hmac.new(self.key, payload.data, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(mac, payload.metadata["mac"]):
            raise PermissionError("the seal is broken")
        return Payload(zlib.decompress(payload.data), payload.metadata["inner"])


@pytest.mark.parametrize(("value", "type_"), [({"a": 1}, None), (b"\xff" * 99, None), (RECORD, Record), (None, None)])
def test_a_codec_stands_between_value_and_payload(value: Any, type_: Any) -> None:
    values = Values(Sealed())
    payload = values.encode(value, type_)
    assert payload.encoding == "sealed"
    assert values.decode(payload, type_) == value
    assert values.decode(Payload(b"1", "json")) == 1, "what was stored without the codec is still read"


def test_the_limit_counts_what_the_codec_gives() -> None:
    assert Values(Sealed(), max_output_bytes=100).encode("a" * 1000).data


def test_what_a_codec_raises_comes_out_as_it_is() -> None:
    values = Values(Sealed())
    payload = values.encode(1)
    with pytest.raises(PermissionError, match="the seal is broken"):
        values.decode(Payload(payload.data + b"x", "sealed", payload.metadata))


def test_a_codec_that_keeps_the_encoding_is_refused() -> None:
    class Nameless:
        def encode(self, payload: Payload) -> Payload:
            return Payload(zlib.compress(payload.data), payload.encoding)

        def decode(self, payload: Payload) -> Payload:
            return payload

    with pytest.raises(EncodingError, match="name an encoding of its own"):
        Values(Nameless()).encode(1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "gave a NoneType instead of a stepwire.Payload"),
        (b"x", "gave a bytes instead of a stepwire.Payload"),
        (Payload("text", "odd"), "whose data is a str, not bytes"),  # type: ignore[arg-type]
        (Payload(b"x", 5), "with 5, where a text must be"),  # type: ignore[arg-type]
        (Payload(b"x", "odd\ud800"), "where a text must be"),
        (Payload(b"x", "odd", {"a": 1}), "with 1, where a text must be"),  # type: ignore[dict-item]
    ],
)
def test_what_a_codec_gives_that_can_not_be_sent_or_read_is_refused(given: Any, words: str) -> None:
    class Odd:
        def encode(self, payload: Payload) -> Any:
            return given

        def decode(self, payload: Payload) -> Any:
            return given

    with pytest.raises(EncodingError, match=words):
        Values(Odd()).encode(1)
    with pytest.raises(EncodingError, match=words):
        Values(Odd()).decode(Payload(b"x", "sealed"))


def test_a_codec_may_leave_payloads_as_they_are() -> None:
    class Lazy:
        def encode(self, payload: Payload) -> Payload:
            return payload

        def decode(self, payload: Payload) -> Payload:
            return payload

    assert Values(Lazy()).encode(1) == Payload(b"1", "json")


def test_typed_dicts_know_which_keys_must_be_there(values: Values) -> None:
    class Loose(typing.TypedDict, total=False):
        a: int

    assert values.decode(values.encode({}, Loose), Loose) == {}
    with pytest.raises(EncodingError, match="seen_at: Field required"):
        values.decode(values.encode({"title": "t"}), Movie)
