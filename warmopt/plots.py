"""Pictures of warmups. Needs matplotlib; in the terminal, plotext."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["Curve", "curve_in_terminal", "panels", "save_curves", "save_trace"]

Curve = tuple[str, Sequence[float]]
"""A label, and the value at each update, the first of which is 1."""


def save_curves(
    path: Path, parts: Sequence[tuple[str, Sequence[Curve]]], title: str
) -> None:
    """Saves panels that share their x axis, the updates, as one picture.

    Args:
        path: File to write; its suffix says the format.
        parts: For each panel, from left to right, its y label and its curves. A
            curve keeps its colour through the panels.
        title: Title of the whole picture.
    """
    figure, axes = panels([label for label, _ in parts], title)
    named: list[str] = []
    for axis, (_, curves) in reversed(list(zip(axes, parts, strict=True))):
        for name, values in curves:
            axis.plot(range(1, len(values) + 1), values, label=name, linewidth=1.8)
        names = [name for name, _ in curves]
        if len(names) > 1 and names != named:  # panels of the same curves share one
            axis.legend(frameon=False)
        named = names
    figure.savefig(path, dpi=120)


def save_trace(path: str | PathLike[str], rows: Sequence[dict[str, Any]]) -> None:
    """Saves a picture of the readings of one pool (see `Trace.rows`).

    From left to right: the factor; what the default criterion looks at, shaded where
    the acting criterion found it settled; when each criterion would have said so.
    """
    labels = ["factor", "variance of 1/√v in the window", "settled"]
    figure, (factor, variance, verdicts) = panels(labels, "Readings of a warmup")
    at = [row["judged_after"] for row in rows]
    factor.plot(at, [row["factor"] for row in rows], linewidth=1.8)
    read = [row["update"] for row in rows]
    values = [row["inverse_root_variance"] for row in rows]
    variance.plot(read, values, linewidth=1.8, marker=".")
    if any(value > 0 for value in values):
        variance.set_yscale("log")
    acting = [bool(row["settled"]) for row in rows]
    variance.fill_between(
        read, 0, 1, acting, alpha=0.15, transform=variance.get_xaxis_transform()
    )
    judges = {"acting": acting}
    for name in rows[0]["watched"] if rows else ():
        judges[name.partition("(")[0]] = [row["watched"][name] for row in rows]
    for height, settled in enumerate(judges.values()):
        when = [update for update, yes in zip(at, settled, strict=True) if yes]
        verdicts.plot(when, [height] * len(when), "|", markersize=14)
    verdicts.set_yticks(range(len(judges)), list(judges))
    verdicts.set_ylim(-0.5, len(judges) - 0.5)
    figure.savefig(path, dpi=120)


def panels(
    labels: Sequence[str], title: str, across: str = "update", columns: int = 3
) -> tuple[Any, list[Any]]:
    """A figure of panels side by side, so many in a row, and their axes."""
    from matplotlib.figure import Figure  # needs no display

    columns = min(columns, len(labels))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(6.0 * columns, 4.2 * rows), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    axes, unused = every[: len(labels)], every[len(labels) :]
    for axis in unused:
        axis.remove()
    for axis, label in zip(axes, labels, strict=True):
        axis.set_xlabel(across)
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure, axes


def curve_in_terminal(label: str, values: Sequence[float], title: str) -> str:
    """Returns one curve drawn with characters, as wide as the terminal."""
    from plotext import figure

    figure.clear()
    figure.theme("colorless")
    figure.plot_size(shutil.get_terminal_size().columns, 20)
    figure.title(title)
    figure.label("update", "x")
    figure.label(label, "y")
    last = len(values)
    figure.draw(figure.signal(range(1, last + 1), values).lines())
    figure.ruler("x").ticks(sorted({1, *(last * i // 4 for i in range(1, 5))} - {0}))
    drawn: str = figure.build().string(colorless=True)
    return drawn
