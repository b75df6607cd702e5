"""Trains small models with fixed and with adaptive warmup, to compare final losses.

`python -m benchmarks.adaptive_runs --out FILE` appends a line of JSON for each run;
what FILE already holds is not run again. With `--report` it writes the tables of
docs/adaptive.md from FILE and trains nothing.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import torch_optimizer
import typer
from rich.progress import track
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from benchmarks import adaptive_tables
from benchmarks.adaptive_tables import CAPS, FIXED, Cell, Row
from benchmarks.adaptive_tasks import TASKS
from warmopt import Warmed

UPDATES, DECAY = 400, 0.3  # the LR is constant, then falls linearly to 0
SEEDS = {"digits MLP": 4, "digits CNN": 3, "char-LM pre-LN": 3, "char-LM post-LN": 3}

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "RMSprop": torch.optim.RMSprop,
    "NAdam": torch.optim.NAdam,
    "Yogi": torch_optimizer.Yogi,
    "AdaBelief": torch_optimizer.AdaBelief,
    "LAMB": torch_optimizer.Lamb,
}


def run(cell: Cell, updates: int = UPDATES) -> Row:
    """Trains; the same seed gives the same first model and the same batches."""
    task = TASKS[cell.task]
    data, draw = task.data(), torch.Generator().manual_seed(cell.seed)
    torch.manual_seed(cell.seed)
    model = task.model(data.classes)
    bare = OPTIMIZERS[cell.optimizer](model.parameters(), lr=cell.lr)
    optimizer = Warmed(bare, steps=cell.steps, mode=cell.mode)
    decay = DECAY * updates
    scheduler = LambdaLR(optimizer, lambda done: min(1.0, (updates - done) / decay))
    length, began = 0 if optimizer.done else None, time.perf_counter()
    for update in range(1, updates + 1):
        x, y = data.batch(draw)
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if length is None and optimizer.done:
            length = update
    with torch.no_grad():
        x, y = data.validation
        final = cross_entropy(model(x), y).item()
    return {
        **cell._asdict(),
        "loss": round(final, 5) if math.isfinite(final) else None,
        "failed": not final <= task.fails_above,
        "chance": round(math.log(data.classes), 5),
        "length": length,
        "done_reason": optimizer.done_reason,
        "updates": updates,
        "seconds": round(time.perf_counter() - began, 2),
    }


def grid() -> Iterator[Callable[[str, int], Cell]]:
    """Yields makers of cells (mode, steps); seed by seed, so that it may be cut off."""
    for seed in range(max(SEEDS.values())):
        for name, task in TASKS.items():
            for optimizer, lrs in task.lrs.items():
                for lr in lrs:
                    if seed < SEEDS[name]:
                        yield partial(Cell, name, optimizer, lr, seed)


def fill(
    out: Path, cells: Iterable[Callable[[str, int], Cell]], updates: int = UPDATES
) -> None:
    """Runs what the file does not hold yet: all warmups of each cell."""
    machine = environment()
    if not out.exists():
        out.write_text(json.dumps({**machine, "commit": commit()}) + "\n")
    found, rows = adaptive_tables.read(out)
    if not machine.items() <= found.items():
        raise ValueError(f"out must be of this machine, {machine}, got one of {found}.")
    with out.open("a") as file:

        def row(cell: Cell) -> Row:
            if cell not in rows:
                rows[cell] = run(cell, updates)
                file.write(json.dumps(rows[cell]) + "\n")
                file.flush()
            return rows[cell]

        for cell in cells:
            for steps in FIXED:
                row(cell("linear", steps))
            for steps in CAPS:
                length = row(cell("adaptive", steps))["length"]
                if length is not None:  # the control: a fixed warmup of that length
                    row(cell("linear", length))


def environment() -> dict[str, Any]:
    """What the losses depend on."""
    torch.set_num_threads(1)
    packages = ("torch", "torch-optimizer", "numpy", "warmopt")
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        **{"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        **{"system": platform.system(), "python": platform.python_version()},
        **{package: version(package) for package in packages},
    }


def commit() -> str:
    """Of warmopt, when the first run began."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def main(
    out: Annotated[Path, typer.Option(help="File of the records, one a line.")],
    report: Annotated[bool, typer.Option(help="Only write the tables.")] = False,
) -> None:
    """Compares adaptive with fixed warmup on small tasks."""
    if report:
        page = adaptive_tables.PAGE
        text = adaptive_tables.with_tables(page.read_text(encoding="utf-8"), out)
        page.write_text(text, encoding="utf-8")
    else:
        fill(out, track(list(grid()), description="runs"))


if __name__ == "__main__":
    typer.run(main)
