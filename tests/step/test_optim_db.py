"""PyTorch's own table of optimizers: we run its inputs and its wrong inputs.

PyTorch tests its own optimizers with this table, and it comes with torch. We import it
inside the tests because that takes a second and changes the defaults of hypothesis.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
import unittest
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from typing import Any

import hypothesis
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from tests.support.optimizers import Row, assert_same, snapshot, warning_of
from tests.support.reference import stepped_at

pytestmark = pytest.mark.xdist_group("optim_db")  # import it in one process only

CLASSES = [
    cls
    for cls in vars(torch.optim).values()
    if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
]


@pytest.fixture(scope="module")
def common() -> Iterator[Any]:
    """The module that holds the table."""
    # torch's own test classes need this package; the table does not.
    stand_in = types.SimpleNamespace(TestCase=unittest.TestCase)
    sys.modules.setdefault("expecttest", stand_in)  # type: ignore[arg-type]
    yield importlib.import_module("torch.testing._internal.common_optimizers")
    hypothesis.settings.load_profile("repeatable")


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def info(common: Any, request: pytest.FixtureRequest) -> Any:
    """What the table says about one class. All can be wrapped; RAdam and Rprop warn."""
    (info,) = (each for each in common.optim_db if each.optim_cls is request.param)
    return info


def rows(info: Any) -> Iterator[Row]:
    """Every input of the table: as a loop, foreach, differentiable and fused."""
    ways = [way for way in info.supported_impls if way != "fused"]
    ways += ["fused"] * ("cpu" in info.supports_fused_on)
    for given in info.optim_inputs_func(device="cpu"):
        assert given.params is None
        for chosen in (None, *ways):
            yield Row(
                f"{info.name}: {given.desc}, {chosen or 'loop'}",
                info.optim_cls,
                {**given.kwargs, **{way: way == chosen for way in ways}},
                lr=None,
                sparse=info.only_supports_sparse_grads,
                closure=info.step_requires_closure,
                warns=warning_of(info.name),
            )


def params_of(row: Row, values: list[Any] | None = None) -> list[Any]:
    """Differentiable steps need parameters that are not leaves."""
    params = row.params() if values is None else list(map(Parameter, values))
    if not row.options.get("differentiable"):
        return params
    copies = [param.clone() for param in params]
    for each in copies:
        each.retain_grad()
    return copies


def test_the_table_has_every_class_of_torch(common: Any) -> None:
    assert {info.optim_cls for info in common.optim_db} == set(CLASSES)
    assert len(CLASSES) >= 13


def outcome(row: Row, wrap: bool, params: Any, late: dict[str, Any]) -> list[Any]:
    """The error of building, adding a group or stepping; and the number of groups."""
    optimizer = None
    try:
        optimizer = row.wrap(params, steps=5) if wrap else row.build(params)
        if late:
            optimizer.add_param_group(dict(late))
        optimizer.step()
    except Exception as error:
        return [type(error), str(error), optimizer and len(optimizer.param_groups)]
    return [len(optimizer.param_groups)]


@pytest.mark.parametrize("steps", [0, 5])
def test_every_input_steps_as_by_hand_and_resumes(info: Any, steps: int) -> None:
    """Bit-equal parameters, state and groups in each of eight updates."""
    for row in rows(info):
        print(row.name)  # shown on failure
        params, expected_params = params_of(row), params_of(row)
        if "foreach" in row.name and isinstance(row.options.get("lr"), Tensor):
            built = outcome(row, False, expected_params, {})  # some refuse this input
            assert built == outcome(row, True, params, {})
            if built[0] is ValueError:
                continue
        warmed, expected = row.wrap(params, steps=steps), row.build(expected_params)
        for update in range(1, 9):
            if update == 4:
                # torch cannot load a state that requires grad, which a differentiable
                # step has.
                saved = [warmed.state_dict(), list(params)]
                torch.save(tree_map_only(Tensor, Tensor.detach, saved), f := BytesIO())
                f.seek(0)
                state, values = torch.load(f, weights_only=True)
                params = params_of(row, values)
                warmed = row.wrap(params, steps=steps)
                warmed.load_state_dict(state)
            row.step(warmed, params, update)
            factor = min(update / steps, 1.0) if steps else 1.0
            step = partial(row.step, expected, expected_params, update)
            stepped_at(expected, [factor], step)
            assert_same(snapshot(expected, expected_params), snapshot(warmed, params))
        theirs = expected.state_dict()["param_groups"][0]
        ours = warmed.state_dict()["param_groups"][0]
        assert_same(theirs, {key: ours[key] for key in theirs})
        assert warmed.done


def test_every_wrong_input_ends_in_the_same_error(info: Any) -> None:
    """In the constructor or in the step, and for a group that is added later."""
    for wrong in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        given = wrong.optimizer_error_input
        print(given.desc)  # shown on failure
        row = partial(Row, "", info.optim_cls, lr=None, warns=warning_of(info.name))
        expected, actual = (
            outcome(row(given.kwargs), wrap, given.params, {}) for wrap in (False, True)
        )
        assert actual == expected
        assert expected[0] is wrong.error_type
        assert re.search(wrong.error_regex, expected[1])

        late = {"params": given.params, **given.kwargs}
        param = Parameter(torch.ones(1, 1))
        expected, actual = (
            outcome(row(), wrap, [param], late) for wrap in (False, True)
        )
        assert actual == expected
