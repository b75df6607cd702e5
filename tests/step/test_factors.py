"""The factors of a whole warmup for each option, and the momentum's own warmup."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import sgd
from tests.support.reference import effective, watch
from warmopt import Warmed
from warmopt.shapes import MODES, linear

pytestmark = pytest.mark.usefixtures("with_and_without_the_plain_step")


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({"steps": 4}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"steps": 0.4, "total_steps": 10}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"steps": 1e-9, "total_steps": 10}, [1.0, 1.0]),
        ({"steps": 4, "start": 0.2}, [0.4, 0.6, 0.8, 1.0, 1.0]),
        ({"steps": 4, "start": 5}, [4.0, 3.0, 2.0, 1.0, 1.0]),
        ({"steps": 4, "offset": 1}, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"steps": 2, "start": 0.5, "offset": 2}, [0.5, 0.5, 0.75, 1.0, 1.0]),
        ({"steps": 0, "offset": 2}, [1.0, 1.0]),
        ({"steps": 1}, [1.0, 1.0]),
        ({"steps": 1, "offset": 1}, [0.0, 1.0, 1.0]),
        ({"steps": 2, "mode": lambda t, n: t / (2 * n)}, [0.25, 0.5, 1.0, 1.0]),
        ({"steps": 2, "mode": lambda t, n: 0.5, "start": 0.5}, [0.75, 0.75, 1.0]),
        ({"steps": 2, "mode": lambda t, n, start=0.1: start}, [0.1, 0.1, 1.0]),
        ({"steps": 2, "mode": lambda t, n, start: start * t}, [0.0, 0.0, 1.0]),
        ({"steps": 2, "mode": lambda t, n, *, start=None: 1 - start}, [1.0, 1.0]),
        ({"steps": 2, "mode": partial(linear, start=0.5)}, [0.75, 1.0, 1.0]),
    ],
)
def test_the_factor_of_each_update(options: dict, factors: list[float]) -> None:
    """It makes no difference if somebody asks before every step."""
    warmed, asked = (Warmed(sgd()[1], **options) for _ in range(2))
    assert effective(warmed, len(factors)) == pytest.approx(factors, abs=1e-15)
    assert warmed.done
    for factor in factors:
        assert asked.factors == pytest.approx([factor], abs=1e-15)
        asked.step()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_begins_low_and_ends_at_one(mode: str) -> None:
    """With real steps, until the warmup is over."""
    param = Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([param], lr=1.0, betas=(0.9, 0.9))
    steps = {} if MODES[mode].steps_from_beta2 else {"steps": 20}
    warmed = Warmed(optimizer, mode=mode, **steps)
    used = []
    while not warmed.done:
        used.append(warmed.factors[0])
        warmed.step()
    assert used[0] < 0.5
    assert used == sorted(used)
    assert used[-1] == 1.0
    assert len(used) >= 20


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        (lambda p: torch.optim.RMSprop(p, alpha=0.9), 20),
        (lambda p: torch.optim.Adadelta(p, rho=0.9), 20),
        (lambda p: torch.optim.NAdam(p, betas=(0.5, 0.98)), 100),
    ],
)
def test_beta2_is_found_where_the_optimizer_keeps_it(optimizer, steps: int) -> None:
    warmed = Warmed(optimizer([Parameter(torch.zeros(1))]), mode="untuned_linear")
    assert warmed.factors == [1 / steps]


@pytest.mark.parametrize(
    ("optimizer", "seen"),
    [
        (lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.8), [0.6, 0.8, 0.8]),
        (lambda p: torch.optim.Adam(p, lr=1.0, betas=(0.8, 0.9)), [0.6, 0.8, 0.8]),
        (lambda p: torch.optim.RMSprop(p, lr=1.0, momentum=0.8), [0.6, 0.8, 0.8]),
    ],
)
def test_the_momentum_warms_along(optimizer, seen: list[float]) -> None:
    param = Parameter(torch.zeros(1))
    param.grad = torch.ones(1)
    inner = optimizer([param])
    inner.add_param_group({"params": [], "momentum": 0.0, "betas": (0.0, 0.9)})
    warmed = Warmed(inner, steps=2, momentum_start=0.5)

    def momentum(group: dict) -> float:
        return group["betas"][0] if "betas" in inner.defaults else group["momentum"]

    used = watch(inner, lambda inner: momentum(inner.param_groups[0]))
    for _ in range(3):
        base = warmed.param_groups[0].get("betas")
        warmed.step()
        assert momentum(warmed.param_groups[0]) == 0.8
        assert warmed.param_groups[0].get("betas") is base
    assert used == pytest.approx(seen)


@pytest.mark.parametrize("start", [0.8, 1.0])
def test_a_momentum_never_goes_above_the_users_own(start: float) -> None:
    _, optimizer = sgd(momentum=0.9)
    warmed = Warmed(optimizer, steps=4, mode=lambda t, n: 1.5, momentum_start=start)
    seen = watch(optimizer, lambda inner: inner.param_groups[0]["momentum"])
    warmed.step()
    assert seen == [0.9]
