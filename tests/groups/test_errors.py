"""Every wrong argument: the type and text of the error, and nothing changes."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.features import Adafactor, needs_adafactor
from warmopt import Warmed
from warmopt.criteria import Drift
from warmopt.shapes import rectified


def adam(**group: Any) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": [Parameter(torch.zeros(1))], **group}])


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([Parameter(torch.zeros(1))], lr=1.0)


def nan_at_two(update: float, steps: float) -> float:
    return math.nan if update == 2 else 0.5


WRONG = [
    (
        {"steps": None},
        TypeError,
        "steps must be given with mode='linear', got None. Pass the length in updates, "
        "or mode='untuned_linear' to take it from beta2.",
    ),
    (
        {"steps": 10, "mode": "radam"},
        TypeError,
        "steps must be left out with mode='radam', which takes the length from beta2, "
        "got 10. To set the length, use mode='linear' or mode='saturating'.",
    ),
    (
        {"steps": -1},
        ValueError,
        "steps must be an int of updates in [0, 2**53], or a ratio in (0, 1), got -1.",
    ),
    (
        {"steps": 2.5},
        ValueError,
        "steps must be an int of updates in [0, 2**53], or a ratio in (0, 1), got 2.5.",
    ),
    (
        {"steps": math.nan},
        ValueError,
        "steps must be an int of updates in [0, 2**53], or a ratio in (0, 1), got nan.",
    ),
    (
        {"steps": "10"},
        TypeError,
        "steps must be an int of updates in [0, 2**53], or a ratio in (0, 1), got '10'.",
    ),
    (
        {"steps": True},
        TypeError,
        "steps must be an int of updates in [0, 2**53], or a ratio in (0, 1), got True.",
    ),
    (
        {"steps": 0.1},
        TypeError,
        "total_steps must be given where steps is a ratio, got steps=0.1. Pass the "
        "updates of the whole run, or an int length.",
    ),
    (
        {"steps": 0.1, "total_steps": 0},
        ValueError,
        "total_steps must be a positive int, got 0.",
    ),
    (
        {"steps": 10, "total_steps": "many"},
        TypeError,
        "total_steps must be a positive int, got 'many'.",
    ),
    (
        {"steps": 10, "offset": -1},
        ValueError,
        "offset must be an int of updates, >= 0, got -1.",
    ),
    (
        {"steps": 10, "offset": None},
        TypeError,
        "offset must be an int of updates, >= 0, got None.",
    ),
    (
        {"steps": 10, "start": -0.1},
        ValueError,
        "start must be a finite number >= 0, got -0.1.",
    ),
    (
        {"steps": 10, "momentum_start": -0.1},
        ValueError,
        "momentum_start must be a finite number >= 0, got -0.1.",
    ),
    (
        {"steps": 10, "start": math.inf},
        ValueError,
        "start must be a finite number >= 0, got inf.",
    ),
    (
        {"steps": 10, "start": "low"},
        TypeError,
        "start must be a finite number >= 0, got 'low'.",
    ),
    (
        {"steps": 10, "mode": "exponential", "start": 0},
        ValueError,
        "start must be > 0 with mode='exponential', got 0.",
    ),
    (
        {"steps": 10, "mode": "tanh"},
        ValueError,
        "mode must be one of linear, constant, staircase, cosine, exponential, "
        "polynomial, sqrt, one_minus_sqrt, log, saturating, untuned_linear, "
        "untuned_exponential, radam, adaptive, aligned, or a function of "
        "(update, steps), got 'tanh'.",
    ),
    (
        {"steps": 10, "mode": 3},
        TypeError,
        "mode must be one of linear, constant, staircase, cosine, exponential, "
        "polynomial, sqrt, one_minus_sqrt, log, saturating, untuned_linear, "
        "untuned_exponential, radam, adaptive, aligned, or a function of "
        "(update, steps), got 3.",
    ),
    (
        {"steps": 10, "mode": partial(nan_at_two, 2)},
        TypeError,
        "nan_at_two() takes 2 positional arguments but 3 were given",
    ),
    (
        {"steps": 10, "mode": lambda update, steps: -1.0},
        ValueError,
        "mode <lambda> must return a finite number >= 0, got -1.0 for update 1 of 10.",
    ),
    (
        {"steps": 10, "mode": lambda update, steps, start: "high"},
        ValueError,
        "mode <lambda> must return a finite number >= 0, got 'high' for update 1 of 10.",
    ),
    (
        {"steps": 4, "mode": rectified},
        ValueError,
        "steps must be > 5 for the rectified shape, got 4. It stands for 2 / (1 - "
        "beta2), and below beta2 = 0.6 nothing can be rectified.",
    ),
    (
        {"steps": 10, "momentum_start": 1.2},
        ValueError,
        "momentum_start must be in [0, 1], got 1.2. It is a factor: for a momentum that "
        "rises from 0.8 to 0.9 pass 0.8 / 0.9.",
    ),
    (
        {"steps": 10, "momentum_start": None, "start": None, "mode": None},
        TypeError,
        "mode must be one of linear, constant, staircase, cosine, exponential, "
        "polynomial, sqrt, one_minus_sqrt, log, saturating, untuned_linear, "
        "untuned_exponential, radam, adaptive, aligned, or a function of "
        "(update, steps), got None.",
    ),
    (
        {"steps": 10, "trace": "run.jsonl"},
        TypeError,
        "trace must be a Trace, got 'run.jsonl'. Use trace=Trace().",
    ),
    (
        {"steps": 10, "watch": Drift(0.2)},
        TypeError,
        "watch must be a list of criteria, got Drift(tol=0.2, quantile=0.75, "
        "by='numel'). Use watch=[Drift()].",
    ),
    (
        {"steps": 10, "watch": [Drift(), "drift"]},
        TypeError,
        "watch must be a function of a Reading, got 'drift'. Use one of "
        "warmopt.criteria, as Drift().",
    ),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), WRONG)
def test_a_wrong_argument_is_refused(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    optimizer = adam()
    before, attributes = copy.deepcopy(optimizer.param_groups), set(vars(optimizer))
    with pytest.raises(kind) as refused:
        Warmed(optimizer, **arguments)
    assert str(refused.value) == message
    assert repr(optimizer.param_groups) == repr(before)
    assert set(vars(optimizer)) == attributes
    assert not optimizer._optimizer_load_state_dict_pre_hooks


@pytest.mark.parametrize(
    ("group", "kind", "message"),
    [
        (
            {"warmup_steps": -1},
            ValueError,
            "warmup_steps of param group 1 must be an int of updates in [0, 2**53], or a ratio "
            "in (0, 1), got -1.",
        ),
        (
            {"warmup_steps": 0.5},
            TypeError,
            "total_steps must be given where warmup_steps of param group 1 is a ratio, "
            "got warmup_steps of param group 1=0.5. Pass the updates of the whole run, "
            "or an int length.",
        ),
        (
            {"warmup_start": "x"},
            TypeError,
            "warmup_start of param group 1 must be a finite number >= 0, got 'x'.",
        ),
        (
            {"lr": None},
            ValueError,
            "lr of param group 1 must be a number or a tensor, got None. Warmup scales "
            "it: build the optimizer with an lr.",
        ),
    ],
)
def test_a_wrong_group_is_refused(
    group: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """At the start and when it is added later. A refused group is not added."""
    late = {"params": [Parameter(torch.zeros(1))], **group}
    optimizer = adam()
    optimizer.add_param_group(dict(late))
    before = repr(optimizer.param_groups)
    with pytest.raises(kind) as refused:
        Warmed(optimizer, steps=10)
    assert str(refused.value) == message
    assert repr(optimizer.param_groups) == before

    warmed = Warmed(adam(), steps=10)
    with pytest.raises(kind) as refused:
        warmed.add_param_group(dict(late))
    assert str(refused.value) == message
    assert len(warmed.param_groups) == 1

    if "lr" not in group:  # put in by hand: refused before scaling
        warmed.wrapped.add_param_group(dict(late))
        with pytest.raises(kind):
            warmed.step()
        assert warmed.param_groups[0]["lr"] == 1e-3


def test_what_cannot_be_wrapped_is_refused() -> None:
    with pytest.raises(TypeError) as refused:
        Warmed([Parameter(torch.zeros(1))], steps=10)
    assert str(refused.value) == (
        "optimizer must be a torch.optim.Optimizer, got list. Build it first, then wrap "
        "it: Warmed(torch.optim.AdamW(model.parameters()), steps=1000)."
    )
    with pytest.raises(ValueError, match="Warmed already") as refused:
        Warmed(Warmed(sgd(), steps=10), steps=10)
    assert str(refused.value) == (
        "optimizer must not be Warmed already, got a Warmed around SGD. Call its "
        "rewarm() to warm again, or wrap optimizer.wrapped to use other arguments."
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        sgd,
        pytest.param(
            lambda: Adafactor([Parameter(torch.zeros(1))]), marks=needs_adafactor
        ),
    ],
)
def test_an_untuned_mode_needs_a_beta2(optimizer) -> None:
    optimizer = optimizer()
    with pytest.raises(ValueError, match="no beta2") as refused:
        Warmed(optimizer, mode="radam")
    assert str(refused.value) == (
        f"{type(optimizer).__name__} has no beta2 (looked for betas[1], for alpha in "
        "RMSprop and rho in Adadelta), from which an untuned mode takes its length. Use "
        "mode='linear' with steps=n."
    )
    assert "warmup_updates" not in optimizer.param_groups[0]


@pytest.mark.parametrize(
    ("mode", "betas", "message"),
    [
        (
            "radam",
            (0.5, 0.6),
            "mode='radam' needs beta2 > 0.6, got 0.6. Use mode='untuned_linear' for a "
            "lower beta2.",
        ),
        (
            "untuned_linear",
            (0.5, 1.0),
            "beta2 must be in [0, 1), got 1.0 in 'betas' of Adam. Use mode='linear' with "
            "steps=n.",
        ),
    ],
)
def test_beta2_must_give_a_length(mode: str, betas: tuple, message: str) -> None:
    optimizer = adam()
    optimizer.param_groups[0]["betas"] = betas
    with pytest.raises(ValueError, match="beta2") as refused:
        Warmed(optimizer, mode=mode)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.SGD, {}),
        (torch.optim.SGD, {"momentum": 0.0}),
        (torch.optim.Adam, {"betas": (0.0, 0.9)}),
    ],
)
def test_a_momentum_start_needs_a_momentum(
    optimizer: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    without = optimizer([Parameter(torch.zeros(1))], **options)
    with pytest.raises(ValueError, match="momentum_start") as refused:
        Warmed(without, steps=10, momentum_start=0.8)
    assert str(refused.value) == (
        f"momentum_start must be left out, got 0.8: no param group of "
        f"{optimizer.__name__} has a momentum (looked for 'momentum' and 'betas')."
    )


def test_a_factor_that_fails_on_the_way_stops_the_step_and_nothing_else() -> None:
    """Also if a group before it has already been scaled."""
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [param]} for param in params]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=10, mode=nan_at_two)
    warmed.step()
    warmed.param_groups[0]["warmup_updates"] = 5
    with pytest.raises(ValueError, match=r"got nan for update 2 of 10\."):
        warmed.step()
    assert [group["lr"] for group in warmed.param_groups] == [1.0, 1.0]
    assert [group["warmup_updates"] for group in warmed.param_groups] == [5, 1]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            {"steps": -1},
            ValueError,
            "steps must be an int of updates in [0, 2**53], or a ratio in (0, 1), got -1.",
        ),
        (
            {"steps": "x"},
            TypeError,
            "steps must be an int of updates in [0, 2**53], or a ratio in (0, 1), got 'x'.",
        ),
        (
            {"groups": [0, 1, 2]},
            IndexError,
            "groups must be indices of the 1 param groups, got 1.",
        ),
        (
            {"steps": 5, "groups": ["head"]},
            IndexError,
            "groups must be indices of the 1 param groups, got 'head'.",
        ),
    ],
)
def test_a_wrong_rewarm_is_refused_and_changes_nothing(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    warmed = Warmed(sgd(), steps=10)
    warmed.step()
    before = repr(warmed)
    with pytest.raises(kind) as refused:
        warmed.rewarm(**arguments)
    assert str(refused.value) == message
    assert repr(warmed) == before


def test_a_rewarm_over_a_broken_group_changes_nothing() -> None:
    warmed = Warmed(adam(), steps=10)
    warmed.step()
    warmed.param_groups[0]["warmup_steps"] = -1
    before = repr(warmed.param_groups)
    with pytest.raises(
        ValueError, match="warmup_steps of param group 0 must be an int"
    ):
        warmed.rewarm(steps=5)
    assert repr(warmed.param_groups) == before


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        (
            {"warmup_updates": -1},
            ValueError,
            "warmup_updates of param group 0 of the loaded state must be in [0, 2**53], "
            "got -1.",
        ),
        (
            {"warmup_updates": 2**53 + 1},
            ValueError,
            "warmup_updates of param group 0 of the loaded state must be in [0, 2**53], "
            "got 9007199254740993.",
        ),
        (
            {"warmup_updates": 1.0},
            TypeError,
            "warmup_updates of param group 0 of the loaded state must be an int, got "
            "1.0.",
        ),
        (
            {"warmup_done": 1},
            TypeError,
            "warmup_done of param group 0 of the loaded state must be a bool, got 1.",
        ),
        (
            {"warmup_length": None},
            TypeError,
            "warmup_length of param group 0 of the loaded state must be a number, got "
            "None.",
        ),
        (
            {"warmup_length": math.nan},
            ValueError,
            "warmup_length of param group 0 of the loaded state must be in [0, 2**53], "
            "got nan.",
        ),
        (
            {"warmup_mode": "cosine"},
            ValueError,
            "mode must be the one that the warmup was begun with, 'cosine' (warmup_mode "
            "of param group 0 of the loaded state), got 'linear'. Build Warmed with it, "
            "or set that entry to 'linear' to go on with yours.",
        ),
        (
            {"warmup_steps": "x"},
            TypeError,
            "warmup_steps of param group 0 of the loaded state must be an int of "
            "updates in [0, 2**53], or a ratio in (0, 1), got 'x'.",
        ),
        (
            {"warmup_start": math.nan},
            ValueError,
            "warmup_start of param group 0 of the loaded state must be a finite number "
            ">= 0, got nan.",
        ),
    ],
)
@pytest.mark.parametrize("loader", ["warmed", "wrapped"])
def test_a_broken_state_is_refused_and_nothing_loaded(
    entry: dict[str, Any], kind: type[Exception], message: str, loader: str
) -> None:
    warmed = Warmed(sgd(), steps=10)
    warmed.step()
    before = repr(warmed)
    state = copy.deepcopy(warmed.state_dict())
    state["param_groups"][0].update(entry, lr=0.5)
    with pytest.raises(kind) as refused:
        (warmed if loader == "warmed" else warmed.wrapped).load_state_dict(state)
    assert str(refused.value) == message
    assert repr(warmed) == before


def test_a_length_that_the_shape_refuses_is_refused_by_its_name() -> None:
    warmed = Warmed(adam(), mode="radam")
    state = copy.deepcopy(warmed.state_dict())
    state["param_groups"][0]["warmup_length"] = 1
    name = "warmup_length of param group 0 of the loaded state"
    with pytest.raises(ValueError, match=f"^{name}: steps must be > 5"):
        warmed.load_state_dict(state)


def test_a_state_with_other_groups_is_refused_as_by_torch() -> None:
    warmed = Warmed(sgd(), steps=10)
    state = copy.deepcopy(warmed.state_dict())
    state["param_groups"] *= 2
    with pytest.raises(ValueError, match="different number of parameter groups"):
        warmed.load_state_dict(state)


@pytest.mark.parametrize("lacks", ["", "warmup_done"])
def test_a_state_of_another_function_is_refused_by_its_name(lacks: str) -> None:
    def mine(update: float, steps: float, power: float = 1.0) -> float:
        return (update / steps) ** power

    warmed = Warmed(sgd(), steps=10, mode=mine)
    other = Warmed(sgd(), steps=10, mode=partial(mine, power=2))
    state = copy.deepcopy(warmed.state_dict())
    state["param_groups"][0].pop(lacks, None)
    with pytest.raises(
        ValueError, match=r"begun with, 'mine' .* got 'mine\(power=2\)'"
    ):
        other.load_state_dict(state)


@pytest.mark.parametrize("groups", [3, 0.5, True])
def test_loaded_groups_that_are_no_list_are_refused(groups: object) -> None:
    warmed = Warmed(sgd(), steps=4)
    before = warmed.state_dict()
    with pytest.raises(TypeError) as refused:
        warmed.load_state_dict({"state": {}, "param_groups": groups})
    assert str(refused.value) == (
        f"param_groups of the loaded state must be a list of dicts, got {groups!r}. "
        "Load what state_dict() has returned."
    )
    assert warmed.state_dict() == before
