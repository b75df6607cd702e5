"""The figure of docs/study-aligned.md. Its docstring is its description."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from benchmarks.study.aligned_tables import ALIGNED, at, every
from benchmarks.study.measures import Results
from benchmarks.study.tables import ladders
from warmopt._tools.plots import panels

SHOWN = ("none", "fixed 3 %", "fixed 30 %", "fixed 100 %", ALIGNED)


def aligned_by_lr(results: Results, path: Path) -> None:
    """Final loss against the learning rate that was asked for, by task."""
    found = [ladder for ladder in ladders(at(every(results), 1)) if ladder[1:]]
    if not found:
        return
    cells = [ladder[0].cell for ladder in found]
    titles = [f"{cell.task}, β₂ {cell.beta2}" for cell in cells]
    figure, axes = panels(titles, "Final loss, in nats", "learning rate", columns=4)
    for axis, ladder in zip(axes, found, strict=True):
        axis.set_xscale("log")
        axis.set_yscale("log")
        for name in SHOWN:
            own = [
                (group.cell.lr, fmean(losses.values()))
                for group in ladder
                if (losses := group.losses(name))
            ]
            axis.plot(*zip(*own, strict=True) if own else ([], []), label=name)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=100)


FIGURES = {"aligned_by_lr": aligned_by_lr}
