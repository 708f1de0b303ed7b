"""What waits compare: brought into one form, within limits, whatever is sent."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from stepwire_core.model import Event, Limits
from stepwire_executor import matching, wire
from stepwire_executor.jsontext import DEEPEST, JsonError, check_json
from stepwire_proto.v1 import opcode_pb2, value_pb2


def event(text: bytes, encoding: str = "json") -> Event:
    data = value_pb2.Payload(data=text, encoding=encoding).SerializeToString()
    return Event("e", "paid", data, 0.0, "", "", "digest")


def data(text: bytes) -> Any:
    return matching.data_of(event(text))


def nested(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b'{"b": 1}' + b"}" * (levels - 1)


def fault(fields: list[tuple[str, str]]) -> str:
    """Give what is wrong with a wait for these fields, "" if nothing is."""
    step = opcode_pb2.StepPlanned(key=value_pb2.StepKey(id="w"))
    step.wait_for_event.event_name = "paid"
    for path, text in fields:
        step.wait_for_event.fields.add(path=path, json_value=text)
    found = wire.planned(step, "r", Limits(), 0.0).fault
    assert found is None or (found.type, found.retryable) == ("InvalidStepError", False)
    return found.message if found else ""


def test_fields_are_brought_into_one_form() -> None:
    canonical = matching.canonical_match([("b.c", '"é"'), ("a", "1.0")])
    assert canonical == ('["a","b.c"]', '[1,"\\u00e9"]')
    assert matching.matches_of([canonical[0]], data('{"b": {"c": "é"}, "a": 1}'.encode())) == dict([canonical])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([(f"f{number}", "1") for number in range(17)], "17 fields, but a wait has at most 16"),
        ([("p" * 257, "1")], "257 bytes, but at most 256"),
        ([("é" * 129, "1")], "258 bytes, but at most 256"),
        ([("." * 100_000, "1")], "100000 bytes, but at most 256"),
        ([("x" * (1 << 20), "1")], "1048576 bytes, but at most 256"),
        ([(".".join("a" * 17), "1")], "17 names, but at most 16"),
        ([("a", "1"), ("a", "2")], "'a' is there twice"),
        ([("a", json.dumps("x" * 2_000))], "compared with 2002 bytes, but at most with 1024"),
        ([("a", json.dumps("é" * 300, ensure_ascii=False))], "1809 bytes as JSON in ASCII, but at most 1024 together"),
        ([(f"f{number}" * 30, "1") for number in range(16)], "bytes as JSON in ASCII, but at most 1024 together"),
        ([("a", "1e300"), ("b", "1e301"), ("c", "1e302"), ("d", "1e303")], "at most 1024 together"),
        ([("a", "[" * 1_000)], "deeper than 200 levels at offset 200"),
        ([("a", "[" * 500 + "]" * 500)], "deeper than 200 levels"),
        ([("a", "[" * 500_000)], "500000 bytes, but at most with 1024"),
        ([("a", "[" + "1," * 100 + "1]")], "only strings, numbers, true, false and null"),
        ([("a", "{}")], "only strings, numbers, true, false and null"),
        ([("a", "NaN")], "NaN at offset 0"),
        ([("a", '"\\ud800"')], "lone surrogate"),
        ([("a", "")], "offset 0"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else str(len(value)),
)
def test_a_wait_over_a_limit_fails_and_is_told_which(fields: list[tuple[str, str]], reason: str) -> None:
    found = fault(fields)
    assert "wait_for_event.fields" in found
    assert reason in found
    assert len(found) < 1_000


def test_waits_up_to_the_limits_are_taken() -> None:
    assert fault([]) == ""
    assert fault([(f"f{number}", "1") for number in range(16)]) == ""
    assert fault([("p" * 256, "1")]) == ""
    assert fault([(".".join("a" * 16), "1")]) == ""
    assert fault([("a", json.dumps("x" * (1_024 - len('["a"][""]'))))]) == ""


def test_thousands_of_fields_are_refused_before_any_is_read() -> None:
    assert "100000 fields" in fault([("a", "[" * 10)] * 100_000)


@pytest.mark.parametrize("text", [nested(DEEPEST), b"[" * DEEPEST + b"]" * DEEPEST], ids=["objects", "lists"])
@pytest.mark.parametrize("frames", [0, 600])
def test_what_is_as_deep_as_allowed_can_be_read_deep_in_the_loop(text: bytes, frames: int) -> None:
    def deep(left: int) -> Any:
        if left:
            return deep(left - 1)
        check_json(text)
        return matching.matches_of(['["a.a.b"]', '["b"]', matching.NO_PATHS], data(text))

    assert sys.getrecursionlimit() <= 1_000, "the test is about the usual limit"
    assert deep(frames) == {matching.NO_PATHS: matching.NO_PATHS}


@pytest.mark.parametrize("levels", [DEEPEST + 1, 990, 1_000, 5_000, 500_000])
def test_what_is_deeper_is_refused_with_its_place(levels: int) -> None:
    for text in (b"[" * levels + b"]" * levels, nested(levels)):
        with pytest.raises(JsonError, match=r"nested deeper than 200 levels at offset \d+"):
            check_json(text)
    with pytest.raises(JsonError):
        check_json(b"[" * levels)


@pytest.mark.parametrize("text", [b"[" * 500_000, b"{", b"\xff", b"1" * 5_000, b'"\x00"'], ids=range(5))
def test_data_that_nobody_has_checked_only_matches_waits_without_fields(text: bytes) -> None:
    assert matching.matches_of(['["a"]', matching.NO_PATHS], data(text)) == {matching.NO_PATHS: matching.NO_PATHS}
