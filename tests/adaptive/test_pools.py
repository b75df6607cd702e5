"""Which groups decide together, and groups that have nothing to decide with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support.adaptive import ADAM, always, in_the_middle, never, run, wrapped
from tests.support.features import needs_muon
from tests.support.optimizers import ROWS
from warmopt import Warmed
from warmopt.adaptive import Adaptive
from warmopt.criteria import InverseRootVariance, Reading
from warmopt.trace import Trace


def two_groups(
    *options: dict[str, Any], **adaptive: Any
) -> tuple[Warmed, list[Parameter]]:
    """One group for each of two parameters."""
    params = ADAM.params()
    groups: list[dict[str, Any]] = [
        {"params": [param], **extra}
        for param, extra in zip(params, options or ({}, {}), strict=True)
    ]
    trace = Trace()
    mode = Adaptive(every=2, window=2, **adaptive)
    optimizer = torch.optim.Adam(groups, lr=0.1)
    return Warmed(optimizer, steps=60, mode=mode, trace=trace), params


def small(reading: Reading) -> bool:
    """Settled only for the first parameter, which has 12 elements."""
    return sum(reading.sizes) == 12


def test_groups_that_began_together_keep_the_ratio_of_their_lrs() -> None:
    warmed, params = two_groups(
        {"weight_decay": 0.1}, {"lr": 0.01}, criterion=in_the_middle
    )
    for one, other in run(warmed, params, range(1, 50)):
        assert one / 0.1 == pytest.approx(other / 0.01, rel=1e-15)
    assert {row["pool"] for row in warmed.trace} == {0}
    assert any(row["settled"] for row in warmed.trace)
    pace = [(g["warmup_fast"], g["warmup_settled"]) for g in warmed.param_groups]
    assert pace[0] == pace[1]


def test_groups_of_one_pool_have_their_own_start() -> None:
    warmed, params = two_groups({}, {"warmup_start": 0.5}, criterion=never)
    expected = ADAM.params()
    groups = [{"params": expected[:1]}, {"params": expected[1:], "warmup_start": 0.5}]
    fixed = Warmed(torch.optim.Adam(groups, lr=0.1), steps=60)
    assert run(warmed, params, range(1, 9)) == run(fixed, expected, range(1, 9))


def test_per_group_decides_for_each_alone() -> None:
    warmed, params = two_groups(criterion=small, per_group=True)
    run(warmed, params, range(1, 12))
    fast = [group["warmup_fast"] for group in warmed.param_groups]
    assert fast == [7, 0]
    run(warmed, params, range(12, 61))
    assert warmed.done
    assert warmed.done_reason == "settled"


def test_a_late_group_decides_alone() -> None:
    warmed, params = wrapped(60, criterion=small, every=2, window=2, trace=Trace())
    run(warmed, params, range(1, 8))
    late = Parameter(torch.randn(4, 3))
    warmed.add_param_group({"params": [late]})
    both = [*params, late]
    run(warmed, both, range(8, 18))
    fast = [group["warmup_fast"] for group in warmed.param_groups]
    assert fast == [0, 6]  # read after its 2nd, judged after its 4th, of 10
    assert [r["update"] for r in warmed.trace if r["pool"] == 1] == [2, 4, 6, 8]


def test_a_group_that_parts_loses_no_fast_update() -> None:
    """It is frozen while both are fast: the other group goes on as if it were alone."""
    warmed, params = two_groups(criterion=always)
    alone, alone_params = wrapped(60, criterion=always, every=2, window=2)
    run(alone, alone_params, range(1, 9))
    run(warmed, params, range(1, 9))
    params[1].requires_grad_(False)
    for update in range(9, 14):
        ADAM.step(alone, alone_params, update)
        ADAM.step(warmed, params, update)
        assert warmed.get_last_lr()[0] == alone.get_last_lr()[0]
        assert warmed.param_groups[1]["warmup_fast"] == 4
    params[1].requires_grad_(True)
    run(warmed, params, range(14, 60))
    assert warmed.done


class Mixed(Optimizer):
    """Groups with `plain` are SGD with momentum; the others have a second moment."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "plain": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                key = "momentum_buffer" if group["plain"] else "exp_avg_sq"
                state = self.state[param]
                average = state.setdefault(key, torch.zeros_like(param))
                average.lerp_(param.grad if group["plain"] else param.grad**2, 0.01)
                param.sub_(group["lr"] * average.sign())


