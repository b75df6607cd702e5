"""An aligned warmup of a tensor LR: the factor lives on the device, and in a graph."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.execution.test_graphs import StandInGraph, capturing  # noqa: F401
from tests.support.aligned import Regression
from tests.support.optimizers import ROWS, Row, assert_same, snapshot
from warmopt import Warmed
from warmopt._keys import CLIMB

pytestmark = pytest.mark.filterwarnings("ignore:The warmup of param group")


def sgd(lr: Any) -> Any:
    return lambda params: torch.optim.SGD(params, lr=lr, momentum=0.9, foreach=False)


def at_once(lr: float, **options: Any) -> Regression:
    """The same with a float LR, which uses each reading at once too."""
    return Regression(sgd(lr), lag=0, **options)


def on_device(lr: float, **options: Any) -> Regression:
    return Regression(sgd(torch.tensor(lr, dtype=torch.float64)), **options)


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("lr", [0.01, 3.0])
def test_it_climbs_and_ends_as_with_a_float_lr(lr: float, groups: bool) -> None:
    """To the last bits: torch has an exponential function of its own."""
    run, twin = on_device(lr, groups=groups), at_once(lr, groups=groups)
    for update in range(1, 60):
        run.step(update)
        twin.step(update)
        assert run.warmed.factors == pytest.approx(twin.warmed.factors, rel=1e-6)
    run.run(range(60, 140))
    twin.run(range(60, 140))
    assert run.warmed.done
    assert run.warmed.done_reason == twin.warmed.done_reason
    assert run.warmed.factors == pytest.approx(twin.warmed.factors, rel=0.1)
    assert not run.warmed._planner.climbs


def test_noise_is_ramped() -> None:
    weight = Parameter(torch.zeros(2000))
    warmed = Warmed(sgd(torch.tensor(1e-6))([weight]), 60, "aligned")
    factors = []
    for update in range(60):
        weight.grad = torch.randn(2000, generator=torch.Generator().manual_seed(update))
        warmed.step()
        factors.append(float(warmed.get_last_lr()[0]) / 1e-6)
    assert warmed.done_reason == "ramped"
    assert factors[59] == pytest.approx(1.0)
    assert factors[38] == pytest.approx(23 / 44, rel=0.01)
    assert warmed.factors == [1.0]


def capturable(lr: float) -> Regression:
    """Adam with a tensor LR, which reads nothing on the host itself."""
    options = {"lr": torch.tensor(lr), "capturable": True, "foreach": False}
    return Regression(lambda params: torch.optim.Adam(params, **options))


@pytest.mark.usefixtures("capturing")
def test_between_two_looks_nothing_is_read_on_the_host() -> None:
    run = capturable(0.01)
    run.run(range(1, 4))
    run.warmed.zero_grad()
    run.loss(4).backward()
    with StandInGraph():
        for _ in range(20):
            run.warmed.step()
    assert run.warmed.factors[0] > 0.01


@pytest.mark.usefixtures("capturing")
@pytest.mark.parametrize("lr", [0.01, 30.0])
def test_replays_of_one_captured_step_climb(
    lr: float,
    capturing: dict[str, bool],  # noqa: F811
) -> None:
    """As eager steps do, to the bit, and past the end."""
    run, eager = capturable(lr), capturable(lr)
    for each in (run, eager):
        for param in each.params:
            param.grad = torch.zeros_like(param)

    def set_grads(each: Regression, update: int) -> None:
        grads = torch.autograd.grad(each.loss(update), each.params)
        for param, grad in zip(each.params, grads, strict=True):
            param.grad.copy_(grad)

    for update in (1, 2):
        for each in (run, eager):
            set_grads(each, update)
            each.warmed.step()
    set_grads(run, 3)
    capturing["capturing"] = True
    with StandInGraph() as graph:
        run.warmed.step()
    capturing["capturing"] = False
    set_grads(eager, 3)
    eager.warmed.step()
    for update in range(4, 205):
        set_grads(run, update)
        graph.replay()
        set_grads(eager, update)
        eager.warmed.step()
        assert run.warmed.factors == eager.warmed.factors
    assert_same(snapshot(eager.warmed, eager.params), snapshot(run.warmed, run.params))
    assert run.warmed.done
    assert run.warmed.done_reason == eager.warmed.done_reason


@pytest.mark.parametrize("at", [0, 1, 5, 40, 110])
def test_it_is_resumed_to_the_bit(at: int) -> None:
    whole, resumed = on_device(3.0), on_device(3.0)
    whole.run(range(1, at + 1))
    for mine, theirs in zip(resumed.params, whole.params, strict=True):
        mine.data.copy_(theirs)
    resumed.warmed.load_state_dict(copy.deepcopy(whole.warmed.state_dict()))
    after = range(at + 1, at + 40)
    assert resumed.run(after) == whole.run(after)


def test_a_skipped_step_moves_nothing() -> None:
    def fused(params: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=torch.tensor(0.1), fused=True)

    run, twin = Regression(fused), Regression(fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for update in range(1, 25):
        if update in (5, 9):
            run.warmed.zero_grad()
            scaler.scale(run.loss(update)).backward()
            run.params[0].grad[0, 0] = torch.inf
            scaler.step(run.warmed)
            scaler.update()
        run.warmed.zero_grad()
        scaler.scale(run.loss(update)).backward()
        scaler.step(run.warmed)
        scaler.update()
        twin.step(update)
        assert run.warmed.factors == twin.warmed.factors


def test_its_numbers_are_tensors_of_each_group() -> None:
    run = on_device(0.01, groups=True)
    run.run(range(1, 4))
    groups = run.warmed.param_groups
    for key in CLIMB:
        assert len({id(group[key]) for group in groups}) == len(groups)
        assert all(isinstance(group[key], torch.Tensor) for group in groups)


def test_from_a_float_lr_it_goes_on_with_a_tensor_and_back() -> None:
    run = at_once(0.01)
    run.run(range(1, 20))
    again = on_device(0.01)
    again.warmed.load_state_dict(copy.deepcopy(run.warmed.state_dict()))
    assert again.warmed.factors == run.warmed.factors
    group = copy.deepcopy(again.warmed.state_dict()["param_groups"][0])
    group["lr"] = 0.01
    back = at_once(0.01)
    state = {**again.warmed.state_dict(), "param_groups": [group]}
    back.warmed.load_state_dict(state)
    assert back.warmed.factors == run.warmed.factors
    assert type(back.warmed.param_groups[0]["warmup_factor"]) is float


# LBFGS asks for its LR before it calls the closure, so before there is a new gradient.
TENSOR_LRS = [row for row in ROWS.values() if row.tensor_lr and not row.closure]


@pytest.mark.parametrize("row", TENSOR_LRS, ids=lambda row: row.name)
def test_any_optimizer_with_a_tensor_lr_climbs(row: Row) -> None:
    """Bit by bit as the bare one at the LR that `get_last_lr` tells."""
    params, twins = row.params(), row.params()
    warmed, bare = row.wrap(params, steps=60, mode="aligned"), row.build(twins)
    for update in range(1, 13):
        row.step(warmed, params, update)
        (group,), (used,) = bare.param_groups, warmed.get_last_lr()
        base, group["lr"] = group["lr"], used
        row.step(bare, twins, update)
        group["lr"] = base
        assert_same(snapshot(bare, twins), snapshot(warmed, params))
    assert int(warmed.param_groups[0]["warmup_seen"]) > 0
