"""Pictures of warmups, for the command line. Needs matplotlib or plotext."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Curve", "curve_in_terminal", "save_curves"]

Curve = tuple[str, Sequence[float]]
"""A label, and the value at each update, the first of which is 1."""


def save_curves(
    path: Path, panels: Sequence[tuple[str, Sequence[Curve]]], title: str
) -> None:
    """Saves panels that share their x axis, the updates, as one picture.

    Args:
        path: File to write; its suffix says the format.
        panels: For each panel, from left to right, its y label and its curves. A
            curve keeps its colour through the panels.
        title: Title of the whole picture.
    """
    import matplotlib

    matplotlib.use("agg")  # no display needed
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1,
        len(panels),
        figsize=(6.0 * len(panels), 4.2),
        layout="constrained",
        squeeze=False,
    )
    named: list[str] = []
    for axis, (label, curves) in reversed(list(zip(axes[0], panels, strict=True))):
        for name, values in curves:
            axis.plot(range(1, len(values) + 1), values, label=name, linewidth=1.8)
        axis.set_xlabel("update")
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        names = [name for name, _ in curves]
        if len(names) > 1 and names != named:  # panels of the same curves share one
            axis.legend(frameon=False)
        named = names
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


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
