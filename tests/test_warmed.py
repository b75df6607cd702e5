"""The contract of `Warmed`, over every row of the table; torch is the oracle."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch.distributed.checkpoint import state_dict as dcp
from torch.nn import Parameter

from tests.optimizers import ROWS, Row, assert_same, snapshot
from tests.reference import lrs, stepped_at, watch
from warmopt import Warmed
from warmopt.shapes import MODES, cosine, linear

SGD = ROWS["sgd-loop"]


def twins(row: Row) -> tuple[list[Parameter], list[Parameter]]:
    return row.params(), row.params()


def sgd(*, lr: float = 1.0, **options: Any) -> tuple[Parameter, torch.optim.SGD]:
    param = Parameter(torch.zeros(1))
    param.grad = torch.ones(1)
    return param, torch.optim.SGD([param], lr=lr, **options)


def _squared(update: float, steps: float) -> float:
    return (update / steps) ** 2


# --- the wrapped optimizer is used at base LR x factor, and otherwise untouched -------


@pytest.mark.parametrize(("mode", "shape"), [("linear", linear), ("cosine", cosine)])
def test_every_update_is_that_of_a_hand_scaled_loop(row: Row, mode: str, shape) -> None:
    """Bit-equal parameters and state in every update, through and past the warmup."""
    params, expected_params = twins(row)
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
    """Bit-identical updates, and not a key more in the param groups."""
    params, bare_params = twins(row)
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
    """And training goes on as if it had not happened."""
    params, expected_params = twins(row)
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


@pytest.mark.parametrize(
    ("joins", "through"), [(2, "warmed"), (2, "wrapped"), (7, "wrapped")]
)
def test_a_late_group_warms_on_its_own_clock(
    multi_group_row: Row, joins: int, through: str
) -> None:
    row = multi_group_row
    params, expected_params = twins(row)
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


# --- saved and loaded -------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "loader"), [(0, "warmed"), (2, "warmed"), (2, "wrapped"), (5, "warmed")]
)
def test_a_run_saved_and_loaded_goes_on_bit_equal(
    row: Row, cut: int, loader: str, tmp_path: Path
) -> None:
    """Through a file read with weights_only=True, into a fresh optimizer."""
    params, expected_params = twins(row)
    warmed = row.wrap(params, steps=5)
    expected = row.wrap(expected_params, steps=5)
    for update in range(1, cut + 1):
        row.step(warmed, params, update)
        row.step(expected, expected_params, update)
    torch.save([warmed.state_dict(), params], tmp_path / "checkpoint.pt")

    state, saved_params = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    params = [Parameter(param.detach().clone()) for param in saved_params]
    warmed = row.wrap(params, steps=5)
    warmed.param_groups[0]["lr"] = 0.5
    (warmed if loader == "warmed" else warmed.wrapped).load_state_dict(state)
    for update in range(cut + 1, 9):
        row.step(warmed, params, update)
        row.step(expected, expected_params, update)
        assert_same(snapshot(expected, expected_params), snapshot(warmed, params))


def test_a_checkpoint_loaded_before_wrapping_resumes_as_well() -> None:
    """Resuming has no order."""
    params = SGD.params()
    warmed = SGD.wrap(params, steps=4)
    SGD.step(warmed, params, 1)
    bare = SGD.build(SGD.params())
    bare.load_state_dict(warmed.state_dict())
    assert Warmed(bare, steps=4).factors == [0.5]


def test_a_warmed_checkpoint_loads_into_the_bare_optimizer(row: Row) -> None:
    """Which goes on at the base LR, the keys of the warmup inert."""
    params, expected_params = twins(row)
    warmed, bare = row.wrap(params, steps=4), row.build(params)
    expected = row.build(expected_params)
    row.step(warmed, params, 1)
    stepped_at(expected, [0.25], lambda: row.step(expected, expected_params, 1))
    bare.load_state_dict(warmed.state_dict())
    for update in (2, 3):
        row.step(bare, params, update)
        row.step(expected, expected_params, update)
    assert_same(snapshot(expected, expected_params), snapshot(bare, params))


def test_a_bare_checkpoint_leaves_the_warmup_where_it_was() -> None:
    params = SGD.params()
    warmed = SGD.wrap(params, steps=4)
    SGD.step(warmed, params, 1)
    bare = SGD.build(SGD.params())
    bare.param_groups[0]["lr"] = 0.7
    with pytest.warns(UserWarning, match="goes on from where it was") as warned:
        warmed.load_state_dict(bare.state_dict())
    assert [warning.filename for warning in warned] == [__file__]
    assert warmed.param_groups[0]["lr"] == 0.7
    assert warmed.factors == [0.5]
    assert warmed.param_groups[0]["warmup_mode"] == "linear"


def test_loading_keeps_a_groups_own_length_and_start() -> None:
    _, optimizer = sgd()
    optimizer.param_groups[0].update(warmup_steps=2, warmup_start=0.5)
    warmed = Warmed(optimizer, steps=4)
    with pytest.warns(UserWarning, match="without warmup"):
        warmed.load_state_dict(sgd()[1].state_dict())
    assert warmed.factors == [0.75]


@pytest.mark.parametrize(("steps", "factor"), [(8, 0.25), (2, 1.0), (1, 1.0), (0, 1.0)])
def test_the_length_in_the_code_holds_over_the_one_of_the_saved_run(
    steps: int, factor: float
) -> None:
    params = SGD.params()
    warmed = SGD.wrap(params, steps=4)
    SGD.step(warmed, params, 1)
    resumed = SGD.wrap(params, steps=steps)
    resumed.load_state_dict(warmed.state_dict())
    assert resumed.factors == [factor]
    SGD.step(resumed, params, 2)
    assert resumed.get_last_lr() == [0.1 * factor]


def test_a_warmup_once_over_stays_over() -> None:
    """Also when it is loaded by code that asks for a longer one."""
    params = SGD.params()
    warmed = SGD.wrap(params, steps=1)
    SGD.step(warmed, params, 1)
    resumed = SGD.wrap(params, steps=100, mode="cosine")
    resumed.load_state_dict(warmed.state_dict())
    assert resumed.done
    assert resumed.factors == [1.0]


def test_an_abandoned_wrapper_does_not_act() -> None:
    """Its hooks on the wrapped optimizer hold it weakly, and no cycle keeps it."""
    _, optimizer = sgd()
    first = Warmed(optimizer, steps=4, mode="cosine")
    gone = weakref.ref(first)
    del first
    assert gone() is None
    for key in ("warmup_updates", "warmup_done", "warmup_mode", "warmup_length"):
        del optimizer.param_groups[0][key]
    second = Warmed(optimizer, steps=4)
    optimizer.load_state_dict(second.state_dict())
    assert second.factors == [0.25]


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))]
)
@pytest.mark.parametrize("mode", ["linear", cosine, _squared])
def test_a_copy_goes_on_alone_from_the_same_point(clone, mode) -> None:
    param, optimizer = sgd()
    warmed = Warmed(optimizer, steps=4, mode=mode)
    torch.optim.lr_scheduler.ExponentialLR(warmed, 0.5)
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)  # patches optimizer.step
    warmed.step()
    other = clone(warmed)
    assert other.factors == warmed.factors
    assert other.wrapped is not optimizer
    other_param = other.param_groups[0]["params"][0]
    other_param.grad = torch.ones(1)
    before = param.clone()
    other.step()
    assert torch.equal(param, before)
    assert not torch.equal(other_param, before)
    assert warmed.param_groups[0]["warmup_updates"] == 1
    assert other.param_groups[0]["warmup_updates"] == 2
    other.load_state_dict(warmed.state_dict())
    assert other.param_groups[0]["warmup_updates"] == 1


class OwnLoading(torch.optim.SGD):
    """Loads by itself and runs no hooks, as bitsandbytes does."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved = copy.deepcopy(state_dict["param_groups"])
        for group, new in zip(self.param_groups, saved, strict=True):
            new["params"] = group["params"]
        self.__setstate__({"state": {}, "param_groups": saved})


