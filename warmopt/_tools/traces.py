"""Draws what traces have recorded. It needs matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from warmopt._tools.plots import dress

__all__ = ["Picture", "Quantity", "Replayed", "Run", "draw"]

ALIGNMENT, VARIANCE = "alignment", "variance of 1/√v"  # labels of panels
_Curve = tuple[Sequence[float], Sequence[float]]  # updates, and values there


class Picture(Figure):
    """A figure that a notebook shows if a cell ends with it, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


class Quantity(NamedTuple):
    """A number that a criterion looks at, at each reading of a run.

    Attributes:
        label: What it is called.
        limit: What the criterion compares it with; None if there is nothing.
        values: One for each row of the run.
    """

    label: str
    limit: float | None
    values: list[float]


class Replayed(NamedTuple):
    """What a replay has given: see `Replay`."""

    end: int | None
    verdicts: list[bool]
    factors: list[float]


class Run(NamedTuple):
    """What is drawn of one trace.

    Attributes:
        rows: The rows of one pool, as in `Trace`.
        acting: Name of the criterion that acts; None if all of them only watch.
        quantities: The numbers to draw. If there are none, it is the variance that the
            default criterion looks at.
        losses: The loss of some updates, by update.
    """

    rows: Sequence[dict[str, Any]]
    acting: str | None
    quantities: Sequence[Quantity] = ()
    losses: Mapping[int, float] = {}


def draw(
    runs: Mapping[str, Run], title: str, replays: Mapping[str, Replayed] | None = None
) -> Picture:
    """Returns a picture of the readings of some runs, one above the other.

    From top to bottom: the factor; the effective LR, if the traces have it; the
    alignment, in aligned mode; the quantities, with the limits of their criteria; the
    loss; and which readings counted as settled. If there is only one run, the last
    panel has each of its criteria and each replay, and the background is shaded where
    the acting criterion found the second moment settled.

    Args:
        runs: At least one, by name.
        title: Title of the whole picture.
        replays: Replays of the run, if there is only one, by name.
    """
    replays = replays or {}
    panels: dict[str, dict[str, _Curve]] = {}
    limits: dict[str, set[float]] = {ALIGNMENT: {0.0}}
    for name, run in runs.items():
        for label, curve in _curves(run).items():
            panels.setdefault(label, {})[name] = curve
        labels = _short([quantity.label for quantity in run.quantities])
        for label, quantity in zip(labels, run.quantities, strict=True):
            if quantity.limit is not None:
                limits.setdefault(label, set()).add(quantity.limit)
        if VARIANCE in panels:
            named = [name for name, _ in _judged(run)] + list(replays)
            limits.setdefault(VARIANCE, set()).update(_thresholds(named))
    lanes = _lanes(runs, replays)
    heights = [3.0] * len(panels) + [0.7 + 0.5 * len(lanes)]
    figure = Picture(figsize=(9, 0.7 * sum(heights) + 0.8), layout="constrained")
    ratios = {"height_ratios": heights}
    axes = list(figure.subplots(len(heights), sharex=True, gridspec_kw=ratios))
    for axis, (label, curves) in zip(axes, panels.items(), strict=False):
        dress(axis, label)
        for name, curve in curves.items():
            look = {"linewidth": 1.8, "marker": ".", "markersize": 4}
            if label == "loss":
                look["marker"] = ""
            axis.plot(*curve, label=name, color=f"C{list(runs).index(name)}", **look)
        _draw_limits(axis, limits.get(label, set()), is_named=label != ALIGNMENT)
        positive = [value > 0 for _, values in curves.values() for value in values]
        if label == VARIANCE and any(positive):
            axis.set_yscale("log")
    _draw_lanes(axes[-1], lanes)
    axes[-1].set_xlim(left=0)
    if len(runs) > 1:
        axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        (run,) = runs.values()
        _shade_settled(axes, run.rows)
        _draw_replays(axes, run.rows, replays)
    figure.suptitle(title)
    return figure


def _curves(run: Run) -> dict[str, _Curve]:
    """The curves of a run, by the label of their panel."""
    rows = run.rows
    judged = [row["judged_after"] for row in rows]
    then = [update + 1 for update in judged]
    factors = [row["factor"] for row in rows]
    curves: dict[str, _Curve] = {"factor": (then, factors)}
    lrs = [row["lr"] for row in rows]  # None if the LR is a tensor
    if lrs and None not in lrs:
        effective = [lr * factor for lr, factor in zip(lrs, factors, strict=True)]
        curves["effective LR"] = then, effective
    alignments = [row["alignment"] for row in rows]
    if any(each == each for each in alignments):  # nan is not itself
        curves[ALIGNMENT] = judged, alignments
    read = [row["update"] for row in rows]
    labels = _short([quantity.label for quantity in run.quantities])
    for label, quantity in zip(labels, run.quantities, strict=True):
        curves[label] = read, quantity.values
    if not run.quantities:
        curves[VARIANCE] = read, [row["inverse_root_variance"] for row in rows]
    if run.losses:
        curves["loss"] = list(run.losses), list(run.losses.values())
    return curves


