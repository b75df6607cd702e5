"""What is found in one optimizer, how to override it, and the errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_optimizer
import torch
import torch_optimizer
from torch import Tensor, optim
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support import optimizers
from tests.support.features import Adafactor, Muon, needs_adafactor, needs_muon
from warmopt import Warmed
from warmopt._optimizers.second_moments import (
    Moment,
    beta2,
    check_has_second_moment,
    find_moment,
    no_second_moment,
    stalls,
    warn_if_one_stalls,
)

LINEAR = (
    "Use mode='linear' with steps=n, or pass second_moment=<state key or callable> if "
    "you know of one."
)


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


def weight(*shape: int, dtype: torch.dtype = torch.float32) -> Parameter:
    return Parameter(torch.randn(shape or (4, 3), dtype=dtype))


def step(optimizer: Optimizer, grad: float | complex = 1.0) -> None:
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, grad)
    optimizer.step()


def moments(optimizer: Optimizer, override: Any = None) -> list[Moment | None]:
    return [
        find_moment(optimizer, param, group, override)
        for group in optimizer.param_groups
        for param in group["params"]
    ]


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (optim.SGD, "a momentum at most"),
        (optim.ASGD, "a momentum at most"),
        (optim.Adagrad, "a sum of squared gradients, which never settles"),
        (optim.Adamax, "a decayed maximum of gradients, which is no mean"),
        pytest.param(Muon, "a momentum at most", marks=needs_muon),
        (optim.Rprop, "the sizes of its own steps"),
        (optim.LBFGS, "earlier gradients and directions"),
        (pytorch_optimizer.Lion, "a momentum at most"),
        (pytorch_optimizer.SM3, "a sum of squared gradients, which never settles"),
    ],
)
def test_a_known_class_without_one_is_refused_at_once(
    make: Callable[..., Optimizer], kept: str
) -> None:
    name = make.__name__
    message = f"{name} keeps no second moment that could settle: it keeps {kept}."
    with pytest.raises(ValueError, match=exactly(f"{message} {LINEAR}")):
        check_has_second_moment(make([weight()]))


def test_a_subclass_and_a_wrapper_are_refused_as_well() -> None:
    class Mine(optim.SGD):
        pass

    for optimizer in (
        Mine([weight()]),
        pytorch_optimizer.Lookahead(optim.SGD([weight()])),
    ):
        with pytest.raises(ValueError, match="it keeps a momentum at most"):
            check_has_second_moment(optimizer)


class Velocity(Optimizer):
    """An unknown class, with a `v` that is not a second moment."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:
        for param in self.param_groups[0]["params"]:
            self.state[param].update(v=param.grad.clone(), step=1)


def test_an_unknown_class_is_refused_once_it_was_stepped() -> None:
    optimizer = Velocity([weight()])
    check_has_second_moment(optimizer)
    step(optimizer)
    assert moments(optimizer) == [None]
    message = (
        "Velocity keeps no second moment that could settle: its state keys are step, "
        f"v. {LINEAR}"
    )
    assert str(no_second_moment(optimizer)) == message
    with pytest.raises(ValueError, match=exactly(message)):
        check_has_second_moment(optimizer)  # as when resumed


def test_state_that_an_optimizer_is_born_with_is_not_judged() -> None:
    optimizer = Velocity([weight()])
    param = optimizer.param_groups[0]["params"][0]
    optimizer.state[param]["step"] = torch.zeros(())
    check_has_second_moment(optimizer)


class Bare(Optimizer):
    """An unknown class, with a tensor in its state where others have a dict."""

    def __init__(self, params: Any, key: Any = None) -> None:
        super().__init__(params, {"lr": 0.1})
        self.key = key

    def step(self, closure: Any = None) -> None:
        for param in self.param_groups[0]["params"]:
            self.state[self.key or param] = param.grad.clone()


@pytest.mark.parametrize("key", [None, "shared"])
def test_state_that_is_no_dict_is_refused_after_the_first_step(key: Any) -> None:
    warmed = Warmed(Bare([param := weight()], key), steps=9, mode="adaptive")
    param.grad = torch.ones_like(param)
    message = "Bare keeps no second moment that could settle: its state is empty. "
    with pytest.raises(ValueError, match=exactly(message + LINEAR)):
        warmed.step()
    check_has_second_moment(warmed.wrapped)  # nothing shows that it was stepped