def test_loading_that_runs_no_hooks_is_checked_and_completed_too() -> None:
    warmed = Warmed(OwnLoading([Parameter(torch.zeros(1))], lr=1.0), steps=4)
    warmed.step()
    saved = copy.deepcopy(warmed.state_dict())
    while not warmed.done:
        warmed.step()
    warmed.load_state_dict(saved)
    assert effective(warmed, 1) == [0.5]
    with pytest.warns(UserWarning, match="without warmup"):
        warmed.load_state_dict(sgd()[1].state_dict())
    assert warmed.factors == [0.75]
    saved["param_groups"][0]["warmup_mode"] = "cosine"
    with pytest.raises(ValueError, match="begun with, 'cosine'"):
        warmed.load_state_dict(saved)


def test_going_back_to_before_a_rewarm_goes_back_to_its_length() -> None:
    warmed = Warmed(sgd()[1], steps=1000)
    for _ in range(500):
        warmed.step()
    saved = copy.deepcopy(warmed.state_dict())
    warmed.rewarm(steps=10)
    assert warmed.factors == [0.1]
    warmed.load_state_dict(saved)
    assert warmed.factors == [0.501]


@pytest.mark.parametrize("flatten", [False, True])
def test_a_distributed_checkpoint_resumes_warmup_and_rewarm(flatten: bool) -> None:
    """Its flattened form reads only keys that are in the live groups."""
    options = dcp.StateDictOptions(flatten_optimizer_state_dict=flatten)

    def new() -> tuple[torch.nn.Module, Warmed]:
        model = torch.nn.Linear(2, 1)
        return model, Warmed(torch.optim.AdamW(model.parameters()), steps=1000)

    model, warmed = new()
    for rewarm, factor in ((None, 0.006), (10, 0.6), (0, 1.0)):
        if rewarm is not None:
            warmed.rewarm(steps=rewarm)
        for _ in range(5):
            warmed.step()
        state = dcp.get_optimizer_state_dict(model, warmed, options=options)
        other_model, other = new()
        dcp.set_optimizer_state_dict(other_model, other, state, options=options)
        assert warmed.factors == other.factors == [factor]


