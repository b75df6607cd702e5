"""Draws curves. Pictures need matplotlib, and curves in the terminal need plotext."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Curve", "curves_in_terminal", "dress", "panels", "save_curves"]

Curve = tuple[str, Sequence[float]] | tuple[str, Sequence[float], Sequence[float]]
"""A label, and the value at each update; the first update is 1. If there are two values
at each update, the curve is a band from the one to the other."""

MARKS = "*+xo#%@~"  # of several curves in the terminal


def save_curves(
    path: Path, parts: Sequence[tuple[str, Sequence[Curve]]], title: str
) -> None:
    """Saves several panels as one picture. The x axis of each is the update.

    Args:
        path: File to write. Its suffix sets the format.
        parts: For each panel, from left to right, its y label and its curves. Curves at
            the same position in their panels have the same colour.
        title: Title of the whole picture.
    """
    figure, axes = panels([label for label, _ in parts], title)
    named: list[str] = []
    # From right to left: a panel needs no legend if its neighbour names its curves.
    for axis, (_, curves) in reversed(list(zip(axes, parts, strict=True))):
        for number, (name, *edges) in enumerate(curves):
            updates = range(1, len(edges[0]) + 1)
            look = {"label": name, "color": f"C{number}"}
            if len(edges) == 1:
                axis.plot(updates, edges[0], linewidth=1.8, **look)
            else:
                axis.fill_between(updates, *edges, alpha=0.3, **look)
        axis.xaxis.get_major_locator().set_params(integer=True)
        names = [name for name, *_ in curves]
        if len(names) > 1 and names != named[: len(names)]:
            axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        named = names
    figure.savefig(path, dpi=120)


def panels(
    labels: Sequence[str], title: str, across: str = "update", columns: int = 3
) -> tuple[Any, list[Any]]:
    """Returns a figure of panels side by side, and the axes of the panels.

    Args:
        labels: The y label of each panel.
        title: Title of the whole figure.
        across: The x label of all panels.
        columns: How many panels are in one row, at most.
    """
    from matplotlib.figure import Figure  # unlike pyplot, it needs no display

    columns = min(columns, len(labels))
    rows = -(-len(labels) // columns)  # rounded up
    width = 6.0 * max(columns, 1.5)  # one alone leaves space for a legend
    figure = Figure(figsize=(width, 4.2 * rows), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    axes, unused = every[: len(labels)], every[len(labels) :]
    for axis in unused:
        axis.remove()
    for axis, label in zip(axes, labels, strict=True):
        dress(axis, label)
        axis.set_xlabel(across)
    figure.suptitle(title)
    return figure, axes


def dress(axis: Any, label: str) -> None:
    """Sets the y label, and the look that all panels have in common."""
    axis.set_ylabel(label)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.ticklabel_format(axis="y", scilimits=(-3, 4))


def curves_in_terminal(label: str, curves: Sequence[Curve], title: str) -> str:
    """Returns a text that shows curves, as wide as the terminal.

    Of a band it shows both edges. Below several curves, a line for each says which mark
    it has.
    """
    from matplotlib.ticker import MaxNLocator
    from plotext import figure

    figure.clear()
    figure.theme("colorless")
    figure.plot_size(shutil.get_terminal_size().columns, 20)
    figure.title(title)
    figure.label("update", "x")
    figure.label(label, "y")
    is_alone = len(curves) == 1
    marks = [None if is_alone else MARKS[n % len(MARKS)] for n in range(len(curves))]
    # The first curve comes last, so that it is on top.
    for (_, *edges), mark in reversed(list(zip(curves, marks, strict=True))):
        for edge in edges:
            updates = range(1, len(edge) + 1)
            figure.draw(figure.signal(updates, edge, marker=mark).lines())
    every = [edge for _, *edges in curves for edge in edges]
    rounded = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
    heights = list(rounded.tick_values(0.0, max(map(max, every)) or 1.0))
    rounded.set_params(integer=True)
    across = rounded.tick_values(0, last := max(map(len, every)))
    figure.ruler("y").lim(0, heights[-1])
    figure.ruler("y").ticks(heights, [f"{height:.3g}" for height in heights])
    figure.ruler("x").ticks([int(tick) for tick in across if 1 <= tick <= last])
    drawn: str = figure.build().string(colorless=True)
    if is_alone:
        return drawn
    told = [f"{m} {name}" for m, (name, *_) in zip(marks, curves, strict=True)]
    return "\n".join([drawn.rstrip("\n"), *told])