def test_muon_and_adamw_in_one_optimizer() -> None:
    groups = [
        {"params": [weight()], "use_muon": True},
        {"params": [weight(3)], "use_muon": False},
    ]
    optimizer = pytorch_optimizer.Muon(groups)
    check_has_second_moment(optimizer)
    step(optimizer)
    muon, adam = moments(optimizer)
    assert muon is None
    assert adam.kind == "exp_avg_sq"
    check_has_second_moment(optimizer)


@pytest.mark.parametrize(
    ("make", "factored", "plain"),
    [
        pytest.param(Adafactor, "row_var", "variance", marks=needs_adafactor),
        (torch_optimizer.Adafactor, "exp_avg_sq_row", "exp_avg_sq"),
        (pytorch_optimizer.AdaFactor, "exp_avg_sq_row", "exp_avg_sq"),
    ],
)
def test_adafactor_factors_matrices_only(
    make: Callable[..., Optimizer], factored: str, plain: str
) -> None:
    """At its first update both hold just the squares, which are 4 here."""
    optimizer = make([weight(4, 3), weight(5)])
    with optimizers.quiet():
        step(optimizer, 2.0)
    matrix, vector = moments(optimizer)
    assert (matrix.kind, matrix.values.numel()) == (factored, 4)
    assert (vector.kind, vector.values.shape) == (plain, (5,))
    for moment in (matrix, vector):
        torch.testing.assert_close(moment.values.mean(), torch.tensor(4.0))
        assert (moment.beta2, moment.debias, moment.momentum) == (None, False, None)
    with pytest.raises(ValueError, match="has no beta2"):
        beta2(optimizer, optimizer.param_groups[0])


def test_amsgrad_is_read_before_its_maximum() -> None:
    optimizer = optim.Adam([weight()], amsgrad=True)
    step(optimizer, 2.0)
    step(optimizer, 0.0)
    (moment,) = moments(optimizer)
    (state,) = optimizer.state.values()
    assert moment.values is state["exp_avg_sq"]
    assert (moment.values < state["max_exp_avg_sq"]).all()


def test_complex_parts_are_squared_apart() -> None:
    optimizer = optim.Adam([weight(dtype=torch.complex64)], betas=(0.9, 0.5))
    step(optimizer, 2 + 4j)
    (moment,) = moments(optimizer)
    assert moment.values.dtype == torch.complex64
    assert (moment.values == 2 + 8j).all()


def test_the_first_moment_comes_with_it() -> None:
    """Only if it is one: LaProp averages gradients divided by the root."""
    for make, expected in (
        (optim.Adam, "exp_avg"),
        (optim.RMSprop, None),
        (pytorch_optimizer.LaProp, None),
        (torch_optimizer.NovoGrad, None),
    ):
        optimizer = make([weight()])
        step(optimizer)
        (moment,) = moments(optimizer)
        (state,) = optimizer.state.values()
        assert moment.momentum is (expected and state[expected])


def test_the_age_is_that_of_the_parameter() -> None:
    late, always = weight(), weight()
    optimizer = optim.Adam([late, always])
    for update in range(3):
        always.grad = torch.ones_like(always)
        late.grad = torch.ones_like(late) if update else None
        optimizer.step()
    assert [moment.age for moment in moments(optimizer)] == [2, 3]


def test_looking_leaves_no_trace() -> None:
    optimizer = optim.Adam([weight(), weight(0), weight()])
    assert moments(optimizer) == [None] * 3
    assert not optimizer.state
    step(optimizer)
    found, empty, _ = moments(optimizer)
    assert empty is None
    assert (
        found.values
        is optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg_sq"]
    )


def wrapped(name: str) -> tuple[Optimizer, Optimizer]:
    params = [weight()]
    adam = optim.AdamW(params)
    if name == "SAM":
        outer = pytorch_optimizer.SAM(params, optim.AdamW)
        return outer, outer.base_optimizer
    library = torch_optimizer if name == "Lookahead" else pytorch_optimizer
    return getattr(library, name)(adam), adam


