"""Words that are almost ours, or those of others: each gets the answer of a friend."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import sgd
from warmopt import Adaptive, Trace, Warmed
from warmopt.criteria import Drift


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"warmup_steps": 9}, "The length is steps, in updates: steps=1000."),
        ({"num_warmup_steps": 9}, "The length is steps, in updates: steps=1000."),
        ({"epochs": 2}, "epochs * len(loader) // accumulation."),
        ({"warmup_ratio": 0.1}, "steps=0.1, total_steps=10_000."),
        ({"num_training_steps": 9}, "The length of the whole run is total_steps."),
        ({"power": 2}, "mode=partial(warmopt.shapes.polynomial, power=3)."),
        ({"fast": 9}, "It belongs to Adaptive: mode=Adaptive(...)."),
        ({"start_factor": 0.1}, "The factor at update 0 is start."),
        ({"warmup_init_lr": 1e-6}, "pass start=first_lr / lr."),
        ({"strategy": "cosine"}, "The shape is mode: mode='cosine'."),
        ({"step": 9}, "Did you mean 'steps'?"),
        ({"total_step": 9}, "Did you mean 'total_steps'?"),
    ],
)
def test_an_argument_of_another_library_is_answered_with_ours(
    arguments: dict[str, Any], answer: str
) -> None:
    _, optimizer = sgd()
    (name,) = arguments
    with pytest.raises(TypeError) as refused:
        Warmed(optimizer, **{"steps": 4, **arguments})
    assert str(refused.value).startswith(f"{name} is not an argument of Warmed. ")
    assert str(refused.value).endswith(answer)
    assert "warmup_updates" not in optimizer.param_groups[0]


def test_what_nobody_would_know_is_left_to_python() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'xyz'"):
        Warmed(sgd()[1], steps=4, xyz=1)
    names = list(inspect.signature(Warmed).parameters)
    assert names[:3] == ["optimizer", "steps", "mode"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"steps": 4, "mode": "liner"}, ValueError, "'liner'. Did you mean 'linear'?"),
        ({"steps": 4, "mode": "Cosine"}, ValueError, "Did you mean 'cosine'?"),
        ({"steps": 250.0}, ValueError, "got 250.0. Write 250."),
        (
            {"steps": 0.1, "total_steps": 1000.0},
            ValueError,
            "total_steps must be a positive int, got 1000.0. Write 1000.",
        ),
        (
            {"steps": 500, "total_steps": 100},
            ValueError,
            "steps must be at most total_steps, 100, got 500: the run would end before "
            "the warmup.",
        ),
        (
            {"steps": 4, "mode": lambda t, n: None},
            ValueError,
            "must return a finite number >= 0, got None for update 1 of 4.",
        ),
        (
            {"steps": 4, "mode": lambda t, n: "half"},
            ValueError,
            "must return a finite number >= 0, got 'half' for update 1 of 4.",
        ),
    ],
)
def test_a_value_that_is_almost_right_is_answered_with_the_right_one(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as refused:
        Warmed(sgd()[1], **arguments)
    assert str(refused.value).endswith(message)


def test_a_start_that_looks_like_an_lr_is_told() -> None:
    with pytest.warns(UserWarning, match="is a factor") as told:
        Warmed(sgd()[1], steps=4, start=1e-6)
    assert str(told[0].message) == (
        "start=1e-06 is a factor of the LR, not an LR. If you meant an LR, pass "
        "start=1e-06 / lr."
    )
    assert told[0].filename == __file__
    Warmed(sgd()[1], steps=4, start=1e-4)
    Warmed(sgd()[1], steps=4, start=1e-6, mode="exponential")


@pytest.mark.parametrize("how", ["built", "added", "added to the wrapped"])
def test_a_key_that_is_almost_ours_is_told(how: str) -> None:
    group: dict[str, Any] = {"params": [Parameter(torch.zeros(1))], "warmup_step": 9}

    def run() -> None:
        if how == "built":
            Warmed(torch.optim.SGD([group], lr=1.0), steps=4)
            return
        warmed = Warmed(sgd()[1], steps=4)
        target = warmed if how == "added" else warmed.wrapped
        target.add_param_group(group)
        warmed.step()

    with pytest.warns(UserWarning, match="nothing reads") as told:
        run()
    assert [str(each.message) for each in told] == [
        "A param group has the key 'warmup_step', which nothing reads. Did you mean "
        "'warmup_steps'?"
    ]


def test_a_key_of_the_optimizer_or_of_the_user_is_not_told() -> None:
    class Own(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=1.0)
            self.defaults["warmup_stepz"] = 0

    group = {"params": [Parameter(torch.zeros(1))], "warmup_stepz": 1, "lr_scale": 0.5}
    Warmed(Own([group]), steps=4)


@pytest.mark.parametrize("said", [None, "settled"])
def test_a_criterion_must_say_something(said: Any) -> None:
    def silent(reading: Any) -> Any:
        return said

    runs: list[dict[str, Any]] = [
        {"mode": Adaptive(silent, every=2, window=2)},
        {"watch": [Drift(), silent], "trace": Trace()},
    ]
    for options in runs:
        param = Parameter(torch.zeros(8))
        warmed = Warmed(torch.optim.Adam([param]), steps=40, **options)

        def train(warmed: Warmed = warmed, param: Parameter = param) -> None:
            for _ in range(30):
                param.grad = torch.randn(8)
                warmed.step()

        with pytest.raises(TypeError) as refused:
            train()
        hint = " Is a return missing?" if said is None else ""
        assert str(refused.value) == (
            f"criterion silent must return a bool, got {said!r}.{hint}"
        )


@pytest.mark.parametrize(
    ("name", "ours"),
    [("factor", "factors"), ("is_done", "done"), ("reset", "rewarm()")],
)
def test_an_attribute_that_is_almost_ours_is_answered_with_ours(
    name: str, ours: str
) -> None:
    warmed = Warmed(sgd()[1], steps=4)
    with pytest.raises(AttributeError) as refused:
        getattr(warmed, name)
    assert str(refused.value) == f"Warmed and SGD have no {name!r}. Use {ours}."
    assert not hasattr(warmed, name)
    with pytest.raises(AttributeError, match="'SGD' object has no attribute 'xyz'"):
        warmed.xyz  # noqa: B018


def test_an_attribute_of_the_optimizer_of_that_name_is_its_own() -> None:
    _, optimizer = sgd()
    optimizer.factor = 3  # type: ignore[attr-defined]
    assert Warmed(optimizer, steps=4).factor == 3
