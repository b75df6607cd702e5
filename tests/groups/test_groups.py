"""Each group warms on its own clock, with its own length and start."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import ROWS, Row, assert_same, snapshot
from tests.support.reference import effective, lrs, stepped_at, watch
from warmopt import Warmed

pytestmark = pytest.mark.usefixtures("with_and_without_the_plain_step")

SGD = ROWS["sgd-loop"]


@pytest.mark.parametrize(
    ("joins", "through"), [(2, "warmed"), (2, "wrapped"), (7, "wrapped")]
)
def test_a_late_group_warms_on_its_own_clock(
    multi_group_row: Row, joins: int, through: str
) -> None:
    row = multi_group_row
    params, expected_params = row.params(), row.params()
    warmed = row.wrap(params[:1], steps=4)
    expected = row.build(expected_params[:1])
    for update in range(1, 13):
        if update == joins + 1:
            adder = warmed if through == "warmed" else warmed.wrapped
            adder.add_param_group(row.group(params[1:]))
            expected.add_param_group(row.group(expected_params[1:]))
        row.step(warmed, params, update)
        factors = [min(update / 4, 1.0)]
        if update > joins:
            factors.append(min((update - joins) / 4, 1.0))
        stepped_at(
            expected, factors, partial(row.step, expected, expected_params, update)
        )
        assert_same(snapshot(expected, expected_params), snapshot(warmed, params))
    assert warmed.done


def test_a_frozen_group_warms_when_it_is_unfrozen(multi_group_row: Row) -> None:
    row = multi_group_row
    params = row.params()
    params[1].requires_grad_(False)
    groups = [row.group([param]) for param in params]
    warmed = row.wrap(groups, steps=4)
    for update in (1, 2):
        row.step(warmed, params, update)
    assert warmed.factors == [0.75, 0.25]
    params[1].requires_grad_(True)
    row.step(warmed, params, 3)
    assert warmed.factors == [1.0, 0.5]


def test_a_group_is_frozen_when_all_of_it_is() -> None:
    params = SGD.params()
    params[0].requires_grad_(False)
    for lr in (1.0, torch.tensor(1.0)):
        warmed = Warmed(torch.optim.SGD(params, lr=lr), steps=4)
        warmed.step()
        assert warmed.factors == [0.5]


def test_a_group_without_gradients_is_counted_all_the_same() -> None:
    """Some ranks may have a gradient and others not, so this must not matter."""
    warmed = SGD.wrap(SGD.params(), steps=4)
    warmed.step()
    assert warmed.factors == [0.5]


def equal_groups(number: int) -> Warmed:
    groups = [{"params": [Parameter(torch.zeros(1))]} for _ in range(number)]
    return Warmed(torch.optim.SGD(groups, lr=1.0), steps=4)


def test_a_group_replaced_by_its_copy_goes_on() -> None:
    """Only one group is replaced, so a look at each group is needed to see it."""
    warmed = equal_groups(2)
    warmed.step()
    warmed.param_groups[1] = dict(warmed.param_groups[1])
    used = watch(warmed.wrapped, lrs)
    warmed.step()
    assert used == [[0.5, 0.5]]
    assert warmed.factors == [0.75, 0.75]


def test_a_group_set_further_on_by_hand_is_done_and_no_other() -> None:
    warmed = equal_groups(3)
    warmed.step()
    warmed.param_groups[1]["warmup_updates"] = 4
    used = watch(warmed.wrapped, lrs)
    warmed.step()
    assert used == [[0.5, 1.0, 0.5]]
    assert lrs(warmed) == [1.0, 1.0, 1.0]
    assert warmed.factors == [0.75, 1.0, 0.75]


def test_a_group_has_its_own_length_and_start() -> None:
    """Some groups have the same options, next to each other or not."""
    options = [
        {},
        {"warmup_steps": 2},
        {"warmup_start": 3.0},
        {"warmup_start": 3.0},
        {"warmup_steps": 0},
        {},
    ]
    groups = [{"params": [Parameter(torch.zeros(1))], **each} for each in options]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=4)
    factors, used = [], watch(warmed.wrapped, lrs)
    while not warmed.done:
        factors.append(warmed.factors)
        warmed.step()
    assert factors == [
        [0.25, 0.5, 2.5, 2.5, 1.0, 0.25],
        [0.5, 1.0, 2.0, 2.0, 1.0, 0.5],
        [0.75, 1.0, 1.5, 1.5, 1.0, 0.75],
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    ]
    assert used == factors
    assert warmed.param_groups[4]["warmup_updates"] == 0


def test_only_the_group_with_a_length_warms_where_steps_is_0() -> None:
    params = SGD.params()
    groups = [{"params": params[:1]}, {"params": params[1:], "warmup_steps": 4}]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=0)
    assert warmed.factors == [1.0, 0.25]


def test_a_groups_ratio_is_a_share_of_total_steps() -> None:
    group = {"params": [Parameter(torch.zeros(1))], "warmup_steps": 0.002}
    warmed = Warmed(torch.optim.SGD([group], lr=1.0), steps=1000, total_steps=1000)
    assert effective(warmed, 2) == [0.5, 1.0]
    assert warmed.param_groups[0]["warmup_steps"] == 2


def test_an_option_of_the_optimizer_is_never_read_as_ours() -> None:
    class Own(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=1.0)
            self.defaults["warmup_steps"] = 100
            for group in self.param_groups:
                group["warmup_steps"] = 100

    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "warmopt_steps": 2}]
    warmed = Warmed(Own(groups), steps=4)
    assert warmed.factors == [0.25, 0.5]
    warmed.rewarm(steps=8)
    assert warmed.factors == [0.125, 0.125]
    assert warmed.param_groups[0]["warmup_steps"] == 100


def test_the_untuned_modes_take_their_length_from_each_groups_beta2() -> None:
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "betas": (0.9, 0.99)}]
    warmed = Warmed(torch.optim.AdamW(groups), mode="untuned_linear")
    assert warmed.factors == [1 / 2000, 1 / 200]


def test_a_group_copied_from_another_counts_for_itself() -> None:
    """The count of a tensor LR is a tensor, which the copy must not share."""
    param = Parameter(torch.zeros(1))
    param.grad = torch.ones(1)
    warmed = Warmed(torch.optim.SGD([param], lr=torch.tensor(1.0)), steps=100)
    for _ in range(10):
        warmed.step()
    late = Parameter(torch.zeros(1))
    late.grad = torch.ones(1)
    warmed.add_param_group({**warmed.param_groups[0], "params": [late]})
    for _ in range(10):
        warmed.step()
    assert [round(float(f), 6) for f in warmed.factors] == [0.21, 0.21]
