"""The tables of docs/study.md and docs/study-tables.md."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from statistics import fmean, median_low

from benchmarks.markdown_tables import grid
from benchmarks.study.measures import (
    Group,
    Results,
    grouped,
    lengths,
    margin,
    over_seeds,
    sensitivity,
    verdict,
)
from benchmarks.study.store import Row

TUNING_TASKS = ("rare words", "digits CNN", "char-LM pre-LN", "batch 8, then 64")
RIGHT = 10  # per cent of the run: the right length, compared with wrong ones
WRONG = {
    **{1: "10x too short", 3: "3x too short", RIGHT: "right"},
    **{30: "3x too long", 100: "10x too long"},
}
BLIND = 30  # updates: until then no verdict of the default can act
RAMP, SAFE = "fixed 30 %", 2.0  # the ramp before a jump; the loss that is still safe
DEFAULT = "adaptive 30 %"  # what the candidates are compared with
CLOCK = "adaptive 30 % clock updates=25"  # the same pace, but it reads nothing


# --- text -----------------------------------------------------------------------------


def with_margin(values: Iterable[float], digits: int = 2) -> str:
    """Mean and half of the 95 % interval, in bold if 0 is outside."""
    values = list(values)
    if not values:
        return ""
    mean, half = fmean(values), margin(values)
    if math.isnan(half):
        return f"{mean:+.{digits}f}"
    text = f"{mean:+.{digits}f} ± {half:.{digits}f}"
    return f"**{text}**" if verdict(values) else text


def middle(found: list[int]) -> str:
    """Median and range."""
    if not found:
        return ""
    return f"{median_low(found)} ({min(found)} to {max(found)})"


def where(group: Group) -> str:
    cell = group.cell
    beta2 = "" if cell.beta2 is None else f", β₂ {cell.beta2:g}"
    return f"{cell.task}{beta2}, LR {cell.lr:g}"


# --- which groups, which warmups ------------------------------------------------------


def by_task(groups: list[Group]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.cell.task, []).append(group)
    return found


def ladders(groups: list[Group]) -> list[list[Group]]:
    """Lists groups that differ only in the LR, sorted by LR."""
    found: dict[object, list[Group]] = {}
    for group in groups:
        found.setdefault(group.cell._replace(lr=0.0), []).append(group)
    return [sorted(each, key=lambda group: group.cell.lr) for each in found.values()]


def names(groups: list[Group]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group.rows))


def is_control(name: str) -> bool:
    return " of " in name


def is_plain(name: str) -> bool:
    """Fixed, untuned, or adaptive with the default options."""
    return not is_control(name) and len(name.split()) <= 3


# --- tables ---------------------------------------------------------------------------


def state(results: Results) -> str:
    """How many runs there are, and on which machine."""
    rows = results.rows
    hours = sum(row.get("cpu_seconds", 0.0) for row in rows) / 3600
    machine = ", ".join(f"{k} {v}" for k, v in results.machine["machine"].items())
    planned = sum(1 + len(planned.controls) for planned in results.study.plan)
    errors = sum(1 for row in rows if row.get("error"))
    head = ["runs", "planned at most", "with an error", "core-hours", "machine"]
    line = [str(len(rows)), str(planned), str(errors), f"{hours:.2f}", machine]
    return grid(head, [line])


def regrets(groups: list[Group], shown: Iterable[str], default: str = "") -> str:
    """For each warmup: mean and worst regret, failures, sensitivity, length."""
    lines = []
    for name in shown:
        own = [group for group in groups if group.regret(name)]
        if not own:
            continue
        cells = [(fmean(group.regret(name).values()), where(group)) for group in own]
        runs = [row for group in own for row in group.rows[name].values()]
        line = [
            *(name, str(len(own))),
            with_margin(over_seeds(group.regret(name) for group in own)),
            f"{max(cells)[0]:+.1f} ({max(cells)[1]})",
            str(sum(value > 2 for value, _ in cells)),
            f"{sum(group.failed(name) for group in own)} of {len(runs)}",
            str(sum(group.failed(group.best or "") for group in own)),
            with_margin(by_ladder(own, name), 3),
            middle(lengths(runs)),
        ]
        if default:
            line.insert(3, with_margin(over_seeds(spreads(own, name, default))))
        lines.append(line)
    head = ["warmup", "cells", "mean regret", "worst cell", "cells above 2", "failed"]
    head += ["failed, best fixed", "LR sensitivity, nats", "length: median, range"]
    if default:
        head.insert(3, f"minus {default}")
    return grid(head, lines)


def spreads(groups: list[Group], name: str, other: str) -> list[dict[int, float]]:
    """Differences of two warmups in seed standard deviations, cell by cell."""
    return [
        {seed: value / group.spread for seed, value in group.minus(name, other).items()}
        for group in groups
        if group.spread
    ]


def by_ladder(groups: list[Group], name: str) -> list[float]:
    """LR sensitivity by seed: the mean over ladders with more than one LR."""
    return over_seeds(
        sensitivity(ladder, name) for ladder in ladders(groups) if ladder[1:]
    )


def plain_regret(results: Results) -> str:
    """Compares single settings over all cells."""
    groups = grouped(results)
    return regrets(groups, filter(is_plain, names(groups)))


def tunes(group: Group) -> bool:
    """Whether the task is one that tunes; the others decide."""
    return group.cell.task in TUNING_TASKS


def rules(groups: list[Group]) -> str:
    """Compares criteria, paces, sampling and candidates with the default and GI."""
    others = (name for name in names(groups) if name.startswith("adaptive"))
    shown = [name for name in others if not is_plain(name)]
    return regrets(groups, ["gi", DEFAULT, *shown] if shown else [], DEFAULT)


def rules_tuning(results: Results) -> str:
    return rules(list(filter(tunes, grouped(results))))


def rules_deciding(results: Results) -> str:
    return rules(list(itertools.filterfalse(tunes, grouped(results))))


def registered(results: Results) -> str:
    """The questions that were written down before the first run, with answers."""
    groups = grouped(results)
    lines = []
    for name in filter(is_cap, names(groups)):
        mean = fmean(over_seeds(group.regret(name) for group in groups) or [math.nan])
        worst = max(cell_means(groups, name), default=math.nan)
        told = f"mean {mean:+.2f}, worst cell {worst:+.1f}"
        lines.append([f"{name} meets its target", told, mean <= 0.5 and worst <= 2])
    own, theirs = (lost(groups, kind, 100) for kind in ("adaptive", "fixed"))
    if own and theirs:
        told = f"adaptive {with_margin(own)}, fixed {with_margin(theirs)}"
        insures = fmean(own) <= 1 < fmean(theirs)
        lines.append(["a cap of 100 % insures", told, insures])
    hot = [ladder[-2:] for ladder in ladders(groups)]
    better = [
        all(beats(own, control) for control in ("length", "replay")) for own in hot
    ]
    told = f"better in {sum(better)} of {len(better)} ladders"
    lines.append(["the moment matters", told, 2 * sum(better) > len(better)])
    deciding = list(itertools.filterfalse(tunes, groups))
    for name in filter(is_candidate, names(deciding)):
        if cell_means(deciding, name):
            lines.append([f"{name} wins", *wins(deciding, name)])
    return grid(
        ["", "found", ""], [[*line, "yes" if yes else "no"] for *line, yes in lines]
    )


def is_cap(name: str) -> bool:
    """Whether it is adaptive with default options, with any cap."""
    return name.startswith("adaptive") and is_plain(name)


def is_candidate(name: str) -> bool:
    return name == "gi" or (name.startswith(DEFAULT + " ") and "clock" not in name)


def cell_means(groups: list[Group], name: str) -> list[float]:
    """The mean regret in each cell."""
    return [fmean(own.values()) for group in groups if (own := group.regret(name))]


def beats(groups: list[Group], control: str) -> bool:
    """Whether the default is clearly better than a control, over these cells."""
    minus = over_seeds(
        group.minus(DEFAULT, f"{control} of {DEFAULT}") for group in groups
    )
    return verdict(minus) < 0


def wins(groups: list[Group], name: str) -> tuple[str, bool]:
    """Whether a candidate is better than both the default and the clock."""
    own = [group for group in groups if group.regret(name)]
    minus = [over_seeds(spreads(own, name, other)) for other in (DEFAULT, CLOCK)]
    worst = [max(cell_means(own, which)) for which in (name, DEFAULT)]
    failed = [sum(group.failed(which) for group in own) for which in (name, DEFAULT)]
    told = (
        f"minus the default {with_margin(minus[0])}, the clock {with_margin(minus[1])}"
    )
    told += f"; worst cell {worst[0]:+.1f} ({worst[1]:+.1f}); failed {failed[0]} "
    told += f"({failed[1]})"
    lower = all(verdict(values) < 0 for values in minus)
    return told, lower and worst[0] <= worst[1] and failed[0] <= failed[1]


def cells(results: Results) -> str:
    """For every cell, the best fixed length and the regret of the plain warmups."""
    groups = [group for group in grouped(results) if group.best and group.spread]
    shown = list(filter(is_plain, names(groups)))
    lines = []
    for group in groups:
        best = list(group.losses(group.best or "").values())
        line = [where(group), group.best or "", f"{fmean(best):.3f}" if best else ""]
        line.append(f"{group.spread:.4f}")
        for name in shown:
            failed = group.failed(name)
            text = with_margin(group.regret(name).values(), 1)
            line.append(text + f" ({failed} failed)" * bool(failed))
        lines.append(line)
    return grid(["cell", "best fixed", "its loss", "seed sd", *shown], lines)


def wrong_length(results: Results) -> str:
    """What a wrong length costs, compared with the right one of the same kind."""
    groups = grouped(results)
    lines = []
    for kind in ("fixed", "adaptive"):
        for task, own in {**by_task(groups), "all": groups}.items():
            found = [lost(own, kind, wrong) for wrong in WRONG if wrong != RIGHT]
            lines.append([kind, task, *map(with_margin, found)])
    head = [text for wrong, text in WRONG.items() if wrong != RIGHT]
    return grid(["", "", *head], lines)


def lost(groups: list[Group], kind: str, wrong: int) -> list[float]:
    """The cost by seed, in standard deviations over seeds."""
    right = f"{kind} {RIGHT} %"
    return over_seeds(
        lost_in
        for group in groups
        for lost_in in spreads([group], at(group, kind, wrong), right)
    )


def at(group: Group, kind: str, share: int) -> str:
    """The name of a warmup. If its cap comes before any verdict, it is a fixed one."""
    blind = group.cell.updates * share / 100 <= BLIND
    return f"{'fixed' if blind else kind} {share} %"


def controls(results: Results) -> str:
    """Adaptive minus its controls, in nats, by task and place on the LR ladder."""
    groups = grouped(results)
    shown = [name.partition(" of ") for name in names(groups) if is_control(name)]
    lines = []
    for task, own in by_task(groups).items():
        levels = list(zip(*ladders(own), strict=False))
        for level, each in enumerate(levels, 1):
            line = [task, f"{level} of {len(levels)}"]
            for control, of, rule in shown:
                minus = over_seeds(g.minus(rule, control + of + rule) for g in each)
                line.append(with_margin(minus, 4))
            lines.append(line)
    return grid(["", "LR", *(f"{rule} minus {c}" for c, _, rule in shown)], lines)


PREDICTORS: dict[str, Callable[[Row], float | None]] = {
    "spread of 1/√v (the default)": lambda row: row["reading"]["inverse_root_variance"],
    "drift, median": lambda row: row["reading"]["drift"],
    "norm ratio": lambda row: row["reading"]["norm_ratio"],
    "update RMS": lambda row: row["reading"]["update_rms"],
    "moment of the jump, later is safer": lambda row: -row["warmup"]["at"],
    "peak LR": lambda row: row["lr"],
}
"""What may show whether the full LR is safe. A lower value should mean safer."""


def safe_jumps(results: Results) -> str:
    """How often a safe jump to the full LR has a lower value than an unsafe one."""
    jumps = [
        [
            (group.rows[name][seed], harm <= SAFE)
            for name in group.rows
            if name.startswith("jump")
            for lost in spreads([group], name, RAMP)
            for seed, harm in lost.items()
        ]
        for group in grouped(results)
    ]
    every = [pair for cell in jumps for pair in cell]
    lines = []
    for name, value in PREDICTORS.items():
        within = [
            right for cell in jumps if (right := ordered(cell, value)) is not None
        ]
        whole = ordered(every, value)
        if whole is None or not within:
            continue
        mean = f"{fmean(within):.2f} ({min(within):.2f} to {max(within):.2f})"
        lines.append([name, f"{whole:.2f}", mean])
    safe = sum(is_safe for _, is_safe in every)
    head = f"over all {len(every)} jumps, {safe} of them safe"
    return grid(["", head, "within a cell: mean, range"], lines)


def ordered(
    jumps: list[tuple[Row, bool]], value: Callable[[Row], float | None]
) -> float | None:
    """The area under the ROC curve (0.5: no better than chance).

    None if all jumps are safe or none is.
    """
    found = [(value(row), is_safe) for row, is_safe in jumps]
    safe = [each for each, is_safe in found if is_safe and each is not None]
    harm = [each for each, is_safe in found if not is_safe and each is not None]
    if not (safe and harm):
        return None
    pairs = itertools.product(safe, harm)
    return fmean((own < other) + 0.5 * (own == other) for own, other in pairs)


def chosen(results: Results) -> str:
    """The length at which the default ended, by cell and cap: median and range."""
    groups = grouped(results)
    shown = list(filter(is_cap, names(groups)))
    lines = []
    for group in groups:
        found = [middle(lengths(group.rows.get(n, {}).values())) for n in shown]
        lines.append([where(group), str(group.cell.updates), *found])
    return grid(["cell", "updates", *shown], lines)


TABLES = {
    table.__name__: table
    for table in (
        *(state, registered, plain_regret, wrong_length, controls),
        *(rules_tuning, rules_deciding, safe_jumps, chosen, cells),
    )
}
