"""The tables of the experiments with adaptive mode, from the runs of short.toml.

They are in docs/adaptive-experiments.md and docs/adaptive-tables.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import fmean, stdev
from typing import NamedTuple

from benchmarks.markdown_tables import grid
from benchmarks.study.measures import Results, loss, verdict
from benchmarks.study.store import Row

FIXED = (0, 20, 100, 300, 3000)
CAPS = (300, 3000)
CANDIDATES = FIXED[:4]  # 3000 never ends: it is just a lower LR
LEVELS = ("low", "middle", "edge")


class Cell(NamedTuple):
    """The settings of one run. If `kind` is adaptive, `steps` is the cap."""

    task: str
    optimizer: str
    lr: float
    seed: int
    kind: str
    steps: int


class Warmup(NamedTuple):
    """A warmup to compare. A control is fixed, with the length that adaptive chose."""

    kind: str  # "fixed", "adaptive", "control"
    steps: int

    def __str__(self) -> str:
        if self.kind == "fixed":
            return f"fixed {self.steps}" if self.steps else "none"
        return f"{self.kind}, cap {self.steps}"


SETTINGS = [Warmup("fixed", n) for n in FIXED] + [Warmup("adaptive", n) for n in CAPS]
NONE, TOO_LONG = SETTINGS[0], SETTINGS[4]
ADAPTIVE, ADAPTIVE_LONG = SETTINGS[5:]


def by_cell(rows: Iterable[Row]) -> dict[Cell, Row]:
    return {
        Cell(
            *(row[name] for name in Cell._fields[:4]),
            row["warmup"]["kind"],
            row["warmup"]["steps"],
        ): row
        for row in rows
    }


class Group:
    """The runs of one task, optimizer and LR."""

    def __init__(
        self, rows: dict[Cell, Row], task: str, optimizer: str, lr: float
    ) -> None:
        self.task, self.optimizer, self.lr = task, optimizer, lr
        self._rows = {
            c[3:]: row for c, row in rows.items() if c[:3] == (*self.name, lr)
        }
        self.seeds = sorted({seed for seed, *_ in self._rows})

    @property
    def name(self) -> tuple[str, str]:
        return self.task, self.optimizer

    def run(self, warmup: Warmup, seed: int) -> Row:
        if warmup.kind != "control":
            kind = "linear" if warmup.kind == "fixed" else "adaptive"
            return self._rows[seed, kind, warmup.steps]
        length = length_of(self.run(Warmup("adaptive", warmup.steps), seed))
        return self._rows[seed, "linear", length]

    def runs(self, warmup: Warmup) -> list[Row]:
        return [self.run(warmup, seed) for seed in self.seeds]

    def losses(self, warmup: Warmup) -> list[float]:
        """Final validation losses, seed by seed."""
        return [loss(row) for row in self.runs(warmup)]

    def lengths(self, warmup: Warmup) -> list[int]:
        """Updates of the warmup, seed by seed."""
        return [length_of(row) for row in self.runs(warmup)]

    def failed(self, warmup: Warmup) -> int:
        return sum(row["failed"] for row in self.runs(warmup))

    def best(self, but: int | None = None) -> Warmup:
        """The fixed length with the best mean over all seeds, or all but one."""
        kept = [i for i in range(len(self.seeds)) if i != but]
        candidates = (Warmup("fixed", n) for n in CANDIDATES)
        return min(candidates, key=lambda w: fmean(self.losses(w)[i] for i in kept))

    def minus(self, warmup: Warmup, other: Warmup) -> list[float]:
        """Differences of the final losses, seed by seed."""
        pairs = zip(self.losses(warmup), self.losses(other), strict=True)
        return [one - another for one, another in pairs]

    def minus_best_of_others(self, warmup: Warmup) -> list[float]:
        """Differences from the length that is best on the other seeds.

        So the length for a seed is chosen without looking at its result.
        """
        own = enumerate(self.losses(warmup))
        return [loss - self.losses(self.best(but=i))[i] for i, loss in own]


def length_of(row: Row) -> int:
    return row["groups"][0]["length"]


Ladders = list[list[Group]]  # for each task and optimizer, its groups by rising LR


def ladders(rows: dict[Cell, Row]) -> Ladders:
    lrs: dict[tuple[str, str], set[float]] = {}
    for cell in rows:
        lrs.setdefault((cell.task, cell.optimizer), set()).add(cell.lr)
    return [[Group(rows, *name, lr) for lr in sorted(own)] for name, own in lrs.items()]


# --- statistics -----------------------------------------------------------------------


def error(values: list[float]) -> float:
    return stdev(values) / math.sqrt(len(values))


def by_seed(values: Iterable[list[float]]) -> list[float]:
    """Means over groups, for each seed, since only seeds are independent."""
    return [fmean(each) for each in zip(*values, strict=True)]


# --- text -----------------------------------------------------------------------------


def with_error(values: list[float]) -> str:
    return f"{fmean(values):.3f} ± {error(values):.3f}"


def difference(values: list[float]) -> str:
    """Mean and standard error, in bold if the mean is clearly not 0."""
    text = f"{fmean(values):+.3f} ± {error(values):.3f}"
    return f"**{text}**" if verdict(values) else text


def failures(count: int) -> str:
    return f" ({count} failed)" if count else ""


def span(lengths: list[int]) -> str:
    return f"{fmean(lengths):.0f} ({min(lengths)} to {max(lengths)})"


def counts(verdicts: list[int]) -> str:
    return " / ".join(str(verdicts.count(which)) for which in (-1, 0, 1))


# --- tables ---------------------------------------------------------------------------


def settings(found: Ladders) -> str:
    """Compares one setting over all optimizers and learning rates of a task."""
    lines = []
    for task in dict.fromkeys(levels[0].task for levels in found):
        own = [group for levels in found for group in levels if group.task == task]
        cells = [
            with_error(by_seed(group.losses(warmup) for group in own))
            + failures(sum(group.failed(warmup) for group in own))
            for warmup in SETTINGS
        ]
        runs = sum(len(group.seeds) for group in own)
        pairs = [
            difference(by_seed(group.minus(ADAPTIVE, other) for group in own))
            for other in (Warmup("fixed", 100), Warmup("fixed", 300))
        ]
        lines.append([f"{task}, {runs} runs each", *cells, *pairs])
    told = [f"adaptive, cap 300, minus fixed {n}" for n in (100, 300)]
    return grid(["", *map(str, SETTINGS), *told], lines)


Comparison = Callable[[Group], list[float]]

AGAINST_FIXED: dict[str, Comparison] = {
    "adaptive minus best fixed": lambda g: g.minus(ADAPTIVE, g.best()),
    "minus best of the other seeds": lambda g: g.minus_best_of_others(ADAPTIVE),
    "minus same length": lambda g: g.minus(ADAPTIVE, Warmup("control", 300)),
    "no warmup minus best fixed": lambda g: g.minus(NONE, g.best()),
}
AT_TEN_TIMES: dict[str, Comparison] = {
    "adaptive minus fixed 3000": lambda g: g.minus(ADAPTIVE_LONG, TOO_LONG),
    "minus adaptive, cap 300": lambda g: g.minus(ADAPTIVE_LONG, ADAPTIVE),
    "minus same length": lambda g: g.minus(ADAPTIVE_LONG, Warmup("control", 3000)),
    "minus best fixed": lambda g: g.minus(ADAPTIVE_LONG, g.best()),
}


def by_level(found: Ladders, comparisons: dict[str, Comparison]) -> str:
    """Means over optimizers; the last column counts single results of the first."""
    lines, every = [], []
    for task in dict.fromkeys(levels[0].task for levels in found):
        own = [levels for levels in found if levels[0].task == task]
        for level, name in zip(zip(*own, strict=True), LEVELS, strict=True):
            made = [list(map(compare, level)) for compare in comparisons.values()]
            every += (told := list(map(verdict, made[0])))
            cells = [difference(by_seed(values)) for values in made]
            lines.append([task, name, *cells, counts(told)])
    lines.append(["all", "", *[""] * len(comparisons), counts(every)])
    return grid(["", "LR", *comparisons, "better / no clear difference / worse"], lines)


def against_fixed(found: Ladders) -> str:
    return by_level(found, AGAINST_FIXED)


def at_ten_times(found: Ladders) -> str:
    return by_level(found, AT_TEN_TIMES)


def ends(found: Ladders) -> str:
    """Updates until the factor is 1."""
    lines = []
    for levels in found:
        line = [*levels[0].name]
        for warmup in (ADAPTIVE, ADAPTIVE_LONG):
            for group in levels:
                lengths = group.lengths(warmup)
                line.append(span(lengths))
        lines.append(line)
    every = [
        span([n for levels in found for g in levels for n in g.lengths(warmup)])
        for warmup in (ADAPTIVE, ADAPTIVE_LONG)
    ]
    lines.append(["all", "", every[0], "", "", every[1], "", ""])
    head = [f"cap {cap}, {level} LR" for cap in CAPS for level in LEVELS]
    return grid(["", "", *head], lines)


def losses(found: Ladders) -> str:
    """Every final loss, with its standard deviation over seeds."""
    lines = []
    for group in (group for levels in found for group in levels):
        line = [*group.name, f"{group.lr:g}"]
        for warmup in SETTINGS:
            values = group.losses(warmup)
            text = f"{fmean(values):.3f} ± {stdev(values):.3f}"
            text = f"**{text}**" if warmup == group.best() else text
            line.append(text + failures(group.failed(warmup)))
        lines.append(line)
    return grid(["", "", "LR", *map(str, SETTINGS)], lines)


def differences(found: Ladders) -> str:
    """Every paired difference, with its standard error."""
    lines = []
    for group in (group for levels in found for group in levels):
        line = [*group.name, f"{group.lr:g}", str(group.best())]
        for cap in CAPS:
            for other in (group.best(), Warmup("control", cap)):
                line.append(difference(group.minus(Warmup("adaptive", cap), other)))
        lines.append(line)
    told = [f"cap {cap} minus {what}" for cap in CAPS for what in ("it", "same length")]
    return grid(["", "", "LR", "best fixed", *told], lines)


def of_results(table: Callable[[Ladders], str]) -> Callable[[Results], str]:
    return lambda results: table(ladders(by_cell(results.rows)))


TABLES = {
    table.__name__: of_results(table)
    for table in (ends, settings, against_fixed, at_ten_times, losses, differences)
}
