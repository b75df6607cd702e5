"""Measures what warmopt and its peers add to an optimizer's step.

There are two kinds of cases. In the first the optimizer's step does nothing, so that
only the work around it is measured. In the second the step is a real one, and is
compared with the same step without a warmup. `timing` says how the time is taken,
`cases` and `contenders` say what is measured.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.overhead.cases import CASES, QUICK, WRAPS, Case
from benchmarks.overhead.contenders import CONTENDERS, CONTROL, OURS, STEPS, Seat, bare
from benchmarks.overhead.devices import DEVICES, Device, count
from benchmarks.overhead.record import RESULTS, Row, environment, quoted, rows, write
from benchmarks.overhead.timing import Runner, measure, ratio

SECONDS, QUICK_SECONDS = 5.0, 2.0  # per case; twice that with all contenders
LEAST, MOST = 10, 300  # rounds per case
ATTEMPTS = 2  # if the control is not 1; by chance that happens once in twenty

Skip = Callable[[str, str], None]


def measured(
    case: Case,
    device: Device,
    seconds: float,
    least: int,
    progress: Callable[[float], Any],
    skip: Skip,
) -> list[Row]:
    """Measures a case; returns its rows, or none if it cannot run here."""
    if why := case.why_not(device):
        skip(case.name, why)
        return []
    wrap, eager = WRAPS[case.run], case.run == "eager"
    try:
        optimizer = case.build(device)
        control = bare(optimizer, 0, wrap)
        for _ in range(3):
            control()
    except Exception as error:  # such as no compiler, or too little memory
        skip(case.name, _told(error))
        return []
    size = min(p.numel() for g in optimizer.param_groups for p in g["params"])
    runners, counts = [Runner(CONTROL, control)], [count(control, device, size, eager)]
    contenders = [c for c in CONTENDERS if c.few or case.all_contenders]
    for contender, (state, steps) in itertools.product(contenders, STEPS.items()):
        if not contender.runs(case.optimizer, state):
            continue
        seat = Seat(optimizer)
        with seat:
            try:
                step = contender.build(optimizer, steps, wrap)
                for _ in range(3):
                    step()
                counts.append(count(step, device, size, eager))
            except Exception as error:
                skip(f"{case.name}, {contender.name}, {state}", _told(error))
                continue
        runners.append(Runner(contender.name, step, state, contender.period, seat))
    seconds *= 1 + case.all_contenders
    for _ in range(ATTEMPTS):
        measure(control, runners, device.clock, seconds, least, MOST, progress)
        if all(ratio(runners[0], kind).covers(1) for kind in runners[0].own):
            break
    about = {
        "case": case.name,
        "tensors": len(case.shapes),
        "parameters": case.parameters,
    }
    return [{**about, **row} for row in rows(runners, counts)]


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


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
