"""The warmups that are compared, and the controls that are made from an adaptive run.

A warmup is a function. It takes the `Facts` and its own options, and returns arguments
for `Warmed`. To add one, add it to `WARMUPS`: then a config can use its name as `kind`,
and its parameters as options.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.study.hands import Climbing, LossGap
from benchmarks.study.rules import RULES
from warmopt import Adaptive, Aligned, Trace
from warmopt.shapes import MODES, last_update, rectified

Settings = dict[str, Any]  # of a warmup or a run; only what JSON can store
Spans = list[list[int]]  # first and last update of each stretch at the fast pace
PerGroup = int | list[int]  # one for all param groups, or one for each
PerFactor = float | list[float]


class Facts(NamedTuple):
    """What a warmup may know about the run."""

    beta2: float
    updates: int
    seed: int = 0


def linear(facts: Facts, steps: PerGroup) -> dict[str, Any]:
    """A linear warmup; 0 steps mean no warmup."""
    return {"steps": steps}


def untuned(facts: Facts, mode: str) -> dict[str, Any]:
    """The mode is `untuned_linear`, `untuned_exponential` or `radam`."""
    return {"mode": mode}


def gi(facts: Facts) -> dict[str, Any]:
    """The warmup that is the same as GI-Adam's start (Kalra & Barkeshli, 2024)."""
    end = math.ceil(math.log(1e-6) / math.log(facts.beta2))

    def root(update: float, steps: float) -> float:
        return math.sqrt(1.0 - facts.beta2**update)

    return {"mode": root, "steps": end}


def jump(facts: Facts, steps: int, at: int) -> dict[str, Any]:
    """A ramp over `steps` that jumps to the full LR after `at` updates. Has a trace."""

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


def aligned(
    facts: Facts,
    steps: int,
    rule: str = "align",
    signal: str = "ratio",
    gain: float | None = None,
    most: float | None = None,
    stall: int = 30,
    every: int = 1,
    lag: int | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """`steps` is the cap; all else as in `Aligned`."""
    mode = Aligned(
        rule=rule,  # type: ignore[arg-type]
        signal=signal,  # type: ignore[arg-type]
        **{"gain": gain, "most": most, "stall": stall, "every": every, "lag": lag},
        threshold=threshold,
    )
    return {"mode": mode, "steps": steps}


def climbing(facts: Facts, steps: int, change: str) -> dict[str, Any]:
    """The climb with a change, set by hand: see `Climbing`."""
    return {"steps": 0, "hand": Climbing(steps, change, facts.seed)}


def loss_gap(facts: Facts, target: float) -> dict[str, Any]:
    """The rule of Riabinin et al., 2026, set by hand: see `LossGap`."""
    return {"steps": 0, "hand": LossGap(target)}


def held_ramp(facts: Facts, steps: int, factor: PerFactor) -> dict[str, Any]:
    """A straight ramp to a factor, which stays to the end of the run."""
    every = factor if isinstance(factor, list) else [factor]
    updates = range(1, facts.updates + 1)
    return tabled([[each * min(t / steps, 1.0) for t in updates] for each in every])


def replay_aligned(facts: Facts, factors: list[list[float]]) -> dict[str, Any]:
    """Repeats the factors of an aligned run; the last one stays to the end."""
    n = facts.updates
    return tabled([own[:n] + own[-1:] * (n - len(own)) for own in factors])


def area(facts: Facts, shortfall: float | list[float]) -> dict[str, Any]:
    """A straight ramp where the sum of 1 - factor is `shortfall`."""
    every = shortfall if isinstance(shortfall, list) else [shortfall]
    return tabled([ramp_of(each) for each in every])


def replay(
    facts: Facts, spans: list[Spans], of: Settings, lengths: list[int]
) -> dict[str, Any]:
    """Repeats the factors of an adaptive run, without any readings.

    Args:
        facts: Those of the run.
        spans: For each param group, when it ran at the fast pace.
        of: The settings of the warmup of that run.
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
    "aligned": aligned,
    "climbing": climbing,
    "loss_gap": loss_gap,
    "held_ramp": held_ramp,
    "replay_aligned": replay_aligned,
    "area": area,
    "replay": replay,
}


# --- controls -------------------------------------------------------------------------


def controls(row: dict[str, Any]) -> dict[str, Settings]:
    """Makes fixed warmups from an adaptive run, to compare it with; by name.

    There are none if the warmup did not end within the run.
    """
    of, groups = row["warmup"], row["groups"]
    if of["kind"] == "aligned":
        return controls_of_aligned(row)
    lengths = [group["length"] for group in groups]
    if None in lengths:
        return {}
    found = {"length": {"kind": "linear", "steps": lone(lengths)}}
    if of["kind"] == "linear" and row["loss"] is not None:
        for name, share in (("loss_gap", 1.0), ("loss_gap_off", 0.8)):
            found[name] = {"kind": "loss_gap", "target": round(share * row["loss"], 5)}
    if all("spans" in group for group in groups):
        spans = [group["spans"] for group in groups]
        short = [group["shortfall"] for group in groups]
        replay = {"kind": "replay", "of": of, "spans": spans, "lengths": lengths}
        area = {"kind": "area", "shortfall": lone(short)}
        found |= {"replay": replay, "area": area}
    return found


def controls_of_aligned(row: dict[str, Any]) -> dict[str, Settings]:
    """The same factors on another seed, and a 3 % ramp to what was held."""
    groups = row["groups"]
    ends = [group["factor"] for group in groups]
    tables = [[*group["factors"], group["factor"]] for group in groups]
    steps = max(1, round(0.03 * row["updates"]))
    return {
        "replay": {"kind": "replay_aligned", "factors": tables},
        "held_ramp": {"kind": "held_ramp", "steps": steps, "factor": lone(ends)},
    }


def lone(values: list[Any]) -> Any:
    """If there is only one param group, returns its value instead of a list."""
    return values if values[1:] else values[0]


def factors(facts: Facts, of: Settings, spans: Spans, count: int) -> list[float]:
    """Computes the first factors of an adaptive run, given when it was fast."""
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
    """Returns factors t / n, for the n that makes the sum of 1 - factor `shortfall`.

    n does not have to be whole. If its whole part is m, that is m (1 - (m + 1) / 2n).
    """
    m = math.floor(2.0 * shortfall + 1.0)
    n = m * (m + 1) / (2.0 * (m - shortfall))
    return [min(t / n, 1.0) for t in range(1, m + 2)]


def tabled(tables: list[list[float]]) -> dict[str, Any]:
    """Returns a mode that takes its factors from tables, one for each param group.

    The mode knows a group only by the length of its ramp. So tables of the same length
    are made longer, until all lengths are different.
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
