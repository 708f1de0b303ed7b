"""`stepwire bench`: what this machine, or an executor elsewhere, can do."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwire.bench import SLOTS
from stepwire.cli.exits import explain, usage
from stepwire.cli.output import JsonOption, ask, hints, print_json, screen
from stepwire.cli.processes import require_executor
from stepwire.errors import StepwireError


def bench(
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKLOAD]...", help="Which workloads; all of them by default.")
    ] = None,
    executor: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Measure this executor, which keeps the runs; by default a fresh one."),
    ] = "",
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many worker processes are started here.")] = 2,
    slots: Annotated[int, typer.Option(min=1, max=10_000, help="How many attempts each of them runs at once.")] = SLOTS,
    repeat: Annotated[int, typer.Option(min=1, help="How often each workload is measured.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure fan-outs and chains of steps that do nothing: from sending the events to the durable ends."""
    from rich.table import Table
    from rich.text import Text

    from stepwire.bench.stage import measure
    from stepwire.bench.workloads import WORKLOADS

    known = {workload.name: workload for workload in WORKLOADS}
    if unknown := [name for name in only or () if name not in known]:
        raise usage(f"there is no workload {unknown[0]!r}: there are {', '.join(known)}")
    if executor:
        ask(executor, lambda client: client.workers())  # whoever is not there is told of at once
    else:
        require_executor()
    chosen = [known[name] for name in only or known]
    with hints().status("") as status:
        try:
            found = measure(
                chosen,
                repeat,
                executor=executor,
                workers=workers,
                slots=slots,
                progress=lambda said: status.update(Text(said)),
            )
        except StepwireError as error:
            raise explain(error, executor) from error
    if as_json:
        return print_json({figures.workload.name: figures.as_data() for figures in found})
    table = Table("workload", "what", "steps/s", "lowest", "highest", "p50", "p99", box=None)
    for figures in found:
        lowest, highest = figures.spread
        times = [f"{figures.percentile(share) * 1e3:,.1f} ms" for share in (0.5, 0.99)]
        rates = [f"{rate:,.0f}" for rate in (figures.rate, lowest, highest)]
        table.add_row(figures.workload.name, figures.workload.says, *rates, *times)
    screen().print(table)
    return None
