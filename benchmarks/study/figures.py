"""The figures of docs/study.md and docs/study-tables.md.

The docstring of a figure is also its description on the page. All are drawn and saved
in the style of `docs.scripts.themed`, see `pages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.study.measures import Group, Results, grouped, margin
from benchmarks.study.tables import RIGHT, WRONG, by_task, ladders, lost

SHOWN = ("none", "fixed 10 %", "adaptive 10 %", "adaptive 30 %", "radam", "gi")
EVERY = 2  # warmups in colour in each panel


def by_lr(results: Results, path: Path) -> None:
    """Final loss over the ladder of learning rates, by task."""
    draw_ladders([each for each in ladders(grouped(results)) if each[1:]], SHOWN, path)


def draw_ladders(
    every: Sequence[Sequence[Group]], shown: Sequence[str], path: Path
) -> None:
    """Draws a row of panels for each ladder of learning rates.

    Each panel has two of the warmups in colour, with the range over seeds; the others
    are the grey lines behind them.
    """
    if not every:
        return
    from docs.scripts import themed

    parts = [shown[i : i + EVERY] for i in range(0, len(shown), EVERY)]
    colours = {name: f"C{i}" for i, name in enumerate(shown)}
    grey = themed.COLOURS["muted"][0]
    titles = []
    for ladder in every:
        titles += [title(ladder), *[""] * (len(parts) - 1)]
    figure, axes = themed.panels(titles, columns=len(parts), height=1.3)
    for i, axis in enumerate(axes):
        ladder, coloured = every[i // len(parts)], parts[i % len(parts)]
        for name in sorted(shown, key=lambda name: name in coloured):
            lrs, own = losses_by_lr(ladder, name)
            if name not in coloured:
                means = [fmean(losses) for losses in own]
                axis.plot(lrs, means, color=grey, alpha=0.45, linewidth=1)
            else:
                look = {"label": name, "color": colours[name], "linewidth": 1.8}
                draw_curve(axis, ladder, name, **look)
        scale(axis, ladder, shown)
        axis.tick_params("y", labelleft=i % len(parts) == 0)
    themed.legend(figure, axes[: len(parts)], columns=len(parts))
    themed.save(figure, path)


def title(ladder: Sequence[Group]) -> str:
    return f"{ladder[0].cell.task}, β₂ {ladder[0].cell.beta2}"


def losses_by_lr(
    ladder: Sequence[Group], name: str
) -> tuple[list[float], list[list[float]]]:
    """The learning rates at which a warmup ran, and its losses at each."""
    found = {group.cell.lr: list(group.losses(name).values()) for group in ladder}
    found = {lr: losses for lr, losses in found.items() if losses}
    return list(found), list(found.values())


def draw_curve(axis: Any, ladder: Sequence[Group], name: str, **look: Any) -> None:
    """Draws the mean over seeds against the learning rate, and the range behind it."""
    lrs, own = losses_by_lr(ladder, name)
    axis.plot(lrs, [fmean(losses) for losses in own], **look)
    low, high = ([f(losses) for losses in own] for f in (min, max))
    axis.fill_between(lrs, low, high, color=look["color"], alpha=0.15, lw=0)


def scale(axis: Any, ladder: Sequence[Group], shown: Sequence[str]) -> None:
    """Makes both axes logarithmic, with the lowest and the highest LR at the ends."""
    from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter

    axis.set(xscale="log", yscale="log")
    ends = [ladder[0].cell.lr, ladder[-1].cell.lr]
    axis.minorticks_off()
    axis.set_xticks(ends, [f"{lr:g}" for lr in ends], fontsize="small")
    for tick, side in zip(axis.get_xticklabels(), ("left", "right"), strict=True):
        tick.set_horizontalalignment(side)
    every = [
        loss for name in shown for own in losses_by_lr(ladder, name)[1] for loss in own
    ]
    low, high = 0.95 * min(every), 1.05 * max(every)
    axis.set_ylim(low, high)
    axis.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5), numticks=4) if high > 3 * low else MaxNLocator(4)
    )
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.tick_params("y", labelsize="small")


def misset(results: Results, path: Path) -> None:
    """Loss less that at the right length, in seed standard deviations."""
    from docs.scripts import themed

    groups = grouped(results)
    own = {"all tasks": groups, **by_task(groups)}
    figure, axes = themed.panels(list(own), columns=3, height=1.6)
    for axis, each in zip(axes, own.values(), strict=True):
        axis.axhline(0, color=themed.COLOURS["muted"][0], linewidth=0.8)
        for kind, beside in (("fixed", 0.93), ("adaptive", 1.07)):
            found = {
                wrong: [0.0, 0.0] if wrong == RIGHT else lost(each, kind, wrong)
                for wrong in WRONG
            }
            found = {wrong: values for wrong, values in found.items() if values}
            means = [fmean(values) for values in found.values()]
            bars = [margin(values) for values in found.values()]
            lengths = [wrong * beside for wrong in found]
            axis.errorbar(lengths, means, bars, label=kind, marker="o", markersize=4)
        axis.set_xscale("log")
        axis.set_xticks([1, 10, 100], ["1", "10", "100"])
    for axis in axes[-3:]:
        axis.set_xlabel("length, %")
    themed.legend(figure, axes[:1], columns=2)
    themed.save(figure, path)


FIGURES = {"by_lr": by_lr, "misset": misset}
