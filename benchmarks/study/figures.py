"""The figures of docs/study.md and docs/study-tables.md.

The docstring of a figure is also its description on the page.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from benchmarks.study.measures import Results, grouped, margin
from benchmarks.study.tables import RIGHT, WRONG, by_task, ladders, lost
from warmopt._tools.plots import panels

SHOWN = ("none", "fixed 10 %", "adaptive 10 %", "adaptive 30 %", "radam", "gi")


def by_lr(results: Results, path: Path) -> None:
    """Final loss over the ladder of learning rates, by task."""
    every = [ladder for ladder in ladders(grouped(results)) if ladder[1:]]
    if not every:
        return
    from matplotlib.ticker import LogFormatter

    cells = [ladder[0].cell for ladder in every]
    titles = [f"{cell.task}, β₂ {cell.beta2}" for cell in cells]
    figure, axes = panels(titles, "Final loss, in nats", "learning rate", columns=4)
    for axis, ladder in zip(axes, every, strict=True):
        axis.set_xscale("log")
        axis.set_yscale("log")
        for told in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            told(LogFormatter(minor_thresholds=(1, 0.4)))  # 0.1, not 10^-1
        for name in SHOWN:
            found = [
                (group.cell.lr, list(losses.values()))
                for group in ladder
                if (losses := group.losses(name))
            ]
            lrs = [lr for lr, _ in found]
            axis.plot(lrs, [fmean(own) for _, own in found], label=name, marker=".")
            low, high = ([f(own) for _, own in found] for f in (min, max))
            axis.fill_between(lrs, low, high, alpha=0.12)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=100)


def misset(results: Results, path: Path) -> None:
    """Loss less that at the right length, in seed standard deviations."""
    groups = grouped(results)
    own = {"all tasks": groups, **by_task(groups)}
    figure, axes = panels(
        list(own), "A length set wrong", "length, % of the run", columns=3
    )
    for axis, each in zip(axes, own.values(), strict=True):
        axis.set_xscale("log")
        axis.axhline(0, color="grey", linewidth=0.8)
        for kind in ("fixed", "adaptive"):
            found = {
                wrong: [0.0, 0.0] if wrong == RIGHT else lost(each, kind, wrong)
                for wrong in WRONG
            }
            found = {wrong: values for wrong, values in found.items() if values}
            means = [fmean(values) for values in found.values()]
            bars = [margin(values) for values in found.values()]
            axis.errorbar(list(found), means, bars, label=kind, marker=".", capsize=3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=100)


FIGURES = {"by_lr": by_lr, "misset": misset}
