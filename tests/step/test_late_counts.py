"""Where the host knows one step late whether an update was skipped: on a GPU, fused.

A stand-in for `found_inf` says that it is on a GPU, and tells its value when asked.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from warmopt import Adaptive, Warmed


class OnGpu:
    """The `found_inf` of one step: 1 if the fused kernel skips it."""

    is_cuda = True

    def __init__(self, value: float) -> None:
        self.value = value

    def numbers(self) -> float:
        return self.value


class Fused(torch.optim.Adam):
    """Skips an update as a fused kernel does."""

    def step(self, closure: None = None) -> None:
        found_inf = self.__dict__.pop("found_inf")  # the loop of Adam refuses it
        if not found_inf.value:
            super().step()
        self.found_inf = found_inf


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmopt._update.planner.HostCopy", lambda found_inf: found_inf)


def build(steps: int = 3, mode: Any = "linear") -> Warmed:
    params = [Parameter(torch.ones(16)) for _ in range(2)]
    groups = [{"params": [param]} for param in params]
    return Warmed(Fused(groups, lr=1.0), steps, mode)


def scaler_steps(warmed: Warmed, skipped: bool = False) -> None:
    for group in warmed.param_groups:
        for param in group["params"]:
            param.grad = torch.randn_like(param)
    warmed.found_inf = OnGpu(float(skipped))
    warmed.step()
    del warmed.found_inf


def test_nothing_is_counted_before_it_is_known() -> None:
    warmed = build()
    scaler_steps(warmed)
    assert warmed.wrapped.param_groups[0]["warmup_updates"] == 0
    scaler_steps(warmed)
    assert warmed.wrapped.param_groups[0]["warmup_updates"] == 1
    assert warmed.state_dict()["param_groups"][0]["warmup_updates"] == 2


@pytest.mark.parametrize("mode", ["linear", Adaptive(every=1, window=2)])
@pytest.mark.parametrize("skipped", [False, True])
def test_done_is_right_after_the_last_update(mode: Any, skipped: bool) -> None:
    warmed = build(mode=mode)
    scaler_steps(warmed)
    scaler_steps(warmed)
    assert not warmed.done
    scaler_steps(warmed, skipped)
    assert warmed.done == (not skipped)
    assert warmed.factors == [1.0, 1.0]
    scaler_steps(warmed)
    assert warmed.done


def test_done_is_right_where_an_adaptive_warmup_ends_early() -> None:
    mode = Adaptive(lambda reading: True, on_settled="end", every=1, window=2)
    warmed = build(steps=50, mode=mode)
    while not warmed.done:
        assert warmed.factors[0] <= 1.0
        scaler_steps(warmed)
        if warmed.factors == [1.0, 1.0] and warmed.param_groups[0]["warmup_fast"]:
            assert warmed.done
    assert warmed.done_reason == "settled"
    assert warmed.param_groups[0]["warmup_updates"] < 5


@pytest.mark.parametrize("through", ["warmed", "wrapped"])
def test_a_group_that_is_added_meanwhile_does_not_count_the_step_before(
    through: str,
) -> None:
    warmed = build()
    for _ in range(3):
        scaler_steps(warmed)
    target = warmed if through == "warmed" else warmed.wrapped
    target.add_param_group({"params": [Parameter(torch.ones(4))]})
    assert not warmed.done
    assert warmed.factors == [1.0, 1.0, 1 / 3]
    for expected in (2 / 3, 1.0, 1.0):
        scaler_steps(warmed)
        assert warmed.factors == [1.0, 1.0, expected]
    assert warmed.done


def test_a_rewarm_finds_the_step_before_counted() -> None:
    warmed = build()
    scaler_steps(warmed)
    warmed.rewarm()
    scaler_steps(warmed)
    assert warmed.factors == [2 / 3, 2 / 3]
