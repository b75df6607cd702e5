"""Every kind of parameter and gradient: `Warmed` does what the bare optimizer does.

Either both step, bit-equal to a loop that sets the LR by hand, or both raise the same
error.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support.optimizers import ROWS, Row, assert_same, snapshot
from tests.support.reference import stepped_at

pytestmark = pytest.mark.xdist_group("kinds")  # one process counts them all

Step = Callable[[Row, Optimizer, list[Parameter], int], None]


def step(row: Row, optimizer: Optimizer, params: list[Parameter], update: int) -> None:
    row.step(optimizer, params, update)


def without_gradient(
    row: Row, optimizer: Optimizer, params: list[Parameter], update: int
) -> None:
    params[1].grad = None
    row.step(optimizer, params[:1], update)


def zero_gradients(
    row: Row, optimizer: Optimizer, params: list[Parameter], update: int
) -> None:
    def zero(optimizer: Optimizer, *_: Any) -> None:
        for param in params:
            if param.grad is not None:
                param.grad.zero_()

    handle = optimizer.register_step_pre_hook(zero)
    row.step(optimizer, params, update)
    handle.remove()


def complex_(params: list[Parameter]) -> None:
    for param in params:
        param.data = torch.complex(param.data, param.data.flip(0))


def mixed(params: list[Parameter]) -> None:
    params[0].data = params[0].data.double()


def bfloat16(params: list[Parameter]) -> None:
    for param in params:
        param.data = param.data.bfloat16()


def unchanged(params: list[Parameter]) -> None:
    pass


# Kind -> (change of the row, change of the parameters, how to step, how many rows must
# be able to step; the others refuse it, bare or wrapped).
KINDS: dict[str, tuple[dict[str, Any], Callable[..., None], Step, int]] = {
    "without_gradient": ({}, unchanged, without_gradient, 150),
    "zero_gradients": ({}, unchanged, zero_gradients, 150),
    "sparse": ({"sparse": True}, unchanged, step, 20),
    "complex": ({}, complex_, step, 30),
    "mixed_dtypes": ({}, mixed, step, 130),
    "bfloat16": ({}, bfloat16, step, 130),
    "maximize": ({"options": {"maximize": True}}, unchanged, step, 90),
}
CASES = [
    (kind, row)
    for kind in KINDS
    for row in ROWS.values()
    if kind != "maximize" or "maximize" in inspect.signature(row.make).parameters
]
seen: Counter[str] = Counter()
stepped: Counter[str] = Counter()


def outcome(
    row: Row, kind: str, run: Callable[[Row, list[Parameter], Step], None]
) -> Any:
    """What `run` leaves in the parameters and state, or its error."""
    changes, change, stepper, _ = KINDS[kind]
    options = {**row.options, **changes.get("options", {})}
    row = dataclasses.replace(row, **{**changes, "options": options})
    params = row.params()
    change(params)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch shows some warnings only once
            return run(row, params, stepper)
    except Exception as error:
        return [type(error).__name__, str(error)]


def hand_scaled(row: Row, params: list[Parameter], stepper: Step) -> list[Any]:
    optimizer, seen = row.build(params), []
    for update in range(1, 6):
        factor = min(update / 4, 1.0)
        stepped_at(
            optimizer, [factor], partial(stepper, row, optimizer, params, update)
        )
        seen.append(snapshot(optimizer, params))
    return seen


def warmed(row: Row, params: list[Parameter], stepper: Step) -> list[Any]:
    optimizer, seen = row.wrap(params, steps=4), []
    for update in range(1, 6):
        stepper(row, optimizer, params, update)
        seen.append(snapshot(optimizer, params))
    return seen


@pytest.mark.parametrize(
    ("kind", "row"), [pytest.param(k, r, id=f"{k}-{r.name}") for k, r in CASES]
)
def test_it_does_what_the_bare_optimizer_does(kind: str, row: Row) -> None:
    expected = outcome(row, kind, hand_scaled)
    assert_same(expected, outcome(row, kind, warmed))
    seen[kind] += 1
    stepped[kind] += isinstance(expected[0], list)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_was_really_stepped(kind: str) -> None:
    """If all rows refused it, the test above would only compare errors."""
    cases = sum(case == kind for case, _ in CASES)
    assert stepped[kind] >= KINDS[kind][3] or seen[kind] < cases


def test_an_empty_group_warms_and_does_no_harm(multi_group_row: Row) -> None:
    """Another rank may hold its parameters, so its clock goes on."""
    row = multi_group_row

    def run(row: Row, wrap: bool) -> list[Any]:
        params = row.params()
        groups = [row.group(params), row.group([])]
        try:
            optimizer = row.wrap(groups, steps=4) if wrap else row.build(groups)
            for update in range(1, 4):
                each = partial(row.step, optimizer, params, update)
                if wrap:
                    each()
                else:
                    stepped_at(optimizer, [update / 4] * 2, each)
        except Exception as error:
            return [type(error).__name__, str(error)]
        if wrap:
            assert optimizer.factors == [1.0, 1.0]
        return snapshot(optimizer, params)

    assert_same(run(row, wrap=False), run(row, wrap=True))
