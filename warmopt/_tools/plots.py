"""Draws warmups. Pictures need matplotlib, and curves in the terminal need plotext."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["Curve", "curve_in_terminal", "panels", "save_curves", "save_trace"]

Curve = tuple[str, Sequence[float]]
"""A label, and the value at each update; the first update is 1."""

ALIGNMENT, VARIANCE = "alignment", "variance of 1/√v"  # labels of curves

_Rows = Sequence[dict[str, Any]]  # of one pool, as in `Trace`


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
    # From right to left: if neighbours have the same curves, only the last of them gets
    # a legend.
    for axis, (_, curves) in reversed(list(zip(axes, parts, strict=True))):
        for name, values in curves:
            axis.plot(range(1, len(values) + 1), values, label=name, linewidth=1.8)
        names = [name for name, _ in curves]
        if len(names) > 1 and names != named:
            axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        named = names
    figure.savefig(path, dpi=120)


def save_trace(
    path: str | PathLike[str], rows: _Rows, acting: str | None, title: str
) -> None:
    """Saves a picture of the readings of one pool.

    A pool is a set of param groups that share one verdict. From top to bottom, it shows
    the factor; the effective LR, if the trace has it; the alignment, in aligned mode;
    the number that the default criterion looks at, with the threshold of each criterion
    of this kind; and which readings each criterion found settled. The background is
    shaded where the acting criterion found the second moment settled.

    Args:
        path: File to write. Its suffix sets the format.
        rows: The rows of one pool, as in `Trace`.
        acting: Name of the criterion that acts; None if all of them only watch.
        title: Title of the whole picture.
    """
    from matplotlib.figure import Figure

    curves, judged = _curves(rows), _judged(rows, acting)
    heights = [3.0] * len(curves) + [0.7 + 0.5 * len(judged)]
    figure = Figure(figsize=(9, 0.7 * sum(heights) + 0.8), layout="constrained")
    ratios = {"height_ratios": heights}
    axes = list(figure.subplots(len(heights), sharex=True, gridspec_kw=ratios))
    for axis, (label, updates, numbers) in zip(axes, curves, strict=False):
        _dress(axis, label)
        axis.plot(updates, numbers, linewidth=1.8, marker=".", markersize=4)
    verdicts, names = axes[-1], [name for name, _ in judged]
    for axis, (label, *_) in zip(axes, curves, strict=False):
        if label == ALIGNMENT:
            axis.axhline(0.0, color="0.4", linestyle="--", linewidth=1.2)
        elif label == VARIANCE:
            if any(row["inverse_root_variance"] > 0 for row in rows):
                axis.set_yscale("log")
            _draw_thresholds(axis, names)
    ticks = _short(names)
    if acting is not None:
        ticks[0] += " (acts)"
    at = [row["judged_after"] for row in rows]
    _draw_verdicts(verdicts, at, ticks, [settled for _, settled in judged])
    _shade_settled(axes, rows)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _curves(rows: _Rows) -> list[tuple[str, list[int], list[float]]]:
    """The label of each curve, its updates, and its values there."""
    then = [row["judged_after"] + 1 for row in rows]
    factors = [row["factor"] for row in rows]
    curves = [("factor", then, factors)]
    lrs = [row["lr"] for row in rows]  # None if the LR is a tensor
    if lrs and None not in lrs:
        effective = [lr * factor for lr, factor in zip(lrs, factors, strict=True)]
        curves.append(("effective LR", then, effective))
    read = [row["update"] for row in rows]
    alignments = [row["alignment"] for row in rows]
    if any(each == each for each in alignments):  # nan is not itself
        curves.append((ALIGNMENT, [row["judged_after"] for row in rows], alignments))
    variances = [row["inverse_root_variance"] for row in rows]
    return [*curves, (VARIANCE, read, variances)]


def _judged(rows: _Rows, acting: str | None) -> list[tuple[str, list[bool]]]:
    """The name and the verdicts of each criterion; the one that acts comes first."""
    acts = [] if acting is None else [(acting, [row["settled"] for row in rows])]
    watching = rows[0]["watched"] if rows else ()
    return acts + [(name, [row["watched"][name] for row in rows]) for name in watching]


def _draw_thresholds(axis: Any, names: list[str]) -> None:
    """Draws a line at the threshold of each criterion that looks at the variance.

    A trace that was saved has only the names of its criteria, so the threshold is read
    from the name.
    """
    for name in names:
        if found := re.match(r"InverseRootVariance\(threshold=([^)]+)\)", name):
            threshold = float(found[1])
            axis.axhline(threshold, color="0.4", linestyle="--", linewidth=1.2)
            right = {"transform": axis.get_yaxis_transform(), "va": "center"}
            axis.text(1.01, threshold, f"{threshold:g}", **right)


def _draw_verdicts(
    axis: Any, at: list[int], names: list[str], judged: list[list[bool]]
) -> None:
    """Draws a row of ticks for each criterion: one per reading, grey if not settled."""
    _dress(axis, "")
    axis.set_title("settled", loc="left", fontsize="medium")
    for height, settled in enumerate(judged):
        for verdict, color in ((False, "0.85"), (True, f"C{height}")):
            when = [t for t, yes in zip(at, settled, strict=True) if yes == verdict]
            marks = {"color": color, "markersize": 11, "markeredgewidth": 1.6}
            axis.plot(when, [height] * len(when), "|", **marks)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axis.set_xlabel("update")
    axis.set_xlim(left=0)


def _shade_settled(axes: list[Any], rows: _Rows) -> None:
    """Shades where the last verdict of the acting criterion was "settled"."""
    begins = [row["judged_after"] for row in rows]
    ends = [*begins[1:], *(begin + 1 for begin in begins[-1:])]
    for begin, end, row in zip(begins, ends, rows, strict=True):
        if row["settled"]:
            for axis in axes:
                axis.axvspan(begin, end, alpha=0.1, linewidth=0)


def _short(names: list[str]) -> list[str]:
    """Leaves out the constants in names that are still different without them."""
    heads = [name.partition("(")[0] for name in names]
    return [
        head if heads.count(head) == 1 else name.replace("(", "\n(", 1)
        for head, name in zip(heads, names, strict=True)
    ]


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
    figure = Figure(figsize=(6.0 * columns, 4.2 * rows), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    axes, unused = every[: len(labels)], every[len(labels) :]
    for axis in unused:
        axis.remove()
    for axis, label in zip(axes, labels, strict=True):
        _dress(axis, label)
        axis.set_xlabel(across)
    figure.suptitle(title)
    return figure, axes


def _dress(axis: Any, label: str) -> None:
    """Sets the y label, and the look that all panels have in common."""
    axis.set_ylabel(label)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.ticklabel_format(axis="y", scilimits=(-3, 4))


def curve_in_terminal(label: str, values: Sequence[float], title: str) -> str:
    """Returns a text that shows one curve, as wide as the terminal."""
    from plotext import figure

    figure.clear()
    figure.theme("colorless")
    figure.plot_size(shutil.get_terminal_size().columns, 20)
    figure.title(title)
    figure.label("update", "x")
    figure.label(label, "y")
    last = len(values)
    figure.draw(figure.signal(range(1, last + 1), values).lines())
    heights = [max(values) * i / 4 for i in range(5)]
    figure.ruler("y").lim(0, heights[-1])
    figure.ruler("y").ticks(heights, [f"{height:.3g}" for height in heights])
    figure.ruler("x").ticks(sorted({1, *(last * i // 4 for i in range(1, 5))} - {0}))
    drawn: str = figure.build().string(colorless=True)
    return drawn
