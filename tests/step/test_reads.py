"""To look changes nothing: no key, no count, no plan. And `done` costs very little."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.step.test_bytecodes import idle
from tests.support.bytecodes import bytecodes
from tests.support.optimizers import assert_same
from warmopt import Adaptive, Warmed
from warmopt._update import planner

READS: dict[str, Callable[[Warmed], Any]] = {
    "done": lambda warmed: warmed.done,
    "done_reason": lambda warmed: warmed.done_reason,
    "factors": lambda warmed: warmed.factors,
    "get_last_lr": lambda warmed: warmed.get_last_lr(),
    "repr": repr,
}
ADAM = torch.optim.Adam
KINDS: dict[str, Callable[[list[Any]], Warmed]] = {
    "linear": lambda groups: Warmed(ADAM(groups, lr=0.5), steps=4),
    "untuned": lambda groups: Warmed(ADAM(groups, lr=0.5), mode="untuned_linear"),
    "adaptive": lambda groups: Warmed(
        ADAM(groups, lr=0.5), 4, Adaptive(every=1, window=2)
    ),
    "tensor_lr": lambda groups: Warmed(ADAM(groups, lr=torch.tensor(0.5)), steps=4),
    "no_steps": lambda groups: Warmed(ADAM(groups, lr=0.5), steps=0),
    "fused": lambda groups: Warmed(ADAM(groups, lr=0.5, fused=True), steps=4),
}


def group() -> dict[str, Any]:
    param = Parameter(torch.ones(8))
    param.grad = torch.ones(8)
    return {"params": [param]}


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with every plan that is made."""
    made: list[Any] = []
    plan = planner.Plan

    def noted(*args: Any) -> Any:
        made.append(args)
        return plan(*args)

    monkeypatch.setattr(planner, "Plan", noted)
    return made


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", KINDS)
def test_to_look_changes_nothing(kind: str, read: str, plans: list[Any]) -> None:
    """At any update, also where a group was added that nobody has stepped yet."""
    warmed = KINDS[kind]([group(), group()])
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.ones(()))
    for update in range(7):
        if update == 2:
            warmed.wrapped.add_param_group(group())
        before = copy.deepcopy([dict(each) for each in warmed.param_groups])
        made = len(plans)
        READS[read](warmed)
        assert len(plans) == made
        after = [dict(each) for each in warmed.param_groups]
        for one, other in zip(before, after, strict=True):
            assert_same({**one, "params": 0}, {**other, "params": 0})
        if kind == "fused":
            scaler.step(warmed)
            scaler.update(1.0)
        else:
            warmed.step()


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_that_nobody_has_stepped_yet_is_known_to_all_reads(kind: str) -> None:
    warmed = KINDS[kind]([group()])
    while not warmed.done:
        warmed.step()
    warmed.wrapped.add_param_group(group())
    assert warmed.done == (kind == "no_steps")
    assert (warmed.done_reason is None) == (kind != "no_steps")
    assert (warmed.factors[1] < 1.0) == (kind != "no_steps")
    assert float(warmed.get_last_lr()[1]) == 0.5 * warmed.factors[1]
    assert ("group 1: 0 of" in repr(warmed)) == (kind != "no_steps")


def test_a_run_that_is_looked_at_makes_no_more_plans_than_another(
    plans: list[Any],
) -> None:
    """By the loop that asks before every update, and by a scaler."""
    made = []
    for asks in (False, True):
        warmed = KINDS["fused"]([group()])
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        scaler.scale(torch.ones(()))
        plans.clear()
        for _ in range(6):
            if asks:
                for read in READS.values():
                    read(warmed)
            scaler.step(warmed)
            scaler.update(1.0)
        made.append(len(plans))
    assert made == [1, 1]  # when the warmup has ended


@pytest.mark.parametrize("groups", [1, 10, 100])
def test_done_costs_at_most_a_fifth_of_a_step(groups: int) -> None:
    """In executed bytecodes; of many groups the lists are compared in one of them."""
    warmed = Warmed(idle(groups), steps=1000)
    warmed.step()
    warmed.step()
    done = sum(bytecodes(lambda: warmed.done).values())
    step = sum((bytecodes(warmed.step) - bytecodes(warmed.wrapped.step)).values())
    assert done <= step / 5
    assert done <= 30
