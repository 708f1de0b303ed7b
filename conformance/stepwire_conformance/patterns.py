"""Comparing a message with a pattern: what the pattern gives must be equal, and differences are told field by field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import Message

from stepwire_conformance.cases import one_line

FieldDescriptor = Any
"""A field of a message; Protobuf has several classes for it."""
FIRST_NAMED_FENCE, LAST_NAMED_FENCE = 9000, 1 << 63
WHOLE = {"StepKey", "Attempt"}
"""Messages of which every field is compared, zeros too."""
EXACT = {"StepsFound.sequence", "StepPlanned.eager_fence", "Invoke.eager_fence", "Resume.eager_fence"}
"""Fields that are compared also where the pattern leaves them out: they must be zero then."""
FREE_LISTS = {"events", "triggers", "functions", "tasks", "capabilities", "labels", "step_counts", "failed_attempts"}
"""Lists that are compared only where the pattern gives them."""
CONTAINED = {"functions", "tasks", "capabilities"}
"""Lists that must hold what the pattern gives, and may hold more."""
UNORDERED = {
    "triggers",
    "attempts_in_hand",
    "unwanted_attempts",
    "returned_attempts",
    "attempts",
    "refusals",
    "keys",
    "failed_steps",
}
"""Lists that mean the same in any order."""


class Names:
    """What a case calls the things that the other side chooses: `$run`, or a fence of 9000 or more; bound when met."""

    def __init__(self, bound: dict[Any, Any] | None = None) -> None:
        self.bound: dict[Any, Any] = {} if bound is None else bound

    @staticmethod
    def is_name(field: FieldDescriptor, value: Any) -> bool:
        """Tell a name from a value."""
        if field.type == field.TYPE_STRING:
            return isinstance(value, str) and value.startswith("$")
        return bool(field.type == field.TYPE_UINT64 and FIRST_NAMED_FENCE <= value <= LAST_NAMED_FENCE)

    def same(self, field: FieldDescriptor, wanted: Any, actual: Any) -> bool:
        """Compare a field's values; a name that is met for the first time gets its value."""
        if not self.is_name(field, wanted):
            return bool(wanted == actual)
        if wanted not in self.bound and actual:
            self.bound[wanted] = actual
        return bool(self.bound.get(wanted) == actual)

    def resolve(self, message: Message) -> None:
        """Put values for names, in place. Raises KeyError for a name that has none yet."""
        for field, value in message.ListFields():
            if field.message_type is not None:
                if not _is_map(field):
                    for each in value if field.is_repeated else [value]:
                        self.resolve(each)
            elif field.type == field.TYPE_STRING:
                texts = [self._text(each) for each in (value if field.is_repeated else [value])]
                if field.is_repeated:
                    value[:] = texts
                else:
                    setattr(message, field.name, texts[0])
            elif self.is_name(field, value):
                setattr(message, field.name, self.bound[value])

    def _text(self, text: str) -> str:
        if text in self.bound:
            return str(self.bound[text])
        text = text.replace("$app", str(self.bound.get("$app", "$app")))
        if text.startswith("$"):
            raise KeyError(text)
        return text


class NoNames(Names):
    """For messages in which nothing is named: every value stands for itself."""

    @staticmethod
    def is_name(field: FieldDescriptor, value: Any) -> bool:
        """Nothing is a name."""
        return False


def differences(pattern: Message, actual: Message, names: Names | None = None, path: str = "") -> list[str]:
    """Say where `actual` is not as `pattern` wants it; nothing if it is."""
    names = names or NoNames()
    if pattern.DESCRIPTOR.name == "Payload":
        return _values(pattern, actual, path)
    found: list[str] = []
    given = {field.name for field, _ in pattern.ListFields()}
    for field in pattern.DESCRIPTOR.fields:
        here = f"{path}.{field.name}" if path else field.name
        wanted, came = getattr(pattern, field.name), getattr(actual, field.name)
        if _is_map(field):
            found += [f"{here}[{key!r}]: awaited {wanted[key]!r}, came {came.get(key)!r}"
                      for key in wanted if came.get(key) != wanted[key]]  # fmt: skip
        elif field.is_repeated:
            if field.name in given or field.name not in FREE_LISTS:
                found += _lists(field, wanted, came, names, here)
        elif field.message_type is not None:
            if field.name not in given:
                if _exact(pattern, field) and actual.HasField(field.name):
                    found.append(f"{here}: awaited none, came {one_line(came)}")
                continue
            if not actual.HasField(field.name):
                instead = actual.WhichOneof(field.containing_oneof.name) if field.containing_oneof else None
                found.append(f"{here}: awaited {one_line(wanted) or 'it'}, came {instead or 'none'}")
                continue
            found += differences(wanted, came, names, here)
        elif (field.name in given or _exact(pattern, field)) and not names.same(field, wanted, came):
            shown = names.bound.get(wanted, wanted)
            found.append(f"{here}: awaited {_shown(field, shown)}, came {_shown(field, came)}")
    return found


