"""`make fuzz MINUTES=n`: messages of every kind, good and bad, to a real executor and to real workers.

    python -m tests.fuzz --minutes 10 --seed 7 --store postgres
    python -m tests.fuzz --messages 10000 --against python go

It fails on a line in a log that tells of a fault of ours, an end of a process, an engine that begins anew, a run of
the victim that goes wrong or takes too long, and memory that does not come back. Then it shows the seed and what was
sent last, and says where all of that is kept. With a seed each attacker draws the same; ids and fences, which the other
side gives, and the order in which attackers have their turns differ from run to run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.against_executor import AgainstExecutor, percentiles
from tests.fuzz.against_workers import LANGUAGES, against_worker
from tests.fuzz.attack import Attack
from tests.fuzz.watch import Watched
from tests.postgres import Cluster

EXECUTOR = "executor"
SHARE = 0.55
"""Of the time, for the executor; the workers share the rest."""
RATE = 100.0
"""Messages a second of a fuzz of some minutes, between its pauses: a fifth of what goes, so that times mean
something."""
IDLE_SECONDS = 15.0
"""How long the victim is looked at before the attack, which is some 150 runs."""
MULTIPLE, FLOOR_SECONDS = 3.0, 1.0
"""The 99th percentile of the victim's runs may be so many times that of idle, and always as long as the floor.

Idle is before the attack and in its pauses, ten seconds of every thirty: who else uses the machine does so in both.
With more to do than the machine has cores, before anything is attacked, times are shown and not judged.

The floor is there since executor, attackers and victim share the cores of one machine, two of them perhaps: idle runs
take about 20 ms, and one fsync of a disk that others use too takes a third of a second, whoever is attacked. What a
fault of ours does to others takes longer: an engine that begins anew, or a loop that is held.
"""
PROGRESS_SECONDS = 10.0
SHOWN = 5


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def progress(name: str, attack: Attack) -> Callable[[], None]:
    """Make what shows how far an attack is, every ten seconds."""
    shown = time.monotonic()

    def show() -> None:
        nonlocal shown
        if time.monotonic() - shown >= PROGRESS_SECONDS:
            shown = time.monotonic()
            of = f" of {attack.seconds:.0f}" if attack.seconds else ""
            say(f"{name}: {attack.now:.0f}{of} s, {attack.count:,} messages, {len(attack.wrong)} found")

    return show


def describe(attack: Attack, watched: list[Watched]) -> None:
    """Write what was sent and what came of it."""
    for what, counted in (("sent", attack.kinds), ("heard", attack.heard), ("ended with", attack.ends)):
        print(f"  {what}: {', '.join(f'{count:,} {kind}' for kind, count in counted.most_common(12))}")
    for each in watched:
        kib = f"{each.before_kib:,} KiB before, {each.most_kib:,} at most, {each.after_kib:,} after"
        print(f"  memory of {each.process.name}: {kib}")


async def fuzz_executor(folder: Path, attack: Attack, store: str) -> None:
    """Attack the executor, and hold the victim's times against idle."""
    with stored(store) as url, AgainstExecutor(folder, attack, url) as system:
        await system.run(IDLE_SECONDS, progress(EXECUTOR, attack))
        (idle, idle_late), (middle, late) = percentiles(system.idle), percentiles(system.attacked)
        print(f"{EXECUTOR} on {store}: {attack.count:,} messages in {attack.now:.0f} s")
        describe(attack, system.watched)
        print(
            f"  the victim: {len(system.attacked)} runs; half of them within {middle * 1000:.0f} ms "
            f"({idle * 1000:.0f} when idle), 99 % within {late * 1000:.0f} ms ({idle_late * 1000:.0f} when idle"
            f"{f', {late / idle_late:.1f} times' if idle_late else ''})"
        )
        allowed = max(MULTIPLE * idle_late, FLOOR_SECONDS)
        if system.load > (os.cpu_count() or 1):
            print(
                f"  its times are not judged: the machine had other work before the attack, a load of {system.load:.1f}"
            )
        elif attack.rate and late > allowed:
            attack.found(f"99 % of the victim's runs took {late:.3f} s, and only {allowed:.3f} s are allowed")


async def fuzz_worker(language: str, folder: Path, attack: Attack) -> None:
    """Attack a worker."""
    watched = await against_worker(language, folder, attack, progress(language, attack))
    print(f"{language} worker: {attack.count:,} messages in {attack.now:.0f} s")
    describe(attack, [watched])


@contextmanager
def stored(store: str) -> Iterator[str]:
    """Give what --store takes; a PostgreSQL server lives as long as the context."""
    if store == "sqlite":
        yield ""
        return
    with Cluster() as cluster:
        yield cluster.url(cluster.database())


def tell(attack: Attack, folder: Path) -> None:
    """Say what was found, and what reproduces it."""
    for what in attack.wrong:
        print(f"\nFOUND: {what}")
    file = folder / "last-messages.txt"
    attack.save(file)
    print(f"\nwith seed {attack.seed}; the last {len(attack.last)} messages are in {file}. The last {SHOWN} are:\n")
    for sent in list(attack.last)[-SHOWN:]:
        print(sent)


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.0, help="how long all of it is to take")
    parser.add_argument("--messages", type=int, default=0, help="messages to each of them instead, as fast as they go")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--against", nargs="+", choices=[EXECUTOR, *LANGUAGES], default=[EXECUTOR, *LANGUAGES])
    parser.add_argument("--folder", type=Path, help="keep logs and databases in this folder")
    chosen = parser.parse_args()
    if not chosen.minutes and not chosen.messages:
        parser.error("--minutes or --messages says how much")
    say(f"seed {chosen.seed}")
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="stepwire-fuzz-"))
    others = sum(each != EXECUTOR for each in chosen.against)
    share = 1.0 if not others else SHARE if EXECUTOR in chosen.against else 0.0
    found = False
    for name in chosen.against:
        seconds = chosen.minutes * 60 * (share if name == EXECUTOR else (1 - share) / others)
        rate = RATE if chosen.minutes and name == EXECUTOR else 0.0
        attack = Attack(chosen.seed, messages=chosen.messages, seconds=seconds, rate=rate)
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        work = fuzz_executor(place, attack, chosen.store) if name == EXECUTOR else fuzz_worker(name, place, attack)
        asyncio.run(work)
        if attack.wrong:
            tell(attack, place)
            found = True
    print("something was found" if found else "nothing was found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
