"""The style of all pictures here: SVG files that are light or dark as the reader is.

A picture is drawn by matplotlib in the light colours. `rewrite` then gives each colour
its name, and the file says what the names mean in light and in dark. A browser takes
the dark ones where the page, or the reader's system, is dark. So one file serves the
site and a README.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

WIDTH = 5.5  # inches; on a phone the text is then about 9 pixels high
CURVES = {
    "blue": ("#0969da", "#58a6ff"),
    "orange": ("#bc4c00", "#f0883e"),
    "green": ("#1a7f37", "#3fb950"),
    "red": ("#cf222e", "#ff7b72"),
    "purple": ("#8250df", "#bc8cff"),
    "teal": ("#0e7490", "#39c5cf"),
}
COLOURS = {
    "ground": ("#ffffff", "#131416"),
    "ink": ("#1f2328", "#d5d8dc"),
    "muted": ("#666666", "#9198a1"),
    "faint": ("#d9d9d9", "#3d444d"),
    **CURVES,
}
"""Each colour in light and in dark. Furo has the same grounds."""

OPTIONS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "warmopt",  # the same picture is the same file
    "axes.prop_cycle": cycler(color=[light for light, _ in CURVES.values()]),
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": COLOURS["ground"][0],
    "axes.facecolor": "none",
    "savefig.facecolor": COLOURS["ground"][0],
    "grid.color": COLOURS["muted"][0],
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color"),
        COLOURS["ink"][0],
    ),
    "axes.edgecolor": COLOURS["muted"][0],
}


@contextmanager
def style(size: float = 10) -> Iterator[None]:
    """What is drawn and saved inside has this style, with text of this size."""
    with matplotlib.rc_context({**OPTIONS, "font.size": size}):
        yield


def panels(titles: Sequence[str], columns: int, height: float) -> tuple[Figure, list]:
    """A figure of small panels, row by row, and their axes.

    Args:
        titles: One for each panel; it may be empty.
        columns: How many are in a row.
        height: Of a row, in inches.
    """
    rows = -(-len(titles) // columns)  # rounded up
    figure = Figure(figsize=(WIDTH, height * rows + 0.4), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[len(titles) :]:
        unused.remove()
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title)
        axis.grid(alpha=0.25)
    return figure, axes[: len(titles)]


def legend(figure: Figure, axes: Sequence[Any], columns: int = 3) -> None:
    """Names the curves of these panels, above all of them, column by column."""
    named = [axis.get_legend_handles_labels() for axis in axes]
    handles = [handle for some, _ in named for handle in some]
    labels = [label for _, some in named for label in some]
    place = {"loc": "outside upper center", "ncols": columns, "handlelength": 1.4}
    figure.legend(handles, labels, **place)


def save(figure: Figure, path: Path) -> None:
    """Saves a figure as SVG that is light or dark."""
    figure.savefig(path, format="svg")
    rewrite(path)


def rewrite(path: Path) -> None:
    """Gives the colours in an SVG file of matplotlib their names.

    Raises:
        ValueError: A colour has no name here, so it would be the same in dark.
    """
    names = {light: name for name, (light, _) in COLOURS.items()}

    def named(match: re.Match[str]) -> str:
        what, colour = match.groups()
        if colour not in names:
            raise ValueError(f"colour must be one of {names}, got {colour}.")
        return f"{what}: var(--{names[colour]})"

    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"(fill|stroke|stop-color): (#[0-9a-f]{6})\b", named, text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", text)
    # Text that is black has no colour of its own in the file, and takes this one.
    rules = f":root {{ fill: var(--ink); }} {as_css('svg')}"
    text = text.replace("<defs>", f"<style>{rules}</style>\n <defs>", 1)
    path.write_text(text, encoding="utf-8")


def as_css(where: str) -> str:
    """The colours as variables of CSS, for an SVG file ("svg") or the site ("site")."""
    light, dark = (
        "".join(f"--{name}: {pair[i]};" for name, pair in COLOURS.items())
        for i in (0, 1)
    )
    if where == "svg":
        everywhere, unless_light = ":root", ":root"
    else:  # as furo does it: its button sets data-theme
        everywhere, unless_light = "body", "body:not([data-theme=light])"
    rules = [f"{everywhere}{{{light}}}"]
    if where == "site":
        rules.append(f"body[data-theme=dark]{{{dark}}}")
    rules.append(f"@media (prefers-color-scheme: dark){{{unless_light}{{{dark}}}}}")
    return " ".join(rules)
