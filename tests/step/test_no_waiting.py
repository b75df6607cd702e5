"""With a tensor LR, no step asks the device for a number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from warmopt import Warmed

STEPS = 4


class Fused(torch.optim.SGD):
    """Skips updates as a fused kernel does, by tensor operations alone."""

    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            for param in group["params"]:
                move = group["lr"] * param.grad
                if found_inf is not None:
                    move = torch.where(found_inf == 0, move, torch.zeros_like(move))
                param.sub_(move)


def refuse(*_: Any) -> None:
    raise AssertionError("the host waits for the device")


@pytest.mark.parametrize("scaler", [False, True])
@pytest.mark.parametrize("own", [(STEPS,), (STEPS, 2), (2, STEPS, STEPS)])
def test_no_step_of_a_warmup_or_after_it_waits(
    scaler: bool, own: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = [Parameter(torch.zeros(1)) for _ in own]
    for param in params:
        param.grad = torch.ones(1)
    groups = [
        {"params": [param], "warmup_steps": steps, "lr": torch.tensor(1.0)}
        for param, steps in zip(params, own, strict=True)
    ]
    warmed = Warmed(Fused(groups, lr=1.0), steps=STEPS)
    skips = [0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0] if scaler else [0] * 9
    passed_on = []
    moved: list[list[float]] = [[] for _ in own]
    for skip in skips:
        before = [param.item() for param in params]
        if scaler:
            warmed.found_inf = torch.tensor(float(skip))
        with monkeypatch.context() as patch:
            for name in ("item", "__int__", "__float__", "__bool__", "__index__"):
                patch.setattr(Tensor, name, refuse)
            warmed.step()
        if scaler:
            del warmed.found_inf
        for each, param, was in zip(moved, params, before, strict=True):
            each.append(was - param.item())
        passed_on.append(warmed._planner.passes_on is not None)
    for each, steps in zip(moved, own, strict=True):
        expected, done = [], 0
        for skip in skips:
            done += not skip
            expected.append(0.0 if skip else min(done / steps, 1.0))
        assert each == expected
    assert warmed.done
    assert [group["warmup_done"].item() for group in warmed.param_groups] == [
        True for _ in own
    ]
    assert passed_on[-1]  # nothing is left to pay for


def test_the_test_above_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "__int__", refuse)
    with pytest.raises(AssertionError, match="waits"):
        int(torch.tensor(1))