def test_a_pickled_or_copied_wrapped_optimizer_is_rid_of_our_hooks() -> None:
    """Also in a class that keeps all its attributes."""
    warmed = Warmed(KeepsAll([Parameter(torch.zeros(1))], lr=1.0), steps=4)
    warmed.step()
    other = pickle.loads(pickle.dumps(warmed.wrapped))
    copied = copy.deepcopy(warmed)
    copied.step()
    with pytest.warns(UserWarning, match="without warmup"):
        copied.load_state_dict(sgd()[1].state_dict())
    assert copied.factors == [0.75]
    other.load_state_dict(sgd()[1].state_dict())
    assert "warmup_updates" not in other.param_groups[0]


class KeepsAll(torch.optim.SGD):
    def __getstate__(self) -> dict[str, Any]:
        return dict(vars(self))


# --- what counts as an update -----------------------------------------------------


def test_a_step_at_base_lr_zero_is_not_an_update(row: Row) -> None:
    """This is how torch.distributed.checkpoint steps to initialise the state."""
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


def test_a_group_without_gradients_is_counted_all_the_same() -> None:
    """Whether a gradient is there differs between ranks, so it must not matter."""
    warmed = SGD.wrap(SGD.params(), steps=4)
    warmed.step()
    assert warmed.factors == [0.5]


# --- closures and arguments -------------------------------------------------------


def test_a_closure_sees_the_base_lr_and_may_set_it() -> None:
    param, optimizer = sgd(lr=2.0)
    warmed = Warmed(optimizer, steps=4)
    seen = []

    def closure() -> str:
        seen.append((warmed.param_groups[0]["lr"], torch.is_grad_enabled()))
        warmed.param_groups[0]["lr"] = 4.0
        return "loss"

    assert warmed.step(closure=closure) == "loss"
    assert seen == [(2.0, True)]
    assert warmed.param_groups[0]["lr"] == 4.0
    assert param.item() == -1.0  # 4 x 1/4
    assert warmed.get_last_lr() == [1.0]


