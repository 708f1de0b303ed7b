"""Histories as the processes of a system have written them, read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read(folder: Path) -> list[Record]:
    """Read all files of a folder, in the order of their stamps; within a process in the order of writing."""
    records = [record for file in sorted(folder.glob("*.jsonl")) for record in lines(file)]
    records.sort(key=lambda record: record["at"])
    return records


def lines(file: Path) -> Iterator[Record]:
    """Read one file. A kill may have cut its last line off."""
    texts = file.read_text().splitlines()
    for number, text in enumerate(texts, 1):
        try:
            yield json.loads(text)
        except ValueError:
            if number < len(texts):
                raise ValueError(f"{file}:{number} is no record: {text!r}") from None


class Index:
    """Records by what they tell."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.by_what: dict[str, list[Record]] = {}
        for order, record in enumerate(records):
            record["order"] = order
            self.by_what.setdefault(record["what"], []).append(record)
        self.last_words: dict[str, float] = {}
        """When each process wrote for the last time."""
        for found in self.by_what.values():
            for record in found:
                self.last_words[record["process"]] = max(record["at"], self.last_words.get(record["process"], 0.0))
        self.dispatched: dict[int, Record] = {}
        """The newest by fence."""
        for record in self["dispatched"]:
            self.dispatched[record["fence"]] = record

    def __getitem__(self, what: str) -> Sequence[Record]:
        return self.by_what.get(what, ())

    def of_executor(self, what: str) -> list[Record]:
        """Give those that an executor has written."""
        return [record for record in self[what] if "epoch" in record]

    def by_step(self, what: str) -> dict[tuple[str, str], list[Record]]:
        """Group by run and step."""
        grouped: dict[tuple[str, str], list[Record]] = {}
        for record in self[what]:
            grouped.setdefault((record["run"], record["step"]), []).append(record)
        return grouped