def not_zero(message: Message, paths: Iterable[str]) -> list[str]:
    """Say which of these fields, given as dotted paths, are not unset, zero or empty."""
    found = []
    for path in paths:
        value: Any = message
        *parents, name = path.split(".")
        for parent in parents:
            value = getattr(value, parent)
        field = value.DESCRIPTOR.fields_by_name[name]
        is_set = value.HasField(name) if field.has_presence else bool(getattr(value, name))
        if is_set:
            found.append(f"{path}: awaited none, came {getattr(value, name)!r}")
    return found


def _exact(pattern: Message, field: FieldDescriptor) -> bool:
    name = pattern.DESCRIPTOR.name
    return name in WHOLE or f"{name}.{field.name}" in EXACT


def _lists(field: FieldDescriptor, wanted: Sequence[Any], came: Sequence[Any], names: Names, path: str) -> list[str]:
    contained = field.name in CONTAINED
    if len(wanted) != len(came) and not contained:
        return [f"{path}: awaited {len(wanted)}: {_listed(wanted)}; came {len(came)}: {_listed(came)}"]
    if not contained and field.name not in UNORDERED:
        return [line for number, (left, right) in enumerate(zip(wanted, came, strict=True))
                for line in _elements(field, left, right, names, f"{path}[{number}]")]  # fmt: skip
    left_over = list(came)
    for each in wanted:
        for candidate in left_over:
            tried = type(names)(dict(names.bound))
            if not _elements(field, each, candidate, tried, path):
                names.bound.update(tried.bound)
                left_over.remove(candidate)
                break
        else:
            return [f"{path}: awaited {_listed([each])} in any place, came {_listed(came)}"]
    return []


def _elements(field: FieldDescriptor, wanted: Any, came: Any, names: Names, path: str) -> list[str]:
    if field.message_type is not None:
        return differences(wanted, came, names, path)
    return [] if names.same(field, wanted, came) else [f"{path}: awaited {wanted!r}, came {came!r}"]


def _values(pattern: Any, actual: Any, path: str) -> list[str]:
    """Compare payloads: as JSON values if the pattern's is JSON."""
    encodings = [each.encoding or "json" for each in (pattern, actual)]
    if encodings[0] != encodings[1]:
        return [f"{path}.encoding: awaited {encodings[0]!r}, came {encodings[1]!r}"]
    if encodings[0] != "json":
        return [] if pattern.data == actual.data else [f"{path}: awaited {pattern.data!r}, came {actual.data!r}"]
    values = []
    for each in (pattern, actual):
        try:
            values.append(json.loads(each.data) if each.data else None)
        except ValueError:
            return [f"{path}: {each.data[:100]!r} is no JSON"]
    return [] if _same_json(*values) else [f"{path}: awaited {_cut(values[0])}, came {_cut(values[1])}"]


def _same_json(left: Any, right: Any) -> bool:
    """Compare as JSON does: true is not 1, but 1 is 1.0."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same_json, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _shown(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else str(value)
    return _cut(value)


def _cut(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, bytes) else repr(value)
    return text if len(text) <= 200 else f"{text[:150]} … ({len(text)} characters)"


def _listed(values: Sequence[Any]) -> str:
    shown = [one_line(each, 200) if isinstance(each, Message) else repr(each) for each in values[:6]]
    return "[" + "; ".join(shown) + ("; …" if len(values) > 6 else "") + "]"
