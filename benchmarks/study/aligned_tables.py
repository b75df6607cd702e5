"""The tables of the study of aligned mode. All of them work on a part of the record."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from statistics import fmean

from benchmarks.markdown_tables import grid
from benchmarks.study.measures import Group, Results, grouped, margin, over_seeds
from benchmarks.study.store import key_of
from benchmarks.study.tables import by_ladder, ladders, names, regrets, spreads
from benchmarks.study.tables import with_margin as told

ALIGNED, RAMP, SHORT = "aligned 30 %", "fixed 30 %", "fixed 3 %"
FORCED = f"{ALIGNED} threshold=-0.99"  # climbs although it sees no signal
STEADY, DEFAULT = "adaptive 30 % steady", "adaptive 30 %"
BASE = {  # updates of a run of each task, at 1x
    **{"digits MLP": 3000, "rare words": 3000, "digits CNN": 1200},
    **{"char-LM LSTM": 600, "char-LM post-LN": 400, "char-LM pre-LN": 400},
    **{"fine-tuning": 1000, "batch 8, then 64": 1000},
}
OF_HORIZON = {"char-LM LSTM": 0.99, "digits CNN": 0.999, "batch 8, then 64": 0.999}
LONG = 1000  # updates: from here on the lowest LRs must not be worse than a short ramp


def every(results: Results) -> list[Group]:
    """All groups; the best fixed length may be the whole run."""
    return grouped(results, most=1.0)


def at(groups: list[Group], times: int) -> list[Group]:
    """The groups of the tasks of `BASE` with Adam, this many times as long."""
    return [
        group
        for group in groups
        if group.cell.optimizer == "Adam"
        and group.cell.updates == times * BASE.get(group.cell.task, -1)
    ]


def aligned(groups: list[Group]) -> list[str]:
    """The candidates, without controls and changes."""
    return [n for n in names(groups) if n.startswith("aligned") and n != FORCED]


def aligned_state(results: Results) -> str:
    """How many of the planned runs there are, and what the new ones took."""
    planned = {key_of(each.run) for each in results.study.plan}
    rows = {key_of(row) for row in results.rows}
    own = [row for row in results.rows if row["warmup"]["kind"] in NEW]
    hours = sum(row.get("cpu_seconds", 0.0) for row in own) / 3600
    head = ["planned", "there", "with a new warmup", "their core-hours"]
    line = [str(len(planned)), str(len(planned & rows)), str(len(own)), f"{hours:.2f}"]
    return grid(head, [line])


NEW = ("aligned", "climbing", "loss_gap", "held_ramp", "replay_aligned")


def aligned_narrowing(results: Results) -> str:
    """Failures, and mean log(loss / lowest mean of the cell), by candidate."""
    groups = every(results)
    shown = aligned(groups)
    whole = [g for g in groups if all(g.losses(name) for name in shown)]
    lines = []
    for name in shown:
        excess = [
            math.log(mean(group, name) / min(mean(group, other) for other in shown))
            for group in whole
        ]
        failed = sum(group.failed(name) for group in whole)
        if excess:
            lines.append([name, str(len(excess)), str(failed), f"{fmean(excess):.3f}"])
    return grid(["candidate", "cells", "failed", "mean excess, log"], lines)


def mean(group: Group, name: str) -> float:
    return fmean(group.losses(name).values())


def aligned_regret(results: Results) -> str:
    """The fixed lengths, the rules, and aligned mode, on the ladders at 1x."""
    groups = at(every(results), 1)
    return regrets(groups, [name for name in names(groups) if " of " not in name])


def aligned_targets(results: Results) -> str:
    """What was registered, for each candidate at 1x and at 4x."""
    lines = []
    for times in (1, 4):
        groups = at(every(results), times)
        for name in aligned(groups):
            for asked, found, yes in asks(groups, name):
                verdict = "" if yes is None else "yes" if yes else "no"
                lines.append([f"{name}, {times}x", asked, found, verdict])
    return grid(["", "asked", "found", "met"], lines)


def asks(groups: list[Group], name: str) -> list[tuple[str, str, bool | None]]:
    """Each part of the target: what was asked, what was found, whether it is met."""
    own = [group for group in groups if group.regret(name)]
    if not own:
        return []
    cells = [fmean(group.regret(name).values()) for group in own]
    whole = fmean(over_seeds(group.regret(name) for group in own) or [math.nan])
    failed = sum(group.failed(name) for group in own)
    found: list[tuple[str, str, bool | None]] = [
        ("mean regret ≤ 0.5", f"{whole:+.2f}", whole <= 0.5),
        ("no cell above 2.5", f"{max(cells):+.1f}", max(cells) <= 2.5),
        ("no failure", str(failed), not failed),
    ]
    ours, fixed = by_ladder(own, name), fixed_sensitivity(own)
    if ours and fixed:
        text = f"{round(fmean(ours), 3) + 0.0:.3f}, best fixed {fixed:.3f}"
        found.append(("LR sensitivity ≤ half", text, fmean(ours) <= fixed / 2))
    cold = [
        values
        for ladder in ladders(groups)
        for group in ladder[:2]
        if group.cell.updates >= LONG
        and (values := over_seeds(spreads([group], name, SHORT)))
    ]
    worse = sum(fmean(values) - margin(values) > 1.0 for values in cold)
    text = f"{worse} of {len(cold)} cells"
    found.append(("cold: nowhere told > 1 sd worse", text, not worse if cold else None))
    return found


def fixed_sensitivity(groups: list[Group]) -> float | None:
    """LR sensitivity of the best single fixed length that ran in all these groups."""
    shown = {name for group in groups for name in group.fixed()}
    there = [n for n in shown if all(group.losses(n) for group in groups)]
    found = [values for name in there if (values := by_ladder(groups, name))]
    return min(map(fmean, found)) if found else None


def aligned_controls(results: Results) -> str:
    """Aligned mode minus its controls, in seed standard deviations."""
    groups = every(results)
    lines = []
    for times, name in itertools.product((1, 4, 16), names(groups)):
        is_control = " of " in name or name.startswith("climbing")
        own = [g for g in at(groups, times) if g.minus(ALIGNED, name)]
        if not is_control or not own:
            continue
        failed = [
            sum(group.failed(which) for group in own) for which in (name, ALIGNED)
        ]
        minus = over_seeds(spreads(own, ALIGNED, name))
        line = [name, f"{times}x", str(len(own)), told(minus), *map(str, failed)]
        lines.append(line)
    head = [
        "control",
        "horizon",
        "cells",
        "aligned minus it",
        "it failed",
        "aligned failed",
    ]
    return grid(head, lines)


def aligned_ladders(results: Results) -> str:
    """By ladder: the lowest and the highest mean loss over the LRs, and failures."""
    lines = []
    for ladder in ladders(every(results)):
        shown = [n for n in names(ladder) if n in (SHORT, RAMP) or is_climb(n)]
        for name in shown:
            own = [mean(group, name) for group in ladder if group.losses(name)]
            if not own:
                continue
            cell = ladder[0].cell
            failed = sum(group.failed(name) for group in ladder)
            where = f"{cell.task}, {cell.optimizer}, β₂ {cell.beta2}, {cell.updates}"
            line = [where, name, str(len(own)), f"{min(own):.3f}", f"{max(own):.3f}"]
            lines.append([*line, str(failed)])
    head = ["ladder, updates", "warmup", "LRs", "lowest loss", "highest loss", "failed"]
    return grid(head, lines)


def is_climb(name: str) -> bool:
    return name.startswith("aligned")


def aligned_horizon(results: Results) -> str:
    """Aligned mode minus the ramps at 1x, 4x, 16x, in nats; with and without decay."""
    groups = every(results)
    lines = []
    for task, beta2 in OF_HORIZON.items():
        for own_task in (task, f"{task}, no decay"):
            for times in (1, 4, 16):
                own = [
                    group
                    for group in groups
                    if (group.cell.optimizer, group.cell.beta2) == ("Adam", beta2)
                    and group.cell.task == own_task
                    and group.cell.updates == times * BASE[task]
                    and group.losses(ALIGNED)
                ]
                for group in own:
                    ends = [
                        row["groups"][0]["factor"]
                        for row in group.rows[ALIGNED].values()
                        if not row.get("error")
                    ]
                    minus = [
                        told(group.minus(ALIGNED, other).values(), 3)
                        for other in (SHORT, RAMP, "fixed 100 %")
                    ]
                    line = [own_task, f"{times}x", f"{group.cell.lr:g}", *minus]
                    lines.append([*line, f"{fmean(ends):.3f}" if ends else ""])
    head = ["task", "horizon", "LR", "minus 3 %", "minus 30 %", "minus 100 %"]
    return grid([*head, "factor at the end"], lines)


def aligned_fallback(results: Results) -> str:
    """Whether it fell back on the ramp, and whether a forced climb would be worse."""
    counts: Counter[tuple[bool, bool]] = Counter()
    for group in every(results):
        forced = group.minus(FORCED, RAMP)
        for seed, row in group.rows.get(ALIGNED, {}).items():
            if seed in forced and not row.get("error"):
                fell = row["groups"][0]["reason"] == "ramped"
                counts[fell, forced[seed] > 0] += 1
    lines = [
        [text, str(counts[fell, True]), str(counts[fell, False])]
        for fell, text in ((True, "fell back on the ramp"), (False, "climbed"))
    ]
    return grid(["", "a climb is worse than the ramp", "it is not"], lines)


def aligned_adaptive(results: Results) -> str:
    """The default of adaptive mode beside the one that waits for a steady v."""
    groups = [g for g in at(grouped(results), 1) if g.losses(STEADY)]
    return regrets(groups, [DEFAULT, STEADY], DEFAULT)


TABLES = {
    table.__name__: table
    for table in (
        *(aligned_state, aligned_narrowing, aligned_targets, aligned_regret),
        *(aligned_controls, aligned_ladders, aligned_horizon, aligned_fallback),
        aligned_adaptive,
    )
}