def test_a_closure_called_many_times_is_one_update() -> None:
    row = ROWS["lbfgs-strong_wolfe"]
    params = row.params()
    warmed, calls = row.wrap(params, steps=4), 0

    def closure() -> torch.Tensor:
        nonlocal calls
        calls += 1
        assert warmed.param_groups[0]["lr"] == 0.1
        warmed.zero_grad()
        loss = sum(((param - 3) ** 2).sum() for param in params)
        loss.backward()
        return loss

    warmed.step(closure)
    assert calls > 2
    assert warmed.factors == [0.5]


@pytest.mark.parametrize("outside", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("name", ["sgd-loop", "adamw-foreach", "lbfgs-strong_wolfe"])
def test_a_closure_runs_in_the_grad_mode_that_the_bare_optimizer_gives_it(
    name: str, outside: Any
) -> None:
    def modes(optimizer: torch.optim.Optimizer) -> list[bool]:
        def closure() -> float:
            seen.append(torch.is_grad_enabled())
            return 1.0

        seen: list[bool] = []
        with outside():
            optimizer.step(closure)
            seen.append(torch.is_grad_enabled())
        return seen

    row = ROWS[name]
    assert modes(row.wrap(row.params(), steps=4)) == modes(row.build(row.params()))


def test_a_line_search_is_that_of_a_hand_scaled_loop() -> None:
    """LBFGS, strong Wolfe, on a real loss: the number of its evaluations too."""
    row, evaluations = ROWS["lbfgs-strong_wolfe"], []

    def step(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> None:
        def closure() -> torch.Tensor:
            nonlocal calls
            calls += 1
            optimizer.zero_grad()
            loss = sum((param**4 - 3 * param).sum() for param in params)
            loss.backward()
            return loss

        calls = 0
        optimizer.step(closure)
        evaluations.append(calls)

    params, expected_params = twins(row)
    warmed, expected = row.wrap(params, steps=3), row.build(expected_params)
    for update in range(1, 6):
        step(warmed, params)
        factor = min(update / 3, 1.0)
        stepped_at(expected, [factor], partial(step, expected, expected_params))
        assert_same(snapshot(expected, expected_params), snapshot(warmed, params))
    assert evaluations[::2] == evaluations[1::2]
    assert max(evaluations) > 2


@pytest.mark.parametrize("by", ["closure", "two steps"])
def test_sam_around_warmed_is_a_hand_scaled_sam(by: str) -> None:
    """Its second step is the base optimizer's, so that is the one to wrap."""

    def base(groups: Any, **options: Any) -> Warmed:
        return Warmed(torch.optim.SGD(groups, **options), steps=4)

    def step(sam: Any, params: list[Parameter]) -> None:
        def closure() -> torch.Tensor:
            sam.zero_grad()
            loss = sum((param**4 - 3 * param).sum() for param in params)
            loss.backward()
            return loss

        closure()
        if by == "closure":
            sam.step(closure)
        else:
            sam.first_step(zero_grad=True)
            closure()
            sam.second_step(zero_grad=True)

    params, expected_params = twins(SGD)
    options = {"lr": 0.01, "momentum": 0.9}
    sam = pytorch_optimizer.SAM(params, base, **options)
    expected = pytorch_optimizer.SAM(expected_params, torch.optim.SGD, **options)
    for update in range(1, 7):
        step(sam, params)
        factor = min(update / 4, 1.0)
        stepped_at(expected, [factor], partial(step, expected, expected_params))
        assert_same(snapshot(expected, expected_params), snapshot(sam, params))
    assert sam.base_optimizer.done


def test_a_group_added_in_the_closure_warms_at_once() -> None:
    param, optimizer = sgd()
    late = Parameter(torch.zeros(1))
    late.grad = torch.ones(1)
    warmed = Warmed(optimizer, steps=4)
    warmed.step()
    warmed.step(lambda: warmed.add_param_group({"params": [late]}))
    assert param.item() == -0.75
    assert late.item() == -0.25


def test_arguments_and_return_value_pass_through() -> None:
    class Strange(torch.optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs, self.param_groups[0]["lr"]

    param = Parameter(torch.zeros(1))
    warmed = Warmed(Strange([param], lr=1.0), steps=4)
    assert warmed.step(None, 1, two=2) == ((None, 1), {"two": 2}, 0.25)
    assert warmed.step() == ((), {}, 0.5)
    assert Warmed(Strange([param], lr=1.0), steps=0).step(3) == ((3,), {}, 1.0)


def test_an_lr_that_the_optimizer_writes_is_in_effective_units() -> None:
    class Writing(torch.optim.SGD):
        def step(self) -> None:
            self.param_groups[0]["lr"] = self.param_groups[0]["lr"] * 0.5

    for lr in (1.0, torch.tensor(1.0)):
        warmed = Warmed(Writing([Parameter(torch.zeros(1))], lr=lr), steps=4)
        warmed.step()
        assert warmed.param_groups[0]["lr"] == 0.5


def test_an_lr_written_at_factor_zero_is_dropped() -> None:
    """There is no base that it could stand for, and 0 would never end."""

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


# --- lengths, starts, momentum ----------------------------------------------------


def effective(warmed: Warmed, updates: int) -> list[float]:
    """Effective LR of group 0 over so many steps, as the wrapped optimizer sees it."""
    used = watch(warmed.wrapped, lambda inner: lrs(inner)[0])
    for _ in range(updates):
        warmed.step()
    return used


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({"steps": 4}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"steps": 0.4, "total_steps": 10}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"steps": 1e-9, "total_steps": 10}, [1.0, 1.0]),
        ({"steps": 4, "start": 0.2}, [0.4, 0.6, 0.8, 1.0, 1.0]),
        ({"steps": 4, "start": 5}, [4.0, 3.0, 2.0, 1.0, 1.0]),
        ({"steps": 4, "offset": 1}, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"steps": 2, "start": 0.5, "offset": 2}, [0.5, 0.5, 0.75, 1.0, 1.0]),
        ({"steps": 0, "offset": 2}, [1.0, 1.0]),
        ({"steps": 1}, [1.0, 1.0]),
        ({"steps": 2, "mode": lambda t, n: t / (2 * n)}, [0.25, 0.5, 1.0, 1.0]),
        ({"steps": 2, "mode": lambda t, n: 0.5, "start": 0.5}, [0.75, 0.75, 1.0]),
        ({"steps": 2, "mode": lambda t, n, start=0.1: start}, [0.1, 0.1, 1.0]),
        ({"steps": 2, "mode": lambda t, n, start: start * t}, [0.0, 0.0, 1.0]),
        ({"steps": 2, "mode": lambda t, n, *, start=None: 1 - start}, [1.0, 1.0]),
        ({"steps": 2, "mode": partial(linear, start=0.5)}, [0.75, 1.0, 1.0]),
    ],
)
def test_the_factor_of_each_update(options: dict, factors: list[float]) -> None:
    warmed = Warmed(sgd()[1], **options)
    assert effective(warmed, len(factors)) == pytest.approx(factors, abs=1e-15)
    assert warmed.done


