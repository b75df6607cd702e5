"""What `step` costs, in things that can be counted: no clock, no noise.

We count executed bytecodes around a wrapped step that does nothing, and compare with a
baseline in the repository. A change that costs over 10 % more fails. If a change makes
it cheaper, write the new numbers: python -m tests.step.test_bytecodes. We also count
what goes through torch's dispatcher; `step` must add nothing there.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from benchmarks.overhead.contenders import Naive
from benchmarks.overhead.devices import Cpu, count
from tests.support import ROOT
from tests.support.bytecodes import bytecodes
from warmopt import Adaptive, Warmed
from warmopt.warmed import ModeLike

BASELINE = ROOT / "tests" / "support" / "bytecodes.json"
GROUPS = (1, 10, 100)


class Idle(torch.optim.SGD):
    """Keeps groups like any optimizer; its step is only two bytecodes."""

    def step(self, closure: None = None) -> None:
        pass

    step.hooked = True  # we do not count torch's hooks


def idle(groups: int) -> Idle:
    params = [Parameter(torch.zeros(1)) for _ in range(groups)]
    optimizer = Idle([{"params": [param]} for param in params], lr=1.0)
    optimizer.state.update({param: {"v": torch.ones(1)} for param in params})
    return optimizer


def measured() -> dict[str, Any]:
    """The bytecodes of each of our functions, for each number of groups."""

    def cost(steps: int, groups: int, mode: ModeLike = "linear") -> dict[str, int]:
        warmed = Warmed(idle(groups), steps=steps, mode=mode)
        for _ in range(2):  # from then on steps are plain
            warmed.step()
        return dict(bytecodes(warmed.step) - bytecodes(warmed.wrapped.step))

    adaptive = Adaptive(second_moment="v", every=5)

    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "warming": {str(groups): cost(1000, groups) for groups in GROUPS},
        "done": {str(groups): cost(0, groups) for groups in GROUPS},
        "adaptive, between readings": {
            str(groups): cost(1000, groups, adaptive) for groups in GROUPS
        },
    }


@pytest.mark.skipif(
    sys.gettrace() is not None and "coverage" not in sys.modules,
    reason="a debugger is tracing",
)
def test_step_costs_no_more_than_the_baseline() -> None:
    baseline, now = json.loads(BASELINE.read_text()), measured()
    if baseline["python"] != now["python"]:
        pytest.skip(f"the baseline is of Python {baseline['python']}")
    for state in baseline.keys() - {"python"}:
        for groups, before in baseline[state].items():
            total = sum(now[state][groups].values())
            assert total <= 1.1 * sum(before.values()), (state, groups)


def test_after_the_warmup_it_costs_the_same_for_any_number_of_groups() -> None:
    one, *others = (sum(each.values()) for each in measured()["done"].values())
    assert others == [one] * 2
    assert one <= (32 if sys.version_info >= (3, 11) else 33)  # other bytecodes


SIZE = 64  # elements of the smallest parameter


def stepping(name: str, options: dict[str, bool], groups: int = 3) -> Optimizer:
    """An optimizer that already has its state."""
    params = [Parameter(torch.ones(SIZE, 1 + i)) for i in range(groups)]
    for param in params:
        param.grad = torch.ones_like(param)
    cls = getattr(torch.optim, name)
    optimizer: Optimizer = cls([{"params": [p]} for p in params], lr=0.1, **options)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("steps", [1000, 1], ids=["warming", "done"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, options)
        for name in ("SGD", "Adam", "AdamW", "RMSprop")
        for options in ({"foreach": False}, {"foreach": True}, {"fused": True})
        if (name, options) != ("RMSprop", {"fused": True})  # torch has no fused RMSprop
    ],
    ids=str,
)
def test_step_adds_no_operator_no_tensor_and_no_hook_pass(
    name: str, options: dict[str, bool], steps: int
) -> None:
    bare = count(stepping(name, options).step, Cpu(), SIZE)
    warmed = Warmed(stepping(name, options), steps=steps)
    warmed.step()
    assert count(warmed.step, Cpu(), SIZE) == bare
    assert warmed.done == (steps == 1)
    assert bare["operators"]
    assert bare["hook_passes"] == 1


def test_what_a_step_adds_would_be_counted() -> None:
    """Shows that the test above can fail."""
    optimizer = stepping("AdamW", {"fused": True})
    bare = count(optimizer.step, Cpu(), SIZE)
    twice = count(Naive(optimizer, 1000).step, Cpu(), SIZE)
    assert twice == {**bare, "hook_passes": 2}

    def reading() -> None:
        optimizer.step()
        param = optimizer.param_groups[0]["params"][0]
        optimizer.state[param]["exp_avg_sq"].sqrt().mean()

    read = count(reading, Cpu(), SIZE)
    assert read["operators"] == bare["operators"] + 2
    assert read["allocations"] == bare["allocations"] + 1


if __name__ == "__main__":
    BASELINE.write_text(json.dumps(measured(), indent=2) + "\n")
