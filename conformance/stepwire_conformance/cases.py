"""The cases on disk: one file each in protobuf text format; the file's name is the case's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from stepwire_proto.conformance.v1 import case_pb2

FOLDER = Path(__file__).parent / "cases"
SUFFIX = ".txtpb"

Case = TypeVar("Case", case_pb2.WorkerCase, case_pb2.ExecutorCase)


class CaseError(Exception):
    """A case can't be read, or there is none of that name; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Named(Generic[Case]):
    """A case and its name."""

    name: str
    case: Case


def worker_cases(names: Iterable[str] = (), folder: Path | None = None) -> list[Named[case_pb2.WorkerCase]]:
    """Give the cases for workers that have these names, or all; from `folder`, or the kit's own. Raises CaseError."""
    return _load(case_pb2.WorkerCase, folder or FOLDER / "worker", list(names))


def executor_cases(names: Iterable[str] = (), folder: Path | None = None) -> list[Named[case_pb2.ExecutorCase]]:
    """Give the cases for executors that have these names, or all; from `folder`, or the kit's own. Raises CaseError."""
    return _load(case_pb2.ExecutorCase, folder or FOLDER / "executor", list(names))


def _load(kind: type[Case], folder: Path, names: Sequence[str]) -> list[Named[Case]]:
    files = {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}
    if not files:
        raise CaseError(f"there is no case in {folder}: a case is a file that ends in {SUFFIX}")
    for name in names:
        if name not in files:
            raise CaseError(f"there is no case {name!r}: --list shows those that there are")
    return [Named(name, _read(kind, files[name])) for name in (names or files)]


def _read(kind: type[Case], path: Path) -> Case:
    case = kind()
    try:
        text_format.Parse(path.read_text(), case)
    except text_format.ParseError as error:
        raise CaseError(f"{path.name}:{error.GetLine()}: {error}") from None
    for what in ("shows", "rule"):
        if not getattr(case, what):
            raise CaseError(f"{path.name}: it does not say what `{what}` is")
    for number, act in enumerate(case.acts, 1):
        if act.WhichOneof("kind") is None:
            raise CaseError(f"{path.name}: act {number} is of no kind")
    return case


def one_line(message: Message, most: int = 600) -> str:
    """Give a message as text in one line, cut in the middle if it is long."""
    text = text_format.MessageToString(message, as_one_line=True, as_utf8=True).strip()
    return text if len(text) <= most else f"{text[: most * 2 // 3]} … {text[-most // 3 :]}"