def _judged(run: Run) -> list[tuple[str, list[bool]]]:
    """The name and the verdicts of each criterion; the one that acts comes first."""
    rows, acting = run.rows, run.acting
    acts = [] if acting is None else [(acting, [row["settled"] for row in rows])]
    watching = rows[0]["watched"] if rows else ()
    return acts + [(name, [row["watched"][name] for row in rows]) for name in watching]


def _lanes(
    runs: Mapping[str, Run], replays: Mapping[str, Replayed]
) -> list[tuple[str, list[int], list[bool]]]:
    """The lanes of the last panel: a name, updates, and the verdict after each."""
    if len(runs) > 1:
        acting = [(name, run) for name, run in runs.items() if run.acting is not None]
        return [
            (name, _when(run), [row["settled"] for row in run.rows])
            for name, run in acting
        ]
    ((_, run),) = runs.items()
    judged = _judged(run)
    again = {name: r.verdicts for name, r in replays.items() if r.verdicts}
    roles = [""] * len(judged) + [" (replayed)"] * len(again)
    if run.acting is not None:
        roles[0] = " (acts)"
    heads = _short([*(name for name, _ in judged), *again])
    names = [
        head.replace("\n", f"{role}\n") if "\n" in head else head + role
        for head, role in zip(heads, roles, strict=True)
    ]
    verdicts = [*(own for _, own in judged), *again.values()]
    return [(n, _when(run), own) for n, own in zip(names, verdicts, strict=True)]


def _when(run: Run) -> list[int]:
    return [row["judged_after"] for row in run.rows]


def _thresholds(names: Sequence[str]) -> list[float]:
    """The threshold of each criterion that looks at the variance.

    A trace that was saved has only the names of its criteria, so the threshold is read
    from the name.
    """
    pattern = r"(?:InverseRootVariance|Steady)\(threshold=([^,)]+)"
    return [float(found[1]) for name in names if (found := re.match(pattern, name))]


def _draw_limits(axis: Any, limits: set[float], is_named: bool) -> None:
    for limit in sorted(limits):
        axis.axhline(limit, color="0.4", linestyle="--", linewidth=1.2)
        if is_named:
            right = {"transform": axis.get_yaxis_transform(), "va": "center"}
            axis.text(1.01, limit, f"{limit:g}", **right)


def _draw_lanes(axis: Any, lanes: list[tuple[str, list[int], list[bool]]]) -> None:
    """Draws a row of ticks for each lane: one per reading, grey if not settled."""
    dress(axis, "")
    axis.set_title("settled", loc="left", fontsize="medium")
    for height, (_, at, settled) in enumerate(lanes):
        for verdict, color in ((False, "0.85"), (True, f"C{height}")):
            when = [t for t, yes in zip(at, settled, strict=True) if yes == verdict]
            marks = {"color": color, "markersize": 11, "markeredgewidth": 1.6}
            axis.plot(when, [height] * len(when), "|", **marks)
    axis.set_yticks(range(len(lanes)), [name for name, *_ in lanes])
    axis.set_ylim(max(len(lanes), 1) - 0.5, -0.5)
    axis.set_xlabel("update")
    axis.xaxis.get_major_locator().set_params(integer=True)


def _shade_settled(axes: list[Any], rows: Sequence[dict[str, Any]]) -> None:
    """Shades where the last verdict of the acting criterion was "settled"."""
    begins = [row["judged_after"] for row in rows]
    ends = [*begins[1:], *(begin + 1 for begin in begins[-1:])]
    for begin, end, row in zip(begins, ends, rows, strict=True):
        if row["settled"]:
            for axis in axes:
                axis.axvspan(begin, end, alpha=0.1, linewidth=0)


def _draw_replays(
    axes: list[Any], rows: Sequence[dict[str, Any]], replays: Mapping[str, Replayed]
) -> None:
    """Draws where each replay would have ended, and its factors if it has some."""
    for number, (name, replayed) in enumerate(replays.items(), 1):
        look = {"color": f"C{number}", "linestyle": ":", "linewidth": 1.6}
        if replayed.factors:
            then = [row["judged_after"] + 1 for row in rows]
            axes[0].plot(then, replayed.factors, label=f"{name} (replayed)", **look)
            axes[0].legend(frameon=False)
        if replayed.end is not None:
            for axis in axes:
                axis.axvline(replayed.end, **look)
            above = {"transform": axes[0].get_xaxis_transform(), "fontsize": "small"}
            text = f"{_short([name])[0]} would end"
            axes[0].text(replayed.end, 1.01, text, ha="center", va="bottom", **above)


def _short(names: list[str]) -> list[str]:
    """Leaves out the constants in names that are still different without them."""
    heads = [name.partition("(")[0] for name in names]
    return [
        head if heads.count(head) == 1 else name.replace("(", "\n(", 1)
        for head, name in zip(heads, names, strict=True)
    ]
