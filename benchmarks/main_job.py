"""The main job's figures: fan-outs of several widths and a chain of lone steps, over two worker processes.

    python -m benchmarks.main_job [--repeat N] [--json FILE]

An executor (SQLite, synchronous=FULL) and two workers of their own on this machine. A figure is the median over the
repeats, from sending the event to the durable result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import stepwire
from stepwire.testing import ExecutorProcess, WorkerProcess

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (10, 100, 1_000, 10_000)
CHAINS = 100


def measure(client: stepwire.SyncClient, event: str, data: object) -> float:
    """Give the seconds from sending an event to the result of its run."""
    begun = time.perf_counter()
    run_id = client.send(event, data).run_ids[0]
    client.result(run_id, timeout=300)
    return time.perf_counter() - begun


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="runs of each width (default 5)")
    parser.add_argument("--json", type=Path, help="write the figures into this file too")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    with ExecutorProcess() as executor:
        workers = [WorkerProcess("benchmarks.flows:app", executor, slots=100, path=ROOT) for _ in range(2)]
        try:
            for worker in workers:
                worker.start()
            with stepwire.SyncClient(executor.address) as client:
                while len(client.workers()) < 2:
                    time.sleep(0.05)
                measure(client, "bench/fan", {"count": 100})
                for width in WIDTHS:
                    times = [measure(client, "bench/fan", {"count": width}) for _ in range(given.repeat)]
                    figures[f"fan-{width} µs a step"] = statistics.median(times) / width * 1e6
                    figures[f"fan-{width} steps/s"] = width / statistics.median(times)
                chain = sorted(measure(client, "bench/chain", {}) * 1e3 for _ in range(CHAINS))
                figures["chain-3 p50 ms"] = statistics.median(chain)
                figures["chain-3 p99 ms"] = chain[int(len(chain) * 0.99) - 1]
        finally:
            for worker in workers:
                worker.destroy()
    figures["time a step, fan-10000 / fan-1000"] = figures["fan-10000 µs a step"] / figures["fan-1000 µs a step"]
    for name, value in figures.items():
        sys.stdout.write(f"{name:36} {value:10.2f}\n")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
