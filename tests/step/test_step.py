"""One step: base LR x factor inside it, and the base LR again after it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import ROWS, Row, assert_same, snapshot
from tests.support.reference import lrs, stepped_at, watch
from warmopt import Warmed
from warmopt.shapes import cosine, linear

pytestmark = pytest.mark.usefixtures("with_and_without_the_plain_step")

SGD = ROWS["sgd-loop"]


@pytest.mark.parametrize(("mode", "shape"), [("linear", linear), ("cosine", cosine)])
def test_every_update_is_that_of_a_hand_scaled_loop(row: Row, mode: str, shape) -> None:
    """Parameters and state are bit-equal at every update, in the warmup and after."""
    params, expected_params = row.params(), row.params()
    warmed = row.wrap(params, steps=5, mode=mode)
    expected = row.build(expected_params)
    for update in range(1, 9):
        row.step(warmed, params, update)
        factor = shape(update, 5) if update <= 5 else 1.0
        used = stepped_at(
            expected, [factor], partial(row.step, expected, expected_params, update)
        )
        assert_same(snapshot(expected, expected_params), snapshot(warmed, params))
        if update < 5:
            assert [float(lr) for lr in warmed.get_last_lr()] == used
    assert warmed.done


def test_no_steps_is_the_bare_optimizer(row: Row) -> None:
    """Bit-identical updates, and no new key in the param groups."""
    params, bare_params = row.params(), row.params()
    warmed, bare = row.wrap(params, steps=0), row.build(bare_params)
    assert warmed.done
    for update in range(1, 5):
        row.step(warmed, params, update)
        row.step(bare, bare_params, update)
        assert_same(snapshot(bare, bare_params), snapshot(warmed, params))
    keys = [group.keys() for group in warmed.param_groups]
    assert keys == [group.keys() for group in bare.param_groups]


def test_the_lr_outside_step_is_the_users_own_object(row: Row) -> None:
    params = row.params()
    warmed = row.wrap(params, steps=3)
    base = warmed.param_groups[0]["lr"]
    value = float(base)
    for update in range(1, 6):
        row.step(warmed, params, update)
        assert row.writes_lr or warmed.param_groups[0]["lr"] is base
        assert float(base) == value


@pytest.mark.parametrize("where", ["step", "closure"])
def test_an_exception_leaves_lr_and_count_as_they_were(row: Row, where: str) -> None:
    """Training then goes on as if nothing had happened."""
    params, expected_params = row.params(), row.params()
    warmed = row.wrap(params, steps=6)
    expected = row.wrap(expected_params, steps=6)
    row.step(warmed, params, 1)
    row.step(expected, expected_params, 1)
    base = warmed.param_groups[0]["lr"]

    def fail(*_: Any) -> float:
        raise KeyboardInterrupt

    if where == "step":
        handle = warmed.register_step_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            row.step(warmed, params, 2)
        handle.remove()
    else:
        with pytest.raises(KeyboardInterrupt):
            warmed.step(fail)
    assert warmed.param_groups[0]["lr"] is base
    assert warmed.param_groups[0]["warmup_updates"] == 1

    for update in (2, 3):
        row.step(warmed, params, update)
        row.step(expected, expected_params, update)
    assert_same(snapshot(expected, expected_params), snapshot(warmed, params))


def test_a_step_at_base_lr_zero_is_not_an_update(row: Row) -> None:
    """torch.distributed.checkpoint makes such a step to create the state."""
    params = row.params()
    warmed = row.wrap(params, steps=4)
    lr = warmed.param_groups[0]["lr"]
    warmed.param_groups[0]["lr"] = lr * 0
    if not row.name.startswith("rprop"):
        row.step(warmed, params, 1)
    assert warmed.factors == [0.25]
    warmed.param_groups[0]["lr"] = lr
    row.step(warmed, params, 2)
    assert warmed.factors == [0.5]


def test_an_lr_that_the_optimizer_writes_is_in_effective_units() -> None:
    class Writing(torch.optim.SGD):
        def step(self) -> None:
            self.param_groups[0]["lr"] = self.param_groups[0]["lr"] * 0.5

    for lr in (1.0, torch.tensor(1.0)):
        warmed = Warmed(Writing([Parameter(torch.zeros(1))], lr=lr), steps=4)
        warmed.step()
        assert warmed.param_groups[0]["lr"] == 0.5


def test_an_lr_written_at_factor_zero_is_dropped() -> None:
    """No base LR fits to it, and an LR of 0 would stay 0."""

    class Writing(torch.optim.SGD):
        def step(self) -> None:
            self.param_groups[0]["lr"] += 0.5

    warmed = Warmed(Writing([Parameter(torch.zeros(1))], lr=1.0), steps=4, offset=1)
    warmed.step()
    assert warmed.param_groups[0]["lr"] == 1.0


def test_an_lr_written_back_unchanged_is_the_base_to_the_bit() -> None:
    class Copying(torch.optim.SGD):
        def step(self) -> None:
            self.param_groups[0]["lr"] = self.param_groups[0]["lr"] + 0.0

    warmed = Warmed(Copying([Parameter(torch.zeros(1))], lr=0.1), steps=999)
    for _ in range(1000):
        warmed.step()
    assert warmed.param_groups[0]["lr"] == 0.1


def test_one_lr_tensor_shared_by_groups_is_scaled_once_for_each() -> None:
    params, lr = SGD.params(), torch.tensor(1.0)
    groups = [{"params": [param]} for param in params]
    optimizer = torch.optim.Adam(groups, lr=lr, foreach=False)
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    optimizer.param_groups[1]["warmup_steps"] = 2
    warmed = Warmed(optimizer, steps=4)
    used = watch(optimizer, lrs)
    for _ in range(5):
        warmed.step()
    assert used == [[0.25, 0.5], [0.5, 1.0], [0.75, 1.0], [1.0, 1.0], [1.0, 1.0]]
    assert all(group["lr"] is lr for group in warmed.param_groups)
    assert lr.item() == 1.0
