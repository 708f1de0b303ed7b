"""A history in which everything goes well, though much goes wrong, to be broken on purpose."""

from __future__ import annotations

from typing import Any

from tests.histories.checker import Breach, check
from tests.histories.database import database_of
from tests.histories.records import Record
from tests.simulation.cases import Case, Fault, RunCase
from tests.simulation.simulation import Simulation

CASE = Case(
    5,
    (
        RunCase("sim/program", ["gather", ["run", "flaky", 1, False, 0.0], ["run", "long", 0, False, 2.0]], 0.0),
        RunCase("sim/program", ["gather", *[["run", "cancelled", 0, False, 6.0] for _ in range(2)]], 0.0),
        RunCase("sim/program", ["seq", ["run", "lone", 0, False, 0.0], ["limited", "late", 6.0, 1.0]], 3.0),
        RunCase("sim/program", ["seq", ["queue", "q", 7, 3], ["crowd", "c", 7, 1, None]], 0.0),
    ),
    (Fault("cancel run", 0.5, 1), Fault("kill worker", 1.0, 0), Fault("kill worker", 1.0, 1)),
    workers=2,
    slots=4,
)


class Story:
    """A history with its database, to be broken."""

    def __init__(self, case: Case = CASE) -> None:
        simulation = Simulation(case)
        assert simulation.run().broken == []
        self.records = sorted(simulation.records, key=lambda record: record["at"])
        self.database = database_of(simulation.disk.store)

    def check(self, **options: Any) -> list[Breach]:
        return check(self.records, self.database, **options)

    def find(self, what: str, **fields: Any) -> Record:
        """Give the first record that tells this."""
        for record in self.records:
            if record["what"] == what and all(record.get(key) == value for key, value in fields.items()):
                return record
        raise AssertionError(f"there is no {what} with {fields}")

    def after(self, record: Record, what: str, **fields: Any) -> None:
        """Put another record in behind one."""
        at = self.records.index(record)
        self.records.insert(at + 1, {**record, "what": what, **fields})

    def replace(self, record: Record, **fields: Any) -> None:
        """Change a record."""
        record.update(fields)
        self.records.sort(key=lambda each: each["at"])
