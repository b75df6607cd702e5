"""An adaptive warmup around Adam, and the factors that follow from verdicts."""

from __future__ import annotations

from typing import Any

from torch.nn import Parameter

from tests.support.optimizers import ROWS
from warmopt import Warmed
from warmopt._groups.schedule import Schedule
from warmopt.adaptive import Adaptive
from warmopt.criteria import Reading
from warmopt.shapes import MODES
from warmopt.trace import Trace

ADAM = ROWS["adam-loop"]
WAYS = ("accelerate", "ramp", "end")
SHAPES = [name for name in MODES if MODES[name].steps_from_beta2 is None]


def never(_: Reading) -> bool:
    return False


def always(_: Reading) -> bool:
    return True


def in_the_middle(reading: Reading) -> bool:
    """Settled only for a while, depending on the values and on the update."""
    return 9 <= reading.update <= 15 and reading.inverse_root_variance < 10


def walked(schedule: Schedule, verdicts: list[bool]) -> tuple[list[float], bool]:
    """Factors by `Adaptive`, a verdict before each; and whether it came to its end."""
    adaptive, steps = schedule.pace, schedule.steps
    last, fast, factors = schedule.last_update(steps), 0, []
    for update, settled in enumerate(verdicts, 1):
        fast = adaptive.next_fast(fast, settled)
        position = adaptive.position(update, fast, steps, last)
        factors.append(schedule.factor(position, steps, schedule.start))
        if position >= last:
            return factors, True
    return factors, False


def wrapped(
    steps: int = 60, trace: Trace | None = None, **adaptive: Any
) -> tuple[Warmed, list[Parameter]]:
    params, mode = ADAM.params(), Adaptive(**adaptive)
    return ADAM.wrap(params, steps=steps, mode=mode, trace=trace), params


def run(
    warmed: Warmed, params: list[Parameter], updates: range, step: Any = ADAM.step
) -> list[list[float]]:
    """Steps, and returns the effective LRs."""
    used = []
    for update in updates:
        step(warmed, params, update)
        used.append(warmed.get_last_lr())
    return used
