"""Second moments that are stored in another form: the recipes in docs/adaptive.md."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import adam_mini
import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support import ROOT
from tests.support.features import force_eager, needs_torchao
from tests.support.pages import blocks
from warmopt import Adaptive, Trace, Warmed

PAGE = ROOT / "docs" / "adaptive.md"
SHAPES = (128, 128), (50,)  # one is stored in bytes, one is not


def trained(
    optimizer: Optimizer, params: list[Parameter], mode: Adaptive
) -> tuple[Trace, Warmed]:
    trace = Trace()
    warmed = Warmed(optimizer, steps=200, mode=mode, trace=trace)
    torch.manual_seed(0)
    while not warmed.done:
        for param in params:
            param.grad = torch.randn(param.shape)
        warmed.step()
    return trace, warmed


def new_params() -> list[Parameter]:
    torch.manual_seed(0)
    return [Parameter(torch.randn(shape)) for shape in SHAPES]


@pytest.fixture(autouse=True)
def eagerly() -> Iterator[None]:
    """torchao would compile its step. That takes a minute and is not what we test."""
    with force_eager():
        yield


QUANTISED = {  # and how far the readings may be off
    "bitsandbytes.optim.Adam8bit": 0.05,
    "torchao.optim.Adam8bit": 0.05,
    "torchao.optim.AdamFp8": 0.05,
    "torchao.optim.Adam4bit": 0.2,
}
NAMES = [
    pytest.param(name, marks=needs_torchao if name.startswith("torchao") else ())
    for name in QUANTISED
]


def quantised(name: str, params: list[Parameter]) -> Optimizer:
    module, _, cls = name.rpartition(".")
    optimizer: Optimizer = getattr(import_module(module), cls)(
        params, betas=(0.9, 0.99)
    )
    return optimizer


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_sees_what_adam_keeps_in_full(name: str) -> None:
    package = name.partition(".")[0]
    found = blocks(PAGE.read_text())
    [code] = [block for block in found if f"import {package}" in block]
    params = new_params()
    names: dict[str, Any] = {
        "torch": torch,
        "Adaptive": Adaptive,
        "Warmed": Warmed,
        "model": torch.nn.Linear(100, 100),
    }
    exec(code, names)
    assert isinstance(names["optimizer"], Warmed)
    trace, warmed = trained(quantised(name, params), params, names["mode"])
    plain = new_params()
    adam = torch.optim.Adam(plain, betas=(0.9, 0.99))
    expected, full = trained(adam, plain, Adaptive())

    assert warmed.done_reason == full.done_reason == "settled"
    for seen, true in zip(trace.readings()[1:], expected.readings()[1:], strict=False):
        assert seen.drifts[0] == pytest.approx(true.drifts[0], abs=QUANTISED[name])
        assert seen.drifts[1] == pytest.approx(true.drifts[1], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_without_it_bytes_are_not_taken_for_a_second_moment(name: str) -> None:
    params = [Parameter(torch.randn(SHAPES[0]))]
    warmed = Warmed(quantised(name, params), steps=9, mode="adaptive")
    params[0].grad = torch.ones(SHAPES[0])
    with pytest.raises(ValueError, match="keeps no second moment that could"):
        warmed.step()


def test_adam_mini_needs_no_recipe() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Linear(32, 4))
    mini = adam_mini.Adam_mini(
        model.named_parameters(), lr=1e-3, dim=32, n_heads=4, verbose=False
    )
    trace, warmed = trained(mini, list(model.parameters()), Adaptive())
    assert warmed.done_reason == "settled"
    drifts = trace.readings()[-1].drifts
    assert len(drifts) == 4
    assert not any(map(math.isnan, drifts))