@pytest.mark.parametrize("pooled", [True, False])
def test_groups_without_a_second_moment_follow_or_go_their_fixed_way(
    pooled: bool,
) -> None:
    params = ADAM.params()
    groups = [{"params": params[:1], "plain": True}, {"params": params[1:]}]
    mode = Adaptive(InverseRootVariance(9.0), every=2, window=2, per_group=not pooled)
    warmed = Warmed(Mixed(groups), steps=60, mode=mode)
    run(warmed, params, range(1, 13))
    factors = warmed.factors
    assert factors[1] > 13 / 60
    assert f"{15 / 27 if pooled else 1:.0%}" in repr(warmed)
    if pooled:
        assert factors[0] == factors[1]
    else:  # nothing is read from it, so it never settles
        assert [group["warmup_fast"] for group in warmed.param_groups] == [0, 6]


def test_muon_with_adamw_goes_on_with_what_it_can_watch() -> None:
    import pytorch_optimizer

    matrix, bias = Parameter(torch.randn(8, 8)), Parameter(torch.randn(8))
    optimizer = pytorch_optimizer.Muon(
        [
            {"params": [matrix], "use_muon": True},
            {"params": [bias], "use_muon": False},
        ],
        lr=1e-3,
    )
    mode = Adaptive(criterion=always, every=2, window=2)
    warmed = Warmed(optimizer, steps=60, mode=mode)
    run(warmed, [matrix, bias], range(1, 9), ROWS["pytorch_optimizer.Muon"].step)
    assert "watching 11% of the parameters" in repr(warmed)
    assert warmed.factors[0] == warmed.factors[1] > 9 / 60


@pytest.mark.parametrize("idle", ["unused", "empty"])
def test_a_group_without_state_yet_is_no_reason_to_refuse(idle: str) -> None:
    """It has another length, so it is its own pool, with nothing to read yet."""
    used, unused = ADAM.params()
    group = {"params": [unused] if idle == "unused" else [], "warmup_steps": 20}
    warmed = Warmed(
        torch.optim.Adam([{"params": [used]}, group]), steps=10, mode="adaptive"
    )
    for update in range(1, 12):
        ADAM.set_grads([used], update)
        warmed.step()
    assert warmed.factors[0] == 1.0


REFUSED = [
    *("sgd-loop", "adagrad-loop", "adamax-loop", "lbfgs", "asgd-loop"),
    pytest.param("muon", marks=needs_muon),
]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("how", ["adaptive", "watch", "trace"])
def test_an_optimizer_without_second_moment_is_refused_at_once(
    name: str, how: str
) -> None:
    row = ROWS[name]
    optimizer = row.build(row.params())
    arguments: dict[str, Any] = {
        "adaptive": {"mode": "adaptive"},
        "watch": {"watch": [always]},
        "trace": {"trace": Trace()},
    }[how]
    with pytest.raises(ValueError, match=r"keeps no second moment.*mode='linear'"):
        Warmed(optimizer, steps=10, **arguments)
    assert "warmup_updates" not in optimizer.param_groups[0]


def test_an_unknown_class_without_one_is_refused_after_its_first_step() -> None:
    params = ADAM.params()
    warmed = Warmed(
        Mixed([{"params": params, "plain": True}]), steps=10, mode="adaptive"
    )
    message = r"Mixed keeps no second moment.*momentum_buffer.*mode='linear'"
    with pytest.raises(ValueError, match=message):
        ADAM.step(warmed, params, 1)
    assert warmed.param_groups[0]["lr"] == 0.1