@pytest.mark.parametrize("name", ["Lookahead", "OrthoGrad", "SAM", "TRAC"])
def test_wrappers_are_seen_through(name: str) -> None:
    outer, inner = wrapped(name)
    check_has_second_moment(outer)
    step(inner)
    (param,) = inner.param_groups[0]["params"]
    moment = find_moment(outer, param, outer.param_groups[0])
    assert moment.values is inner.state[param]["exp_avg_sq"]
    assert beta2(outer, outer.param_groups[0]) == 0.999


def test_a_wrapper_whose_first_step_has_no_gradients_is_not_refused() -> None:
    """Its own state, the slow weights, says nothing about the optimizer inside."""
    outer, inner = wrapped("Lookahead")
    with pytest.warns(UserWarning, match="Wrap the inner optimizer"):
        warmed = Warmed(outer, steps=60, mode="adaptive")
    (param,) = inner.param_groups[0]["params"]
    param.grad = None
    warmed.step()
    param.grad = torch.ones_like(param)
    for _ in range(10):
        warmed.step()
    assert "watching 100%" in repr(warmed)


class Adam8bit(optim.Adam):
    """Keeps the second moment as bytes and a scale, as quantized optimizers do."""

    def step(self, closure: Any = None) -> None:
        for state in self.state.values():
            state["exp_avg_sq"] = dequantize(None, state, {})
        super().step(closure)
        for state in self.state.values():
            values = state.pop("exp_avg_sq")
            state["scale"] = values.max() / 255
            state["codes"] = (values / state["scale"]).round().to(torch.uint8)


def dequantize(param: Any, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    return state["codes"] * state["scale"]


def test_an_override_dequantizes() -> None:
    optimizer = Adam8bit([weight(50)], betas=(0.9, 0.75))
    step(optimizer, 2.0)
    assert moments(optimizer) == [None]
    (moment,) = moments(optimizer, dequantize)
    torch.testing.assert_close(moment.values, torch.ones(50))
    assert moment._replace(values=None, momentum=None) == Moment(
        None, 0.75, True, 1, None, "dequantize"
    )
    message = (
        "second_moment must give a plain floating tensor or None, got a Tensor of "
        "torch.uint8 from 'codes'. Pass a callable that dequantizes it."
    )
    with pytest.raises(TypeError, match=exactly(message)):
        moments(optimizer, "codes")


def test_an_override_by_key_comes_before_the_tables() -> None:
    optimizer = optim.SGD([weight()], momentum=0.9)
    check_has_second_moment(optimizer, "momentum_buffer")
    step(optimizer)
    (moment,) = moments(optimizer, "momentum_buffer")
    (state,) = optimizer.state.values()
    assert moment.values is state["momentum_buffer"]
    assert str(no_second_moment(optimizer, "v")) == (
        "second_moment='v' gives none for any parameter of SGD: its state keys are "
        "momentum_buffer. Use mode='linear' with steps=n, or pass another state key or "
        "callable."
    )


@pytest.mark.parametrize(
    ("dtype", "decay", "stopped"),
    [
        (torch.bfloat16, 0.999, True),
        (torch.bfloat16, 0.9, False),
        (torch.float32, 0.999, False),
    ],
)
def test_an_average_that_rounding_stops_is_told(
    dtype: torch.dtype, decay: float, stopped: bool
) -> None:
    """It stands still far below the square, which is 1."""
    optimizer = optim.Adam([weight(dtype=dtype)], lr=0.0, betas=(0.9, decay))
    for _ in range(1500):
        step(optimizer)
    (moment,) = moments(optimizer)
    before = moment.values.clone()
    step(optimizer)
    debiased = moment.values.double().mean().item() / (1 - decay**1501)
    assert stalls(moment) is stopped
    if not stopped:
        assert debiased == pytest.approx(1.0, rel=1e-2)
        warn_if_one_stalls(optimizer, [moment, moment])
        return
    assert torch.equal(before, moment.values)
    assert debiased < 0.9
    message = (
        "Adam keeps 2 second moments in bfloat16, which is too coarse for "
        "beta2=0.999: they stop moving before they have settled, so they are not "
        "counted as settled. Keep the parameters in float32 (with autocast), or "
        "lower beta2."
    )
    with pytest.warns(UserWarning, match=exactly(message)):
        warn_if_one_stalls(optimizer, [moment, moment])
