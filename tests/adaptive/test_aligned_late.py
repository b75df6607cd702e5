"""Where the host gets the numbers of a comparison late: on a GPU, with a float LR.

A stand-in says that the sums are on a GPU, and tells them when asked.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.support.aligned import Regression
from warmopt._measure import watchers
from warmopt._measure.comparison import Comparison

pytestmark = pytest.mark.filterwarnings("ignore:The warmup of param group")


class OnGpu:
    is_cuda = True

    def __init__(self, sums: torch.Tensor) -> None:
        self.sums = sums.clone()


class Late:
    """Its numbers must not be asked for before the next step, but by a user."""

    may_be_asked = True

    def __init__(self, sums: OnGpu) -> None:
        self._sums = sums.sums

    def numbers(self) -> Any:
        assert self.may_be_asked
        return self._sums.tolist()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> type[Late]:
    real = Comparison.take

    def take(self: Comparison, update: int) -> Any:
        sums = real(self, update)
        return None if sums is None else OnGpu(sums)

    monkeypatch.setattr(Comparison, "take", take)
    monkeypatch.setattr(watchers, "HostCopy", Late)
    return Late


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=3.0, momentum=0.9)


def test_the_same_rates_are_used(
    late: type[Late], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, used = Regression(sgd), []
    for update in range(1, 120):
        run.warmed.zero_grad()
        run.loss(update).backward()
        run.warmed.step()
        if not run.warmed._planner.passes_on and update < 60:
            assert run.warmed._planner._looks_late
        used.append(run.warmed.get_last_lr())
    assert run.warmed.done_reason == "held"
    monkeypatch.undo()
    twin = Regression(sgd)
    assert twin.run(range(1, 120)) == used
    assert twin.state() == run.state()


def test_no_step_waits_for_its_own_numbers(late: type[Late]) -> None:
    """They are asked for at the beginning of the next step."""
    run = Regression(sgd)
    inner = run.warmed.wrapped.step

    def step(*args: Any) -> Any:
        late.may_be_asked = False
        return inner(*args)

    run.warmed.wrapped.step = step
    for update in range(1, 30):
        late.may_be_asked = True
        run.step(update)
    late.may_be_asked = True
    assert run.warmed.factors[0] > 0.01


@pytest.mark.parametrize("ask", ["save", "copy", "factors", "done", "repr"])
def test_whoever_asks_sees_what_the_last_update_has_decided(
    ask: str, late: type[Late], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Regression(sgd)
    for update in range(1, 20):
        run.step(update)
    assert run.warmed._planner._looks_late
    told = {
        "save": lambda: run.warmed.state_dict(),
        "copy": lambda: copy.deepcopy(run.warmed),
        "factors": lambda: run.warmed.factors,
        "done": lambda: run.warmed.done,
        "repr": lambda: repr(run.warmed),
    }
    told[ask]()
    assert not run.warmed._planner._looks_late
    factor = run.state().factor
    monkeypatch.undo()
    twin = Regression(sgd)
    twin.run(range(1, 20))
    assert factor == twin.state().factor
