"""The warmups that are compared, and the controls that follow from an adaptive run.

Each is a function of the `Facts` and of its options, and returns arguments of `Warmed`.
To add one, add it to `WARMUPS`: a config can then name it as `kind`, and its
parameters as options.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.study.rules import RULES
from warmopt import Adaptive, Trace
from warmopt.shapes import MODES, last_update, rectified

Settings = dict[str, Any]  # of a warmup or a run: what JSON can hold
Spans = list[list[int]]  # first and last update of each stretch at the fast pace
PerGroup = int | list[int]  # one for all param groups, or one for each


class Facts(NamedTuple):
    """What a warmup may depend on."""

    beta2: float
    updates: int


def linear(facts: Facts, steps: PerGroup) -> dict[str, Any]:
    """No warmup is 0 steps."""
    return {"steps": steps}


def untuned(facts: Facts, mode: str) -> dict[str, Any]:
    """`untuned_linear`, `untuned_exponential` or `radam`."""
    return {"mode": mode}


def gi(facts: Facts) -> dict[str, Any]:
    """What GI-Adam's first second moment amounts to (Kalra & Barkeshli, 2024)."""
    end = math.ceil(math.log(1e-6) / math.log(facts.beta2))

    def root(update: float, steps: float) -> float:
        return math.sqrt(1.0 - facts.beta2**update)

    return {"mode": root, "steps": end}


def jump(facts: Facts, steps: int, at: int) -> dict[str, Any]:
    """A ramp over `steps`, left for the full LR after `at` updates; with readings."""

    def left(update: float, length: float) -> float:
        return update / steps

    return {"mode": left, "steps": at, "trace": Trace()}


def adam_first(facts: Facts, updates: int = 4) -> dict[str, Any]:
    """Plain Adam for some updates, then RAdam (Liu et al., 2020, table 3)."""

    def late(update: float, steps: float) -> float:
        if update <= updates:
            return 1.0
        return rectified(update - updates, 2.0 / (1.0 - facts.beta2))

    return {"mode": late, "steps": facts.updates}


def adaptive(
    facts: Facts,
    steps: int | None = None,
    criterion: str = "inverse_root_variance",
    constants: dict[str, float] | None = None,
    on_settled: str = "accelerate",
    fast: int | None = None,
    every: int = 5,
    window: int = 5,
    shape: str = "linear",
) -> dict[str, Any]:
    """`steps` is the cap; `constants` are those of the criterion."""
    mode = Adaptive(
        RULES[criterion](**constants or {}),
        shape=shape,
        on_settled=on_settled,  # type: ignore[arg-type]
        fast=fast,
        every=every,
        window=window,
    )
    return {"mode": mode, "steps": steps}


def area(facts: Facts, shortfall: float | list[float]) -> dict[str, Any]:
    """A straight ramp whose factors fall short of 1 by so much in sum."""
    every = shortfall if isinstance(shortfall, list) else [shortfall]
    return tabled([ramp_of(each) for each in every])


def replay(
    facts: Facts, spans: list[Spans], of: Settings, lengths: list[int]
) -> dict[str, Any]:
    """The factors of an adaptive run, one by one, whatever happens now.

    Args:
        facts: Those of the run.
        spans: For each param group, when it ran at the fast pace.
        of: The settings of its warmup.
        lengths: For each param group, how many of its updates were below 1.
    """
    return tabled(
        [factors(facts, of, own, n) for own, n in zip(spans, lengths, strict=True)]
    )


WARMUPS: dict[str, Callable[..., dict[str, Any]]] = {
    "linear": linear,
    "untuned": untuned,
    "gi": gi,
    "jump": jump,
    "adam_first": adam_first,
    "adaptive": adaptive,
    "area": area,
    "replay": replay,
}


# --- controls -------------------------------------------------------------------------


def controls(row: dict[str, Any]) -> dict[str, Settings]:
    """What an adaptive run is compared with, by name: fixed warmups made from it.

    Empty if it did not reach its end within the run: there is nothing to match.
    """
    of, groups = row["warmup"], row["groups"]
    lengths = [group["length"] for group in groups]
    if None in lengths:
        return {}
    found = {"length": {"kind": "linear", "steps": lone(lengths)}}
    if all("spans" in group for group in groups):
        spans = [group["spans"] for group in groups]
        short = [group["shortfall"] for group in groups]
        replay = {"kind": "replay", "of": of, "spans": spans, "lengths": lengths}
        area = {"kind": "area", "shortfall": lone(short)}
        found |= {"replay": replay, "area": area}
    return found


def lone(values: list[Any]) -> Any:
    """The value itself where there is one param group only."""
    return values if values[1:] else values[0]


def factors(facts: Facts, of: Settings, spans: Spans, count: int) -> list[float]:
    """Factors of the first updates of an adaptive run, from when it was fast."""
    options = {name: value for name, value in of.items() if name != "kind"}
    built = adaptive(facts, **options)
    mode, steps = built["mode"], built["steps"] or round(2.0 / (1.0 - facts.beta2))
    shape = MODES[mode.shape].shape
    last, fast, found = last_update(shape, steps), 0, []
    for update in range(1, count + 1):
        fast += any(first <= update <= end for first, end in spans)
        position = mode.position(update, fast, steps, last)
        found.append(float(shape(position, steps)) if position <= last else 1.0)
    return found


def ramp_of(shortfall: float) -> list[float]:
    """Factors t / n, n such that they fall short of 1 by so much in sum.

    With m the whole part of n that is m (1 - (m + 1) / 2n); n need not be whole.
    """
    m = math.floor(2.0 * shortfall + 1.0)
    n = m * (m + 1) / (2.0 * (m - shortfall))
    return [min(t / n, 1.0) for t in range(1, m + 2)]


def tabled(tables: list[list[float]]) -> dict[str, Any]:
    """A function mode that looks its factors up, one table for each param group.

    A function sees the length of the group's ramp only, so no two are equally long.
    """
    by_length: dict[int, list[float]] = {}
    for table in tables:
        table = table or [1.0]
        while len(table) in by_length:
            table = [*table, 1.0]
        by_length[len(table)] = table

    def looked_up(update: float, steps: float) -> float:
        return by_length[int(steps)][int(update) - 1]

    return {"mode": looked_up, "steps": list(by_length)}
