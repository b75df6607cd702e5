"""The command: see `python -m benchmarks.study --help`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.study import config, pool
from benchmarks.study.store import Store, key_of


def main(
    file: Annotated[
        Path,
        typer.Argument(
            help="The grid: benchmarks/study/*.toml.", exists=True, dir_okay=False
        ),
    ],
    workers: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
    report: Annotated[bool, typer.Option(help="Only render the pages.")] = False,
    device: Annotated[str, typer.Option(help="cpu, or cuda: all GPUs.")] = "cpu",
    data: Annotated[Path | None, typer.Option(help="Folder with CIFAR-10.")] = None,
    traces: Annotated[Path | None, typer.Option(help="Folder for traces.")] = None,
    out: Annotated[Path | None, typer.Option(help="Results, JSON lines.")] = None,
    retry: Annotated[bool, typer.Option(help="Again what had an error.")] = False,
) -> None:
    """Runs what is missing of a study, in parallel; stop it and go on at any time."""
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"--device must be cpu or cuda, got {device!r}.")
    try:
        study = config.read(file)
        results = out or study.results
        if report:
            from benchmarks.study import pages

            pages.write(study, results)
            return
        where = pool.Where(workers, device, data, traces, study.timeout)
        if traces is not None:
            traces.mkdir(parents=True, exist_ok=True)
        with Store(results, retry, study.reuse) as store:
            run(study, store, where)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def run(study: config.Config, store: Store, where: pool.Where) -> None:
    """Runs what is missing, with a progress bar that also counts the earlier runs."""
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()),
    )
    counted: Counter[str] = Counter()
    with Progress(*columns, speed_estimate_period=600) as bar:
        task = bar.add_task(study.name, total=0)

        def tell(
            found: int = 0, done: dict[str, Any] | None = None, **more: int
        ) -> None:
            total = (bar.tasks[0].total or 0) + found - more.get("dropped", 0)
            bar.update(task, total=total)
            if done is not None:
                counted["runs"] += more["new"]
                counted["errors"] += "error" in done
                counted["failed"] += done.get("failed", False)
                told = f"{study.name}, {counted['failed']} failed"
                told += f", {counted['errors']} errors" * bool(counted["errors"])
                bar.update(task, advance=1, description=told)

        pool.fill(study.plan, store, where, tell)
    planned = {key_of(planned.run) for planned in study.plan}
    print(
        f"{store.path.name}: {len(store.rows)} runs, {counted['runs']} of them now; "
        f"{len(planned - set(store.rows))} of the grid are missing"
    )


if __name__ == "__main__":
    typer.run(main)
