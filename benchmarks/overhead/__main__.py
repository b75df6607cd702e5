"""The command: measures what warmopt and its peers add to an optimizer's step."""

from __future__ import annotations

import gc
import os
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.overhead.cases import CASES, QUICK
from benchmarks.overhead.contenders import OURS
from benchmarks.overhead.devices import DEVICES
from benchmarks.overhead.measuring import LEAST, measured
from benchmarks.overhead.record import RESULTS, environment, quoted, write

SECONDS, QUICK_SECONDS = 5.0, 2.0  # per case; twice that with all contenders

app = typer.Typer(add_completion=False)


@app.command()
def overhead(
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Where the parameters are.")
    ] = "cpu",
    quick: Annotated[
        bool, typer.Option("--quick", help="A few cases, in less than a minute.")
    ] = False,
    cases: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of names of cases, like 'tiny-*'; may be repeated."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Per case; twice that with all contenders.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=2, help="Per case, at least, however long they take.")
    ] = LEAST,
    out: Annotated[Path, typer.Option(help="Folder of the record.")] = RESULTS,
) -> None:
    """Measure what warmopt and its peers add to a step, and write a record of it."""
    patterns = cases or (QUICK if quick else ["*"])
    chosen = [
        case
        for case in CASES[device]
        if any(fnmatch(case.name, pattern) for pattern in patterns)
    ]
    if not chosen:
        names = ", ".join(case.name for case in CASES[device])
        raise typer.BadParameter(f"no case is called {patterns}. There are {names}.")
    try:
        here = DEVICES[device]()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    seconds = seconds or (QUICK_SECONDS if quick else SECONDS)
    record = {**environment(here, sys.argv[1:]), "rows": [], "skipped": []}
    start = time.perf_counter()
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(chosen))
        for index, case in enumerate(chosen):
            bar.update(task, description=case.name, completed=index)

            def skip(what: str, why: str) -> None:
                record["skipped"].append({"what": what, "why": why})
                console.print(f"{what}: {why}", style="yellow", markup=False)

            def advance(share: float, done: int = index) -> None:
                bar.update(task, completed=done + share)

            found = measured(case, here, seconds, rounds, advance, skip)
            record["rows"] += found
            gc.collect()
            for row in found:
                if row["contender"] == OURS:
                    told = f"{case.name}, {row['state']}, {row['time']}: {quoted(row)}"
                    console.print(told, markup=False, highlight=False)
        bar.update(task, completed=len(chosen))
    record |= {
        "seconds": round(time.perf_counter() - start, 1),
        "loadavg_after": os.getloadavg(),
    }
    path = write(record, out, part=len(chosen) < len(CASES[device]))
    console.print(f"The record is {path}, its table beside it.")


if __name__ == "__main__":
    app()
