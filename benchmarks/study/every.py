"""Tables and figures of any grid. Every warmup that ran is in each of them.

The docstring of a figure is also its description on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.markdown_tables import grid
from benchmarks.study.figures import draw_curve
from benchmarks.study.measures import Cell, Group, Results, grouped, lengths, margin
from benchmarks.study.tables import is_control, ladders, middle, names, regrets
from warmopt._tools.plots import panels

STYLES = ("-", "--", ":", "-.")


def cell_named(groups: list[Group]) -> Callable[[Cell], str]:
    """Returns what names a cell: its task, and all in which the cells differ."""
    cells = [group.cell for group in groups]
    differ = {
        field for field in Cell._fields if len({getattr(c, field) for c in cells}) > 1
    }

    def named(cell: Cell) -> str:
        words = [cell.task]
        words += [cell.optimizer] * ("optimizer" in differ)
        words += [] if cell.beta2 is None else [f"β₂ {cell.beta2:g}"]
        words += [f"LR {cell.lr:g}"] * (cell.lr > 0)
        words += [f"{cell.updates} updates"] * ("updates" in differ)
        return ", ".join(words)

    return named


def means(group: Group) -> dict[str, float]:
    """The mean final loss of each warmup that has one."""
    found = {name: list(group.losses(name).values()) for name in group.rows}
    return {name: fmean(own) for name, own in found.items() if own}


def errors(group: Group, name: str) -> int:
    return sum(bool(row.get("error")) for row in group.rows.get(name, {}).values())


def every_loss(results: Results) -> str:
    """The final loss of each warmup in each cell; the lowest mean is bold."""
    groups, lines = grouped(results), []
    named = cell_named(groups)
    for group in groups:
        mean = means(group)
        for name, rows in group.rows.items():
            values = list(group.losses(name).values())
            text = "" if not values else f"{fmean(values):.4f}"
            text += f" ± {margin(values):.4f}" if values[1:] else ""
            best = name in mean and mean[name] == min(mean.values())
            line = [named(group.cell), name, str(len(rows))]
            line += [f"**{text}**" if best else text, str(group.failed(name))]
            lines.append([*line, middle(lengths(rows.values()))])
    head = ["cell", "warmup", "runs", "final loss", "failed", "length: median, range"]
    return grid(head, lines)


def every_warmup(results: Results) -> str:
    """Each warmup over all cells in which it ran."""
    groups, lines = grouped(results), []
    named = cell_named(groups)
    for name in names(groups):
        own = [group for group in groups if name in group.rows]
        above = [
            (mean[name] - min(mean.values()), named(group.cell))
            for group in own
            if name in (mean := means(group))
        ]
        runs = sum(len(group.rows[name]) for group in own)
        line = [name, str(len(own)), str(sum(not value for value, _ in above))]
        line.append(f"{fmean(value for value, _ in above):.4f}" if above else "")
        line.append("{:.4f} ({})".format(*max(above)) if above else "")
        line.append(f"{sum(group.failed(name) for group in own)} of {runs}")
        lines.append([*line, str(sum(errors(group, name) for group in own))])
    head = ["warmup", "cells", "lowest mean in", "mean loss above the lowest"]
    return grid([*head, "worst cell", "failed", "with an error"], lines)


def every_regret(results: Results) -> str:
    """The same in units of the spread over seeds, against the best fixed length."""
    groups = grouped(results)
    return regrets(groups, [name for name in names(groups) if not is_control(name)])


TABLES = {table.__name__: table for table in (every_loss, every_warmup, every_regret)}


# --- figures --------------------------------------------------------------------------


def every_lr(results: Results, path: Path) -> None:
    """Final loss against the learning rate: mean and range over seeds."""
    figure, axes, every = of_ladders(results, "learning rate")
    styles = looks(names(grouped(results)))
    for axis, ladder in zip(axes, every, strict=True):
        axis.set_xscale("log")
        for name, look in styles.items():
            draw_curve(axis, ladder, name, label=name, marker=".", **look)
    save(figure, axes, path)


def every_length(results: Results, path: Path) -> None:
    """Final loss at the best learning rate of each warmup, against its length."""
    figure, axes, every = of_ladders(results, "steps, % of the run")
    groups = grouped(results)
    series = {name: series_of(name, groups) for name in names(groups)}
    styles = looks(list(dict.fromkeys(label for label, _ in series.values())))
    for axis, ladder in zip(axes, every, strict=True):
        for label, look in styles.items():
            points = {}
            for name in [n for n, (own, _) in series.items() if own == label]:
                found = [mean[name] for g in ladder if name in (mean := means(g))]
                if found:
                    points[series[name][1]] = min(found)
            if None in points:  # it has no length of its own
                axis.axhline(points[None], label=label, linewidth=1.2, **look)
            else:
                at = sorted(points.items())
                axis.plot(
                    [x for x, _ in at],
                    [y for _, y in at],
                    label=label,
                    marker=".",
                    **look,
                )
    save(figure, axes, path)


def series_of(name: str, groups: list[Group]) -> tuple[str, float | None]:
    """The name of a warmup without its length, and its length in % of the run."""
    first = next(group for group in groups if name in group.rows)
    warmup = next(iter(first.rows[name].values()))["warmup"]
    steps = warmup.get("steps")
    if is_control(name) or not isinstance(steps, int):
        return name, None
    words = [
        word for word in name.split() if word not in ("%", f"{share(steps, first):.3g}")
    ]
    label = " ".join(words)
    return "fixed" if label == "none" else label, share(steps, first)


def share(steps: int, group: Group) -> float:
    return 100 * steps / group.cell.updates


def of_ladders(results: Results, across: str) -> tuple[Any, Any, list[list[Group]]]:
    """A figure with a panel for each ladder of LRs."""
    groups = grouped(results)
    every, named = ladders(groups), cell_named(groups)
    titles = [named(ladder[0].cell._replace(lr=0.0)) for ladder in every]
    figure, axes = panels(titles, "Final loss, in nats", across, columns=3)
    return figure, axes, every


def looks(names: list[str]) -> dict[str, dict[str, Any]]:
    """A colour for each; after ten colours with the next kind of line."""
    return {
        name: {"color": f"C{i % 10}", "linestyle": STYLES[i // 10 % len(STYLES)]}
        for i, name in enumerate(names)
    }


def save(figure: Any, axes: Any, path: Path) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=100)


FIGURES = {figure.__name__: figure for figure in (every_lr, every_length)}
