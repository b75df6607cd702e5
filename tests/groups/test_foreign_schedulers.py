"""The schedulers of transformers, timm and ignite work together with a warmup."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer, lr_scheduler

from tests.support.peers import timm_scheduler
from tests.support.reference import lrs, watch
from warmopt import Warmed

pytestmark = [
    pytest.mark.xdist_group("transformers"),
    # What timm and ignite call in torch, and what timm will drop.
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\..* is deprecated"),
    pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step"),
    pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated"),
]

UPDATES, EPOCH, STEPS = 30, 3, 12


def by_transformers(
    name: str, optimizer: Optimizer, **options: Any
) -> Callable[[Optimizer], None]:
    from transformers import SchedulerType, get_scheduler

    if name not in {kind.value for kind in SchedulerType}:
        pytest.skip(f"this transformers has no schedule named {name}")
    arguments = {"num_warmup_steps": 0, "num_training_steps": UPDATES}
    scheduler = get_scheduler(
        name, optimizer, **arguments, scheduler_specific_kwargs=options
    )
    metric = [1.0] if name in ("reduce_lr_on_plateau", "greedy") else []

    def run(optimizer: Optimizer) -> None:
        for _ in range(UPDATES):
            optimizer.step()
            scheduler.step(*metric)

    return run


def by_timm(
    name: str, optimizer: Optimizer, **options: Any
) -> Callable[[Optimizer], None]:
    scheduler = getattr(timm_scheduler(), name)(optimizer, **options)

    def run(optimizer: Optimizer) -> None:
        for update in range(1, UPDATES + 1):
            optimizer.step()
            scheduler.step_update(update)
            if update % EPOCH == 0:
                scheduler.step(update // EPOCH, 1.0)

    return run


def by_ignite(
    name: str, optimizer: Optimizer, **options: Any
) -> Callable[[Optimizer], None]:
    from ignite import handlers
    from ignite.engine import Engine, Events

    event = Events.ITERATION_STARTED
    if name in ("LRScheduler", "ReduceLROnPlateauScheduler"):
        event = Events.ITERATION_COMPLETED
    if name == "LRScheduler":
        scheduler = handlers.LRScheduler(lr_scheduler.ExponentialLR(optimizer, 0.9))
    elif name == "ReduceLROnPlateauScheduler":
        scheduler = handlers.ReduceLROnPlateauScheduler(optimizer, "loss", **options)
    elif name in ("ConcatScheduler", "ParamGroupScheduler"):
        parts = [
            handlers.LinearCyclicalScheduler(optimizer, "lr", 0.3, 0.1, 10),
            handlers.CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.2, 40),
        ]
        scheduler = getattr(handlers, name)(parts, **options)
    else:
        scheduler = getattr(handlers, name)(optimizer, "lr", **options)

    def run(optimizer: Optimizer) -> None:
        def update(engine: Engine, _: Any) -> None:
            engine.state.metrics["loss"] = 1.0
            optimizer.step()

        trainer = Engine(update)
        trainer.add_event_handler(event, scheduler)
        trainer.run(range(UPDATES))

    return run


CYCLE = {"start_value": 0.3, "end_value": 0.1, "cycle_size": 10}
POINTS = {"milestones_values": [(3, 0.3), (20, 0.1)]}
MIN_LR = {"min_lr_rate": 0.1}

CASES: list[tuple[Any, str, dict[str, Any]]] = [
    (by_transformers, "linear", {}),
    (by_transformers, "cosine", {}),
    (by_transformers, "cosine_with_restarts", {"num_cycles": 2}),
    (by_transformers, "polynomial", {"power": 2.0}),
    (by_transformers, "constant", {}),
    (by_transformers, "constant_with_warmup", {}),
    (by_transformers, "inverse_sqrt", {"timescale": 10}),
    (by_transformers, "reduce_lr_on_plateau", {"patience": 3}),
    (by_transformers, "cosine_with_min_lr", MIN_LR),
    (by_transformers, "cosine_warmup_with_min_lr", MIN_LR),
    (by_transformers, "warmup_stable_decay", {"num_decay_steps": 10}),
    (by_transformers, "greedy", {"patience": 3}),
    (by_ignite, "LinearCyclicalScheduler", CYCLE),
    (by_ignite, "CosineAnnealingScheduler", CYCLE),
    (by_ignite, "PiecewiseLinear", POINTS),
    (by_ignite, "ConcatScheduler", {"durations": [10]}),
    (by_ignite, "ParamGroupScheduler", {}),
    (by_ignite, "LRScheduler", {}),
    (by_ignite, "ReduceLROnPlateauScheduler", {"patience": 3}),
    (by_timm, "PlateauLRScheduler", {"patience_t": 2}),
    *(
        (by_timm, name, {**options, "t_in_epochs": in_epochs})
        for name, options in (
            ("CosineLRScheduler", {"t_initial": 20}),
            ("MultiStepLRScheduler", {"decay_t": [3, 6], "decay_rate": 0.5}),
            ("PolyLRScheduler", {"t_initial": 20}),
            ("StepLRScheduler", {"decay_t": 4, "decay_rate": 0.5}),
            ("TanhLRScheduler", {"t_initial": 20}),
            ("WSDLRScheduler", {"t_initial": 9, "decay_t": 3}),
        )
        for in_epochs in (False, True)
    ),
]


def bare(**options: float) -> Optimizer:
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    for param in params:
        param.grad = torch.ones(1)
    first, second = ([param] for param in params)
    groups = [{"params": first, **options}, {"params": second, "lr": 0.2}]
    return torch.optim.SGD(groups, lr=0.1)


@pytest.mark.parametrize("attached", ["warmed", "before_wrapping", "after_wrapping"])
@pytest.mark.parametrize(
    ("library", "name", "options"),
    [
        pytest.param(*case, id="-".join([case[1], *map(str, case[2].values())]))
        for case in CASES
    ],
)
def test_effective_lr_is_the_schedules_times_the_factor(
    library: Any, name: str, options: dict[str, Any], attached: str
) -> None:
    scaled = {"lr_scale": 0.5} if library is by_timm else {}
    optimizer = bare(**scaled)
    run = library(name, optimizer, **options)
    expected = watch(optimizer, lrs)
    run(optimizer)

    inner = bare(**scaled)
    if attached == "before_wrapping":
        run = library(name, inner, **options)
    warmed = Warmed(inner, steps=STEPS)
    if attached != "before_wrapping":
        run = library(name, warmed if attached == "warmed" else inner, **options)
    used = watch(inner, lrs)
    run(warmed)

    factors = [min(update / STEPS, 1.0) for update in range(1, UPDATES + 1)]
    assert used == [
        [lr * factor for lr in bases]
        for bases, factor in zip(expected, factors, strict=True)
    ]
    assert lrs(warmed) == lrs(optimizer)
    if not name.startswith("constant"):
        assert expected != [expected[0]] * UPDATES, "the schedule never moved"


def test_the_table_has_every_scheduler() -> None:
    from ignite.handlers import param_scheduler
    from transformers import SchedulerType

    known = {
        by_transformers: {kind.value for kind in SchedulerType},
        by_timm: {name for name in vars(timm_scheduler()) if "LRScheduler" in name},
        by_ignite: {
            name
            for name, value in vars(param_scheduler).items()
            if hasattr(value, "simulate_values") and not inspect.isabstract(value)
        }
        - {"BatchSizeScheduler"},
    }
    tested = {
        library: {name for other, name, _ in CASES if other is library}
        for library in known
    }
    tested[by_transformers] -= {"greedy"} - known[by_transformers]  # before 5
    assert known == tested
