"""What the results say about a warmup: regret, intervals, sensitivity to the LR."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from statistics import fmean, stdev, variance
from typing import Any, NamedTuple

from benchmarks.study.config import Config, Planned
from benchmarks.study.pool import follow
from benchmarks.study.store import Row, key_of
from benchmarks.study.warmups import Settings

MOST = 0.3  # the longest fixed warmup that may be the best, as a part of the run
# 97.5 % points of Student's t, by degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


class Results(NamedTuple):
    """A study, and its results so far."""

    study: Config
    machine: Row
    rows: list[Row]


class Cell(NamedTuple):
    """Warmups are compared only within the same cell."""

    task: str
    optimizer: str
    beta2: float | None
    lr: float
    updates: int


def label(warmup: Settings, updates: int) -> str:
    """Describes a warmup in words, with its length as a share of the run."""
    options = dict(warmup)
    kind, steps = options.pop("kind"), options.pop("steps", None)
    share = "" if steps is None else f"{100 * steps / updates:.3g} %"
    if kind == "linear":
        return f"fixed {share}" if steps else "none"
    if kind == "untuned":
        return str(options["mode"])
    words = [str(options.pop("criterion", "")), str(options.pop("on_settled", ""))]
    constants = {**options.pop("constants", {}), **options}
    words += [f"{name}={value}" for name, value in constants.items()]
    return " ".join(word for word in [kind, share, *words] if word)


def loss(row: Row) -> float:
    """The final loss. If it is worse than guessing, or not finite, guessing counts."""
    if row.get("error") or row["loss"] is None:
        return math.inf if row.get("error") else float(row["chance"])
    return float(min(row["loss"], row["chance"]))


class Group:
    """All runs of a cell, by warmup and seed."""

    def __init__(self, cell: Cell, most: float = MOST) -> None:
        self.cell, self.most = cell, most
        self.rows: dict[str, dict[int, Row]] = {}  # on the other seeds
        self.tuning: dict[str, dict[int, Row]] = {}  # on the tuning seeds

    def losses(self, which: str) -> dict[int, float]:
        """Final losses by seed, without the runs that had an error."""
        rows = self.rows.get(which, {})
        return {
            seed: loss(row) for seed, row in rows.items() if math.isfinite(loss(row))
        }

    def failed(self, which: str) -> int:
        return sum(fails(row) for row in self.rows.get(which, {}).values())

    def fixed(self) -> list[str]:
        """The fixed lengths among which the best is chosen."""
        longest = self.most * self.cell.updates
        return [
            name
            for name, rows in self.rows.items()
            if (warmup := next(iter(rows.values()))["warmup"])["kind"] == "linear"
            and isinstance(warmup["steps"], int)
            and warmup["steps"] <= longest
            and " of " not in name
        ]

    @cached_property
    def best(self) -> str | None:
        """The fixed length that is best on the tuning seeds."""
        found = {
            name: fmean(loss(row) for row in rows.values())
            for name, rows in self.tuning.items()
            if name in self.fixed()
        }
        return min(found, key=found.__getitem__) if found else None

    @cached_property
    def spread(self) -> float | None:
        """Standard deviation over seeds, pooled over the fixed lengths.

        Lengths with a failed run are left out: they would make the deviation so large
        that every regret looks small.
        """
        names = [name for name in self.fixed() if len(self.losses(name)) > 1]
        sound = [name for name in names if not self.failed(name)] or names
        if not sound:
            return None
        return math.sqrt(fmean(variance(self.losses(name).values()) for name in sound))

    def minus(self, which: str, other: str | None) -> dict[int, float]:
        """Differences of the final losses, seed by seed, in nats."""
        own, their = self.losses(which), self.losses(other or "")
        return {seed: own[seed] - their[seed] for seed in own if seed in their}

    def regret(self, which: str) -> dict[int, float]:
        """How much worse than the best fixed length, by seed, in units of `spread`."""
        if not self.spread:
            return {}
        found = self.minus(which, self.best)
        return {seed: value / self.spread for seed, value in found.items()}


def fails(row: Row) -> bool:
    return bool(row.get("error")) or row["failed"]


def grouped(results: Results, most: float = MOST) -> list[Group]:
    """Puts the results of planned runs, and of their controls, into groups."""
    study, by_key = results.study, {key_of(row): row for row in results.rows}
    groups: dict[Cell, Group] = {}
    named: dict[tuple[Any, ...], Settings] = {}

    def add(planned: Planned, name: str) -> Row | None:
        run = planned.run
        row = by_key.get(key_of(run))
        if row is not None:
            cell = Cell(*(run[field] for field in Cell._fields))
            group = groups.setdefault(cell, Group(cell, most))
            kept = group.tuning if run["seed"] in study.tuning else group.rows
            kept.setdefault(name, {})[run["seed"]] = row
        return row

    for planned in study.plan:
        warmup, updates = planned.run["warmup"], planned.run["updates"]
        name = label(warmup, updates)
        if named.setdefault((updates, name), warmup) != warmup:
            name += f" ({warmup.get('steps')} updates)"  # the shares are almost equal
        row = add(planned, name)
        if row is not None:
            followed = {
                control: follow(planned._replace(controls=(control,)), row)
                for control in planned.controls
            }
            for control, made in followed.items():
                for each in made:
                    add(each, f"{control} of {name}")
    return list(groups.values())


# --- statistics -----------------------------------------------------------------------


def margin(values: list[float]) -> float:
    """Half of the 95 % interval of the mean, by Student's t."""
    free = len(values) - 1
    if free < 1:
        return math.nan
    t = STUDENT[free - 1] if free <= len(STUDENT) else 1.96 + 2.6 / free
    return t * stdev(values) / math.sqrt(len(values))


def verdict(values: list[float]) -> int:
    """Returns -1 if the mean is below 0 with 95 % confidence, 1 if above, else 0."""
    mean, half = fmean(values or [math.nan]), margin(values)
    return (mean > half) - (mean < -half)


def means(values: Iterable[dict[int, float]]) -> dict[int, float]:
    """Means over cells, for each seed that all cells have."""
    found = [each for each in values if each]
    seeds = set[int]().union(*found).intersection(*found)
    return {seed: fmean(each[seed] for each in found) for seed in sorted(seeds)}


def over_seeds(values: Iterable[dict[int, float]]) -> list[float]:
    """Lists these means: an interval needs independent values, and only seeds are."""
    return list(means(values).values())


def sensitivity(ladder: list[Group], which: str) -> dict[int, float]:
    """Sensitivity to the LR, by seed (Wortsman et al., 2023, section 2).

    It is the mean over the LRs of min(final loss, first loss) minus the lowest loss.
    The lowest loss is that of the best fixed length at the best LR.
    """
    bests = [
        fmean(own.values())
        for group in ladder
        if (own := group.losses(group.best or ""))
    ]
    return means(
        {
            seed: min(value, group.rows[which][seed]["initial"]) - min(bests)
            for seed, value in group.losses(which).items()
        }
        for group in ladder
        if bests
    )


def lengths(rows: Iterable[Row]) -> list[int]:
    """Lengths of the warmup of the first group, in updates, if it ended."""
    found: list[Any] = [
        row["groups"][0]["length"] for row in rows if not row.get("error")
    ]
    return [length for length in found if length is not None]
