"""`rewarm` starts the warmup again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import sgd
from tests.support.reference import effective
from warmopt import Warmed

pytestmark = pytest.mark.usefixtures("with_and_without_the_plain_step")


def test_rewarm_begins_anew_and_may_change_the_length() -> None:
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [param]} for param in params]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=2)
    while not warmed.done:
        warmed.step()
    warmed.rewarm(groups=[-1])
    assert warmed.factors == [1.0, 0.5]
    warmed.rewarm(steps=4)
    assert warmed.factors == [0.25, 0.25]
    warmed.step()
    resumed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=2)
    resumed.load_state_dict(warmed.state_dict())
    assert resumed.factors == [0.5, 0.5]  # the length of a rewarm is saved
    warmed.rewarm(steps=0)
    assert warmed.done


def test_rewarm_of_no_length_ends_a_warmup_of_an_untuned_mode() -> None:
    optimizer = torch.optim.Adam([Parameter(torch.zeros(1))])
    warmed = Warmed(optimizer, mode="untuned_linear")
    warmed.rewarm(0)
    assert warmed.done
    warmed.rewarm()  # the mode chooses the length again
    assert warmed.factors == [1 / 2000]


def test_rewarm_takes_the_length_of_the_last_warmup_also_after_one_of_no_length() -> (
    None
):
    warmed, resumed = (Warmed(sgd()[1], steps=100) for _ in range(2))
    warmed.rewarm(10)
    warmed.rewarm(0)
    assert warmed.done
    resumed.load_state_dict(warmed.state_dict())
    for each in (warmed, resumed):
        assert each.done
        each.rewarm()
        assert each.factors == [0.1]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_shortest_lengths_are_saved_and_loaded(steps: int) -> None:
    warmed, resumed = (Warmed(sgd()[1], steps=4) for _ in range(2))
    warmed.rewarm(steps)
    resumed.load_state_dict(warmed.state_dict())
    assert resumed.factors == warmed.factors == [1 / max(steps, 1)]


def test_rewarm_starts_a_warmup_where_there_was_none() -> None:
    warmed = Warmed(sgd()[1], steps=0)
    warmed.rewarm()  # its length is 0
    assert "warmup_updates" not in warmed.param_groups[0]
    warmed.rewarm(steps=4)
    assert effective(warmed, 2) == [0.25, 0.5]


def test_a_rewarm_that_the_shape_refuses_changes_nothing() -> None:
    warmed = Warmed(torch.optim.Adam([Parameter(torch.zeros(1))]), mode="radam")
    factors = warmed.factors
    with pytest.raises(ValueError, match="must be > 5"):
        warmed.rewarm(5)
    assert warmed.factors == factors


def test_going_back_to_before_a_rewarm_goes_back_to_its_length() -> None:
    warmed = Warmed(sgd()[1], steps=1000)
    for _ in range(500):
        warmed.step()
    saved = copy.deepcopy(warmed.state_dict())
    warmed.rewarm(steps=10)
    assert warmed.factors == [0.1]
    warmed.load_state_dict(saved)
    assert warmed.factors == [0.501]


@pytest.mark.parametrize("lr", [1.0, torch.tensor(1.0)], ids=["float", "tensor"])
def test_a_length_that_the_shape_or_a_table_refuses_changes_nothing(lr: object) -> None:
    def short(update: float, steps: float) -> float:
        if steps > 100:
            raise ValueError("too long for me")
        return update / steps

    for mode, steps in (("linear", 2_000_000), (short, 200)):
        param = Parameter(torch.zeros(1))
        param.grad = torch.ones(1)
        warmed = Warmed(torch.optim.SGD([param], lr=lr), steps=4, mode=mode)
        warmed.step()
        before = str(warmed.state_dict())
        if mode == "linear" and isinstance(lr, float):
            continue  # nothing refuses it
        with pytest.raises(ValueError, match=r"steps must be at most|too long"):
            warmed.rewarm(steps)
        assert str(warmed.state_dict()) == before
        assert warmed.factors == [0.5]


def test_the_groups_may_come_from_a_generator() -> None:
    _, optimizer = sgd()
    warmed = Warmed(optimizer, steps=2)
    while not warmed.done:
        warmed.step()
    warmed.rewarm(groups=(index for index in range(1)))  # type: ignore[arg-type]
    assert warmed.factors == [0.5]
