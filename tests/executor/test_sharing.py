"""Turns over apps: nobody is let in twice before others who wait, and no place is lost."""

from __future__ import annotations

import asyncio

from stepwire_executor.sharing import AppTurns


async def come(turns: AppTurns, app: str, came: list[str]) -> None:
    async with turns.of(app):
        came.append(app)
        await asyncio.sleep(0)


async def test_those_of_one_app_hold_up_another_for_one_turn_each() -> None:
    turns, came = AppTurns(1), list[str]()
    many = [come(turns, "many", came) for _ in range(100)]
    await asyncio.gather(*many, come(turns, "few", came), come(turns, "few", came), come(turns, "one", came))
    assert len(came) == 103
    assert came.index("few") <= 3
    assert came.index("one") <= 4
    assert [app for app in came[:8] if app != "many"] == ["few", "one", "few"]


async def test_so_many_are_let_in_at_a_time() -> None:
    turns, inside, most = AppTurns(3), 0, 0

    async def stay(app: str) -> None:
        nonlocal inside, most
        async with turns.of(app):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*[stay(f"app-{n % 4}") for n in range(40)])
    assert most == 3


async def test_who_is_cancelled_takes_no_place_along() -> None:
    turns, came = AppTurns(1), list[str]()
    async with turns.of("first"):
        waiting = [asyncio.ensure_future(come(turns, "gone", came)) for _ in range(5)]
        last = asyncio.ensure_future(come(turns, "last", came))
        await asyncio.sleep(0)
        for task in waiting[:3]:
            task.cancel()
    waiting[3].cancel()  # it may have been let in already
    await asyncio.gather(*waiting, last, return_exceptions=True)
    assert sorted(came) == ["gone", "last"]
    async with asyncio.timeout(5), turns.of("again"):
        pass


async def test_those_who_take_several_places_share_them_and_one_may_take_more_than_there_are() -> None:
    turns, inside, most = AppTurns(10), list[int](), list[list[int]]()

    async def stay(app: str, places: int) -> None:
        async with turns.of(app, places):
            inside.append(places)
            most.append(sorted(inside))
            await asyncio.sleep(0)
            inside.remove(places)

    await asyncio.gather(*[stay(f"app-{n}", 4) for n in range(6)], stay("large", 1_000), stay("last", 1))
    assert max(each.count(4) for each in most) == 3
    assert [1_000] in most
    assert all(sum(each) - each[-1] < 10 for each in most)
    assert turns._free == 10