def test_a_group_has_its_own_length_and_start() -> None:
    params = [Parameter(torch.zeros(1)) for _ in range(4)]
    groups = [
        {"params": params[:1]},
        {"params": params[1:2], "warmup_steps": 2},
        {"params": params[2:3], "warmup_start": 3.0},
        {"params": params[3:], "warmup_steps": 0},
    ]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=4)
    factors = []
    while not warmed.done:
        factors.append(warmed.factors)
        warmed.step()
    assert factors == [
        [0.25, 0.5, 2.5, 1.0],
        [0.5, 1.0, 2.0, 1.0],
        [0.75, 1.0, 1.5, 1.0],
        [1.0, 1.0, 1.0, 1.0],
    ]
    assert warmed.param_groups[3]["warmup_updates"] == 0


def test_a_groups_ratio_is_a_share_of_total_steps() -> None:
    group = {"params": [Parameter(torch.zeros(1))], "warmup_steps": 0.02}
    warmed = Warmed(torch.optim.SGD([group], lr=1.0), steps=1000, total_steps=100)
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


@pytest.mark.parametrize(
    ("optimizer", "seen"),
    [
        (lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.8), [0.6, 0.8, 0.8]),
        (lambda p: torch.optim.Adam(p, lr=1.0, betas=(0.8, 0.9)), [0.6, 0.8, 0.8]),
        (lambda p: torch.optim.RMSprop(p, lr=1.0, momentum=0.8), [0.6, 0.8, 0.8]),
    ],
)
def test_the_momentum_warms_along(optimizer, seen: list[float]) -> None:
    param = Parameter(torch.zeros(1))
    param.grad = torch.ones(1)
    inner = optimizer([param])
    inner.add_param_group({"params": [], "momentum": 0.0, "betas": (0.0, 0.9)})
    warmed = Warmed(inner, steps=2, momentum_start=0.5)

    def momentum(group: dict) -> float:
        return group["betas"][0] if "betas" in inner.defaults else group["momentum"]

    used = watch(inner, lambda inner: momentum(inner.param_groups[0]))
    for _ in range(3):
        base = warmed.param_groups[0].get("betas")
        warmed.step()
        assert momentum(warmed.param_groups[0]) == 0.8
        assert warmed.param_groups[0].get("betas") is base
    assert used == pytest.approx(seen)


