"""Where events lie that waits want: what is found, how much is read, and that the loop has its turns."""

from __future__ import annotations

import asyncio
import json

import pytest

from stepwire_core.commands import Wanted, Writes
from stepwire_core.model import Event
from stepwire_executor import event_index
from stepwire_executor.event_index import PART, EventIndex
from stepwire_executor.store.memory import MemoryStore
from stepwire_proto.v1 import value_pb2

BY_FIELD = '["v"]'


def payload(value: object) -> bytes:
    return value_pb2.Payload(data=json.dumps(value).encode(), encoding="json").SerializeToString()


class CountingStore(MemoryStore):
    """A store that counts the events which are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.largest = 0

    async def find_events(self, name: str, app: str, after: int, limit: int, most_bytes: int) -> list[Event]:
        found = await super().find_events(name, app, after, limit, most_bytes)
        self.read += len(found)
        self.largest = max(self.largest, sum(len(event.data) for event in found))
        return found


async def store_of(values: list[object], first: int = 1, store: CountingStore | None = None) -> CountingStore:
    """Give a store with events "n" of which each has a value of v; every second position is another event's."""
    if store is None:
        store = CountingStore()
        await store.open()
    events = [
        Event(f"e{first + at}", "n", payload({"v": value}), 1.0, position=first + 2 * at)
        for at, value in enumerate(values)
    ]
    await store.commit(Writes(events=events))
    return store


def wanted(value: object, after: int = 0, most: int = 1) -> Wanted:
    return Wanted(BY_FIELD, json.dumps([value]), after, most)


async def test_the_earliest_events_that_fit_and_are_not_taken_are_found() -> None:
    index = EventIndex(await store_of([7, 8, 7, 7, 9]))
    assert await index.find("shop", "n", wanted(7, most=2), set()) == ([1, 5], None)
    assert await index.find("shop", "n", wanted(7, most=2), {1}) == ([5, 7], None)
    assert await index.find("shop", "n", wanted(7, after=5, most=2), set()) == ([7], 9)
    assert await index.find("shop", "n", wanted(6), set()) == ([], 9)
    assert await index.find("shop", "other", wanted(7), set()) == ([], 0)


async def test_any_event_fits_without_fields_and_no_data_is_read_for_it() -> None:
    store = await store_of([7, 8, 7])
    index = EventIndex(store)
    any_ = Wanted("[]", "[]", 1, 1)
    assert await index.find("shop", "n", any_, set()) == ([3], None)
    assert await index.find("shop", "n", any_, {3}) == ([5], None)
    assert await index.find("shop", "n", any_, {3, 5}) == ([], 5)
    assert store.read == 0


async def test_what_was_read_for_one_is_not_read_for_the_next() -> None:
    count = 1200
    store = await store_of(list(range(count)))
    index = EventIndex(store)
    for value in range(0, count, 7):
        assert await index.find("shop", "n", wanted(value), set()) == ([1 + 2 * value], None)
    assert store.read == count
    assert await index.find("shop", "n", wanted("none"), set()) == ([], 2 * count - 1)
    await store_of([1], first=3001, store=store)
    assert await index.find("shop", "n", wanted(1, most=2), set()) == ([3, 3001], None)
    assert store.read == count + 1


async def test_no_more_is_read_than_somebody_wants() -> None:
    store = await store_of(list(range(3000)))
    index = EventIndex(store)
    await index.find("shop", "n", wanted(10), set())
    assert store.read == event_index.PAGE


async def test_an_older_run_has_what_is_before_read_too() -> None:
    values: list[object] = [n % 5 for n in range(1000)]
    store = await store_of(values)
    index = EventIndex(store)
    assert await index.find("shop", "n", wanted(3, after=1500), set()) == ([1507], None)
    assert await index.find("shop", "n", wanted(3, after=2), set()) == ([7], None)
    assert await index.find("shop", "n", wanted(3, after=0, most=300), set()) == (
        [7 + 10 * n for n in range(200)],
        1999,
    )
    read = store.read
    assert await index.find("shop", "n", wanted(4, most=300), set()) == ([9 + 10 * n for n in range(200)], 1999)
    assert store.read == read


@pytest.mark.parametrize("after", [[0, 300, 100], [300, 100, 0], [100, 0, 300]])
async def test_what_is_found_is_right_whatever_is_kept(monkeypatch: pytest.MonkeyPatch, after: list[int]) -> None:
    monkeypatch.setattr(event_index, "MOST_POSITIONS", 150)
    monkeypatch.setattr(event_index, "PAGE", 40)
    values: list[object] = [n % 7 for n in range(400)]
    index = EventIndex(await store_of(values))
    for behind in after:
        for value in range(8):
            right = [1 + 2 * at for at, each in enumerate(values) if each == value and 1 + 2 * at > behind]
            assert await index.find("shop", "n", wanted(value, after=behind, most=1000), set()) == (right, 799)
            assert await index.find("shop", "n", wanted(value, after=behind), set()) == (
                right[:1],
                None if right else 799,
            )
            assert index._size <= 150 + 40
    assert sum(part.size + PART for part in index._parts.values()) == index._size


async def test_several_look_ups_at_once_find_what_each_would() -> None:
    store = await store_of(list(range(600)))
    index = EventIndex(store)
    behind = [0, 900, 300]
    looks = [index.find("shop", "n", wanted(n, after=behind[n % 3]), set()) for n in range(600)]
    found = await asyncio.gather(*looks)
    for n, (positions, _) in enumerate(found):
        assert positions == ([1 + 2 * n] if 1 + 2 * n > behind[n % 3] else [])
    assert store.read < 3 * 600


async def test_large_events_are_read_within_a_bound() -> None:
    store = await store_of(["x" * 400_000 for _ in range(12)])
    await EventIndex(store).find("shop", "n", wanted(7), set())
    assert store.largest <= event_index.PAGE_BYTES + 400_100


async def test_others_have_their_turns_while_events_are_parsed() -> None:
    store = await store_of(list(range(2000)))
    index = EventIndex(store)
    turns = 0
    looks = asyncio.gather(*[index.find("shop", "n", wanted(-n), set()) for n in range(20)])
    while not looks.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 2000 / event_index.SLICE


async def test_others_have_their_turns_while_an_event_is_compared_with_very_many_waits() -> None:
    store = await store_of([1])
    (event,) = await store.find_events("n", "shop", 0, 1, 1)
    paths = [f'["v","p{n}"]' for n in range(20_000)] + ['["w"]', '["v"]']
    turns = 0
    values = asyncio.ensure_future(EventIndex(store).values(event, "shop", paths))
    while not values.done():
        await asyncio.sleep(0)
        turns += 1
    assert list(values.result().values()) == ["[1]"]
    assert turns >= 20_000 / event_index.PATHS


async def test_data_that_is_not_json_or_lacks_the_field_fits_no_match() -> None:
    store = await store_of([{"deeper": 7}, [7], None])
    opaque = value_pb2.Payload(data=b"\0", encoding="secret").SerializeToString()
    await store.commit(Writes(events=[Event("o", "n", opaque, 1.0, position=100)]))
    index = EventIndex(store)
    assert await index.find("shop", "n", wanted(7), set()) == ([], 100)
    assert await index.find("shop", "n", wanted(None), set()) == ([5], None)
    assert await index.find("shop", "n", Wanted("[]", "[]", 5, 1), set()) == ([100], None)
