"""The tables of docs/study.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import fmean

from benchmarks.study.measures import (
    Group,
    grouped,
    lengths,
    margin,
    over_seeds,
    sensitivity,
)
from benchmarks.study.pages import Results, grid

RIGHT = 0.1  # of the run: the length that counts as right when it is set wrong
WRONG = {0.01: "10x too short", 0.03: "3x too short", 0.1: "right"} | {
    0.3: "3x too long",
    1.0: "10x too long",
}


def with_margin(values: Iterable[float], digits: int = 2) -> str:
    """Mean and 95 % interval; bold where that leaves out 0."""
    values = list(values)
    if not values:
        return ""
    mean, half = fmean(values), margin(values)
    if math.isnan(half):
        return f"{mean:+.{digits}f}"
    text = f"{mean:+.{digits}f} ± {half:.{digits}f}"
    return f"**{text}**" if abs(mean) > half else text


def of(groups: list[Group], key: str) -> dict[object, list[Group]]:
    found: dict[object, list[Group]] = {}
    for group in groups:
        found.setdefault(getattr(group.cell, key), []).append(group)
    return found


def names(groups: list[Group]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group.rows))


def ladders(groups: list[Group]) -> list[list[Group]]:
    """Groups that differ in nothing but the LR, by rising LR."""
    found: dict[object, list[Group]] = {}
    for group in groups:
        found.setdefault(group.cell._replace(lr=0.0), []).append(group)
    return [sorted(each, key=lambda group: group.cell.lr) for each in found.values()]


def where(group: Group) -> str:
    cell = group.cell
    return f"{cell.task}, {cell.optimizer}, beta2 {cell.beta2}, LR {cell.lr:g}"


def state(results: Results) -> str:
    """How much there is."""
    rows = results.rows
    hours = sum(row.get("seconds", 0.0) for row in rows) / 3600
    planned = len(results.study.plan)
    errors = sum(1 for row in rows if row.get("error"))
    machine = ", ".join(f"{k} {v}" for k, v in results.machine["machine"].items())
    head = ["runs", "planned, without controls", "with an error", "core-hours", "machine"]
    line = [str(len(rows)), str(planned), str(errors), f"{hours:.2f}", machine]
    return grid(head, [line])


def regret(results: Results) -> str:
    """One setting over everything: mean and worst cell, failures, sensitivity."""
    return regrets(grouped(results.study, results.rows))


def regrets(groups: list[Group], only: Callable[[str], bool] = bool) -> str:
    lines = []
    for name in filter(only, names(groups)):
        own = [group for group in groups if group.regret(name)]
        if not own:
            continue
        cells = [(fmean(group.regret(name).values()), where(group)) for group in own]
        runs = [row for group in own for row in group.rows[name].values()]
        failed = sum(group.failed(name) for group in own)
        best = sum(group.failed(group.best or "") for group in own)
        lines.append(
            [
                name,
                str(len(own)),
                with_margin(over_seeds(group.regret(name) for group in own)),
                f"{max(cells)[0]:+.1f} ({max(cells)[1]})",
                f"{sum(value > 2 for value, _ in cells)}",
                f"{failed} of {len(runs)} ({best})",
                with_margin(by_ladder(own, name), 3),
                middle(lengths(runs)),
            ]
        )
    head = ["warmup", "cells", "mean regret", "worst cell", "cells above 2"]
    head += ["failed (best fixed)", "LR sensitivity, nats", "length, median and range"]
    return grid(head, lines)


def by_ladder(groups: list[Group], name: str) -> list[float]:
    each = [sensitivity(ladder, name) for ladder in ladders(groups)]
    each = [values for values in each if values]
    if not each or len({len(values) for values in each}) > 1:
        return []
    return [fmean(values) for values in zip(*each, strict=True)]


def middle(found: list[int]) -> str:
    if not found:
        return ""
    ordered = sorted(found)
    return f"{ordered[len(ordered) // 2]} ({ordered[0]} to {ordered[-1]})"


def is_plain(name: str) -> bool:
    """Fixed, untuned, or adaptive with the default options."""
    return " of " not in name and len(name.split()) <= 3


def plain_regret(results: Results) -> str:
    return regrets(grouped(results.study, results.rows), is_plain)


def rules(results: Results) -> str:
    """Criteria, paces, sampling; and candidates, on the cells in which they ran."""
    groups = grouped(results.study, results.rows)
    return regrets(groups, lambda name: not is_plain(name) and " of " not in name)


def cells(results: Results) -> str:
    """Every cell: the best fixed length, and the regret of the plain warmups."""
    groups = grouped(results.study, results.rows)
    shown = [name for name in names(groups) if is_plain(name)]
    lines = []
    for group in groups:
        if not group.best:
            continue
        line = [where(group), group.best, mean(group.losses(group.best))]
        line.append(f"{group.spread:.4f}" if group.spread else "")
        for name in shown:
            failed = group.failed(name)
            text = with_margin(group.regret(name).values(), 1)
            line.append(text + f" ({failed} failed)" * bool(failed))
        lines.append(line)
    return grid(["cell", "best fixed", "its loss", "seed sd", *shown], lines)


def mean(values: dict[int, float]) -> str:
    return f"{fmean(values.values()):.3f}" if values else ""


def wrong_length(results: Results) -> str:
    """What is lost by a length set wrong, against the same warmup set right."""
    groups = grouped(results.study, results.rows)
    lines = []
    for kind in ("fixed", "adaptive"):
        for task, own in of(groups, "task").items():
            lines.append([kind, str(task), *(lost(own, kind, w) for w in WRONG)])
        lines.append([kind, "all", *(lost(groups, kind, w) for w in WRONG)])
    return grid(["", "", *WRONG.values()], lines)


def at(kind: str, wrong: float) -> str:
    return f"{kind} {100 * wrong:.3g} %"


def lost(groups: list[Group], kind: str, wrong: float) -> str:
    if wrong == RIGHT:
        runs = sum(len(group.losses(at(kind, RIGHT))) for group in groups)
        return f"({runs} runs)"
    return with_margin(
        over_seeds(
            {seed: loss / group.spread for seed, loss in minus.items()}
            for group in groups
            if group.spread
            and (minus := group.minus(at(kind, wrong), at(kind, RIGHT)))
        )
    )


def controls(results: Results) -> str:
    """Adaptive less its controls, in nats, by task and place on the LR ladder."""
    groups = grouped(results.study, results.rows)
    controlled = [name for name in names(groups) if " of " in name]
    lines = []
    for task, own in of(groups, "task").items():
        levels = zip(*ladders(own), strict=False)
        for level, each in enumerate(levels, 1):
            line = [str(task), f"{level} of {len(ladders(own)[0])}"]
            for control in controlled:
                rule = control.partition(" of ")[2]
                line.append(
                    with_margin(over_seeds(g.minus(rule, control) for g in each), 4)
                )
            lines.append(line)
    head = [f"{name.partition(' of ')[2]} minus {name.partition(' of ')[0]}" for name in controlled]
    return grid(["", "LR", *head], lines)


def chosen(results: Results) -> str:
    """Length at which the default ended, by task and cap: median and range."""
    groups = grouped(results.study, results.rows)
    caps = [name for name in names(groups) if name.startswith("adaptive") and is_plain(name)]
    lines = []
    for group in groups:
        line = [where(group)]
        for name in caps:
            line.append(middle(lengths(group.rows.get(name, {}).values())))
        if any(line[1:]):
            lines.append(line)
    return grid(["cell", *caps], lines)