def test_a_momentum_never_goes_above_the_users_own() -> None:
    _, optimizer = sgd(momentum=0.9)
    warmed = Warmed(optimizer, steps=4, mode=lambda t, n: 1.5, momentum_start=0.8)
    seen = watch(optimizer, lambda inner: inner.param_groups[0]["momentum"])
    warmed.step()
    assert seen == [0.9]


def test_the_untuned_modes_take_their_length_from_each_groups_beta2() -> None:
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "betas": (0.9, 0.99)}]
    warmed = Warmed(torch.optim.AdamW(groups), mode="untuned_linear")
    assert warmed.factors == [1 / 2000, 1 / 200]


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        (lambda p: torch.optim.RMSprop(p, alpha=0.9), 20),
        (lambda p: torch.optim.Adadelta(p, rho=0.9), 20),
        (lambda p: torch.optim.NAdam(p, betas=(0.5, 0.98)), 100),
    ],
)
def test_beta2_is_found_where_the_optimizer_keeps_it(optimizer, steps: int) -> None:
    warmed = Warmed(optimizer([Parameter(torch.zeros(1))]), mode="untuned_linear")
    assert warmed.factors == [1 / steps]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_begins_low_and_ends_at_one(mode: str) -> None:
    """Through real steps, to the first at which the warmup is over."""
    param = Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([param], lr=1.0, betas=(0.9, 0.9))
    steps = {} if MODES[mode].steps_from_beta2 else {"steps": 20}
    warmed = Warmed(optimizer, mode=mode, **steps)
    used = []
    while not warmed.done:
        used.append(warmed.factors[0])
        warmed.step()
    assert used[0] < 0.5
    assert used == sorted(used)
    assert used[-1] == 1.0
    assert len(used) >= 20


# --- rewarm, reports --------------------------------------------------------------


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


def test_a_rewarm_that_the_shape_refuses_changes_nothing() -> None:
    warmed = Warmed(torch.optim.Adam([Parameter(torch.zeros(1))]), mode="radam")
    factors = warmed.factors
    with pytest.raises(ValueError, match="must be > 5"):
        warmed.rewarm(5)
    assert warmed.factors == factors


def test_rewarm_starts_a_warmup_where_there_was_none() -> None:
    warmed = Warmed(sgd()[1], steps=0)
    warmed.rewarm()  # of no length
    assert "warmup_updates" not in warmed.param_groups[0]
    warmed.rewarm(steps=4)
    assert effective(warmed, 2) == [0.25, 0.5]


def test_get_last_lr_is_what_the_step_used() -> None:
    _, optimizer = sgd(lr=2.0)
    warmed = Warmed(optimizer, steps=4)
    assert warmed.get_last_lr() == [0.5]  # the first step will use it
    warmed.step()
    optimizer.param_groups[0]["lr"] = 8.0
    assert warmed.get_last_lr() == [0.5]
    while not warmed.done:
        warmed.step()
    optimizer.param_groups[0]["lr"] = 3.0
    assert warmed.get_last_lr() == [3.0]


