"""Measures a case: all contenders around one optimizer, from the first step to rows.

There are two kinds of cases. In the first the optimizer's step does nothing, so that
only the work around it is measured. In the second the step is a real one, and is
compared with the same step without a warmup. `timing` says how the time is taken,
`cases` and `contenders` say what is measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from benchmarks.overhead.cases import WRAPS, Case
from benchmarks.overhead.contenders import CONTENDERS, CONTROL, STEPS, Seat, bare
from benchmarks.overhead.devices import Device, count
from benchmarks.overhead.record import Row, rows
from benchmarks.overhead.timing import Runner, measure, ratio

LEAST, MOST = 10, 300  # rounds per case
ATTEMPTS = 2  # if the control is not 1; by chance that happens once in twenty

Skip = Callable[[str, str], None]


def measured(
    case: Case,
    device: Device,
    seconds: float,
    least: int,
    progress: Callable[[float], Any],
    skip: Skip,
) -> list[Row]:
    """Measures a case; returns its rows, or none if it cannot run here."""
    if why := case.why_not(device):
        skip(case.name, why)
        return []
    wrap, eager = WRAPS[case.run], case.run == "eager"
    try:
        optimizer = case.build(device)
        control = bare(optimizer, 0, wrap)
        for _ in range(3):
            control()
    except Exception as error:  # such as no compiler, or too little memory
        skip(case.name, _told(error))
        return []
    size = min(p.numel() for g in optimizer.param_groups for p in g["params"])
    runners, counts = [Runner(CONTROL, control)], [count(control, device, size, eager)]
    contenders = [c for c in CONTENDERS if c.few or case.all_contenders]
    for contender, (state, steps) in itertools.product(contenders, STEPS.items()):
        if not contender.runs(case.optimizer, state):
            continue
        seat = Seat(optimizer)
        with seat:
            try:
                step = contender.build(optimizer, steps, wrap)
                for _ in range(3):
                    step()
                counts.append(count(step, device, size, eager))
            except Exception as error:
                skip(f"{case.name}, {contender.name}, {state}", _told(error))
                continue
        runners.append(Runner(contender.name, step, state, contender.period, seat))
    seconds *= 1 + case.all_contenders
    for _ in range(ATTEMPTS):
        measure(control, runners, device.clock, seconds, least, MOST, progress)
        if all(ratio(runners[0], kind).covers(1) for kind in runners[0].own):
            break
    about = {
        "case": case.name,
        "tensors": len(case.shapes),
        "parameters": case.parameters,
    }
    return [{**about, **row} for row in rows(runners, counts)]


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