def test_repr_tells_where_the_warmup_stands() -> None:
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "warmup_steps": 1}]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=3)
    warmed.step()
    head = (
        "Warmed (\n"
        "    mode: linear\n"
        "    group 0: 1 of 3 updates done, next factor 0.6667\n"
        "    group 1: done\n"
        ") SGD (\n"
    )
    assert repr(warmed).startswith(head)
    warmed.rewarm(groups=[0], steps=0)
    assert repr(warmed).startswith("Warmed (\n    mode: linear\n    done\n) SGD (\n")


def test_get_last_lr_of_a_group_not_yet_stepped_is_what_it_will_step_at() -> None:
    warmed = Warmed(sgd()[1], steps=4)
    warmed.step()
    warmed.add_param_group({"params": [Parameter(torch.zeros(1))]})
    assert warmed.get_last_lr() == [0.25, 0.25]


def test_a_framework_handle_that_copies_our_attributes_stays_in_step() -> None:
    """Lightning and Fabric make a subclass that copies __dict__ and forwards `step`."""
    _, optimizer = sgd()
    warmed = Warmed(optimizer, steps=2)
    handle = object.__new__(type("Handle", (Warmed,), {}))
    vars(handle).update(vars(warmed))
    while not warmed.done:
        warmed.step()
    handle.rewarm(steps=4)
    assert effective(warmed, 1) == [0.25]
    assert handle.get_last_lr() == [0.25]


def test_an_attribute_error_in_a_mode_is_not_masked() -> None:
    def broken(update: float, steps: float) -> float:
        return update.missing if update > 1 else 0.5

    warmed = Warmed(sgd()[1], steps=4, mode=broken)
    warmed.step()
    with pytest.raises(AttributeError, match="'int' object has no attribute 'missing'"):
        _ = warmed.factors


# --- all else is the wrapped optimizer's ------------------------------------------


def test_attributes_reach_the_wrapped_optimizer() -> None:
    class Switch(torch.optim.SGD):
        mode = "train"

        def eval(self) -> None:
            self.mode = "eval"

    inner = Switch([Parameter(torch.zeros(1))], lr=1.0)
    warmed = Warmed(inner, steps=2)
    warmed.eval()
    assert warmed.mode == "eval"
    assert warmed.state is inner.state
    assert warmed.defaults is inner.defaults
    warmed.defaults = defaults = dict(inner.defaults)
    assert inner.defaults is defaults
    warmed.param_groups = groups = [*inner.param_groups]
    assert inner.param_groups is groups
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = warmed.missing
    with pytest.raises(AttributeError, match="wrapped"):
        _ = Warmed.__new__(Warmed).missing  # as while it is being unpickled
    assert isinstance(warmed, torch.optim.Optimizer)
    assert {warmed: 1}[warmed] == 1


@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "ScheduleFreeAdamW"])
def test_schedule_free_switches_between_its_weights(name: str) -> None:
    """Its train() and eval() move the parameters, as they do without the wrapper."""
    row = ROWS[f"pytorch_optimizer.{name}"]
    params, expected_params = twins(row)
    warmed, expected = row.wrap(params, steps=4), row.build(expected_params)
    for update in range(1, 7):
        for switch in ("eval", "train"):
            getattr(warmed, switch)()
            getattr(expected, switch)()
            assert_same(snapshot(expected, expected_params), snapshot(warmed, params))
        row.step(warmed, params, update)
        factor = min(update / 4, 1.0)
        stepped_at(
            expected, [factor], partial(row.step, expected, expected_params, update)
        )
    trained = params[0].detach().clone()
    warmed.eval()
    assert not torch.equal(params[0], trained)


def test_zero_grad_is_the_wrapped_optimizers() -> None:
    param, optimizer = sgd()
    warmed = Warmed(optimizer, steps=2)
    warmed.zero_grad(set_to_none=False)
    assert param.grad.item() == 0.0
    warmed.zero_grad()
    assert param.grad is None


def test_hooks_and_profiler_run_once_per_step() -> None:
    """On the wrapper or the wrapped optimizer, one's own or global."""
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    _, optimizer = sgd()
    warmed = Warmed(optimizer, steps=2)
    calls: list[str] = []
    handles = [
        warmed.register_step_pre_hook(lambda *_: calls.append("own pre")),
        optimizer.register_step_post_hook(lambda *_: calls.append("own post")),
        register_optimizer_step_pre_hook(lambda *_: calls.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: calls.append("global post")),
    ]
    try:
        for _ in range(3):
            calls.clear()
            with torch.profiler.profile() as profile:
                warmed.step()
            assert calls == ["global pre", "own pre", "own post", "global post"]
            names = [event.name for event in profile.events()]
            assert [n for n in names if n.startswith("Optimizer.step")] == [
                "Optimizer.step#SGD.step"
            ]
    finally:
        for handle in handles:
            handle.remove()


def test_hooks_from_before_the_wrapping_run_once_and_may_change_the_arguments() -> None:
    class Taking(torch.optim.SGD):
        def step(self, closure: None = None, scale: float = 1.0) -> float:
            return scale * lrs(self)[0]

    optimizer = Taking([Parameter(torch.zeros(1))], lr=1.0)
    calls: list[Any] = []

    def before(inner: torch.optim.Optimizer, args: Any, options: Any) -> Any:
        calls.append((inner, args, options))
        return args, {"scale": 8.0}

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(lambda inner, *_: calls.append(inner))
    warmed = Warmed(optimizer, steps=2)
    assert [warmed.step(None, scale=2.0) for _ in range(3)] == [4.0, 8.0, 8.0]
    assert calls == [(optimizer, (optimizer, None), {"scale": 2.0}), optimizer] * 3


def test_step_hooks_see_the_base_lr_and_may_set_it() -> None:
    """Own and global ones: an optimizer that steps the scheduler itself, say."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    param, optimizer = sgd()
    warmed = Warmed(optimizer, steps=4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
    base, saved = [], []

    def before(inner: torch.optim.Optimizer, *_: Any) -> None:
        base.append(lrs(inner)[0])

    def after(inner: torch.optim.Optimizer, *_: Any) -> None:
        saved.append(inner.state_dict()["param_groups"][0]["lr"])
        scheduler.step()

    handle = warmed.register_step_pre_hook(before)
    global_handle = register_optimizer_step_post_hook(after)
    for _ in range(4):
        warmed.step()
    handle.remove()
    global_handle.remove()
    assert base == saved == [1.0, 0.5, 0.25, 0.125]
    assert param.item() == -(0.25 + 0.25 + 0.1875 + 0.125)
    assert warmed.done
    assert not optimizer._optimizer_step_pre_hooks


def test_hooks_of_a_step_that_calls_its_parents_leave_the_whole_step_scaled() -> None:
    class Child(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            used.append(lrs(self)[0])
            super().step(closure)
            used.append(lrs(self)[0])

    used: list[float] = []
    param = Parameter(torch.zeros(1))
    param.grad = torch.ones(1)
    warmed = Warmed(Child([param], lr=1.0), steps=4)
    warmed.register_step_post_hook(lambda *_: None)
    warmed.step()
    assert used == [0.25, 0.25]
    assert param.item() == -0.25
    assert warmed.get_last_lr() == [0.25]
    assert warmed.factors == [0.5]


def test_state_dict_hooks_run_once() -> None:
    warmed = Warmed(sgd()[1], steps=2)
    calls = []
    warmed.register_state_dict_post_hook(lambda *_: calls.append("saved"))
    warmed.register_load_state_dict_pre_hook(lambda *_: calls.append("loading"))
    warmed.load_state_dict(state_dict=warmed.state_dict())
    assert calls == ["saved", "loading"]


def test_the_wrapper_is_freed_with_its_last_reference() -> None:
    gc.collect()
    warmed = Warmed(sgd()[1], steps=2)
    warmed.step()
    gone = weakref.ref(warmed.wrapped)
    del warmed
    assert gone() is None
