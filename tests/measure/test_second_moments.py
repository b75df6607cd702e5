"""We find the second moment in every optimizer that has one, and in no other.

We measure it: we put in known gradients. What is found must be their average with the
stated decay, by a formula in this file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import pytorch_optimizer
import torch
import torch_optimizer
from torch import Tensor
from torch.optim import Optimizer

from tests.support import optimizers
from tests.support.features import Adafactor, Muon
from tests.support.optimizers import REFUSED, ROWS, UNBUILDABLE
from warmopt._optimizers.second_moments import (
    Moment,
    check_has_second_moment,
    find_moment,
    no_second_moment,
)

pytestmark = pytest.mark.xdist_group("second_moments")  # they share their runs

UPDATES = 6
# Also those that Warmed refuses: nothing must be found there by mistake.
ALL_ROWS = ROWS | {
    f"{module.__name__}.{name}": optimizers._row(module.__name__, name, cls)
    for module in (torch_optimizer, pytorch_optimizer)
    for name, cls in optimizers._classes(module).items()
    if name not in UNBUILDABLE and re.search(REFUSED, name) and name != "AliG"
}

# These have one, but only an override can reach it: a single letter, a list, integers.
NEEDS_OVERRIDE = {
    "pytorch_optimizer.Adalite": "v_avg_0, factored, of (g - m)^2",
    "pytorch_optimizer.Alice": "v, in a basis of its own",
    "pytorch_optimizer.DASH": "blocks[i]['exp_avg_sq']",
    "pytorch_optimizer.FlashAdamW": "exp_avg_sq::quantized",
    "pytorch_optimizer.RACS": "s and q, factored",
    "pytorch_optimizer.SophiaH": "hessian_moment, signed",
    "pytorch_optimizer.VSGD": "bhg, with a decay of its own",
    "torch_optimizer.A2GradExp": "v_kk, a Python float; the LR is not read",
}
# These have one, but not for matrices, or not with these settings.
PARTLY = {
    "pytorch_optimizer.AdaGO": "matrices have a sum",
    "pytorch_optimizer.AdaMuon": "matrices: of the orthogonalized update",
    "pytorch_optimizer.BCOS": "in the modes 'g' and 'm', as 'v'",
    "pytorch_optimizer.EmoFact": "matrices: of the roots of rows and columns",
    "pytorch_optimizer.Muon": "matrices have a momentum only",
    "pytorch_optimizer.MuonClip": "matrices have a momentum only",
    "pytorch_optimizer.NorMuon": "matrices: of the orthogonalized update",
    "pytorch_optimizer.SaRA": "none where no weight is below its threshold",
}


class Run(NamedTuple):
    optimizer: Optimizer
    grads: list[Tensor]
    values: list[Tensor]  # after each update
    moment: Moment | None  # after the last one


@cache
def run(name: str) -> Run:
    row, grads, values = ALL_ROWS[name], [], []
    params = row.params()
    optimizer, moment = row.build(params), None
    for update in range(1, UPDATES + 1):
        row.step(optimizer, params, update)
        generator = torch.Generator().manual_seed(update)
        grads.append(torch.randn(params[0].shape, generator=generator))
        moment = find_moment(optimizer, params[0], optimizer.param_groups[0])
        if moment:
            values.append(moment.values.clone())
    return Run(optimizer, grads, values, moment)


def average(squares: list[Tensor], decay: float, form: str) -> list[Tensor]:
    """Moving averages that start at zero, at the first square or one update later."""
    mean, means = torch.zeros_like(squares[0]), []
    for update, square in enumerate(squares, 1):
        if form == "first" and update == 1:
            mean = square.clone()
        elif form != "late" or update > 1:
            mean = decay * mean + (1 - decay) * square
        means.append(mean / (1 - decay**update) if form == "unbiased" else mean)
    return means


FORMS = ("zero", "unbiased", "first", "late")


def same(actual: Tensor, expected: Tensor) -> bool:
    """Equal, except for rounding, eps and the order in a masked copy."""
    return actual.numel() == expected.numel() and torch.allclose(
        actual.flatten().float(), expected.flatten(), rtol=1e-4, atol=1e-8
    )


def form_of(run: Run, squares: list[Tensor] | None = None) -> str | None:
    """How the values started, if they are an average of the squares at all."""
    squares = squares or plain(run.grads)
    return next(
        (
            form
            for form in FORMS
            if all(map(same, run.values, average(squares, run.moment.beta2, form)))
        ),
        None,
    )


def plain(grads: list[Tensor], *_: float) -> list[Tensor]:
    return [grad.square() for grad in grads]


def belief(grads: list[Tensor], beta1: float, _: float) -> list[Tensor]:
    means = average(grads, beta1, "zero")
    return [(g - m).square() for g, m in zip(grads, means, strict=True)]


def adan(grads: list[Tensor], _: float, beta2: float) -> list[Tensor]:
    before = [grads[0], *grads[:-1]]
    return [(g + beta2 * (g - b)).square() for g, b in zip(grads, before, strict=True)]


def mean_of_all(grads: list[Tensor], *_: float) -> list[Tensor]:
    return [grad.square().mean() for grad in grads]


def sum_of_all(grads: list[Tensor], *_: float) -> list[Tensor]:
    return [grad.square().sum() for grad in grads]


def mean_of_rows(grads: list[Tensor], *_: float) -> list[Tensor]:
    return [grad.square().mean(1, keepdim=True) for grad in grads]


def centered(grads: list[Tensor], *_: float) -> list[Tensor]:
    return [(grad - grad.mean(1, keepdim=True)).square() for grad in grads]


def sum_of_rows(grads: list[Tensor], *_: float) -> list[Tensor]:
    return [grad.square().sum(1, keepdim=True) for grad in grads]


# Class (or row) -> what it averages instead of plain squares.
OF_OTHER_SQUARES: dict[str, Callable[..., list[Tensor]]] = {
    "AdaBelief": belief,
    "Adan": adan,
    "Amos": mean_of_all,
    "CAME": mean_of_rows,
    "Nero": sum_of_rows,
    "NovoGrad": sum_of_all,
    "pytorch_optimizer.Ranger": centered,
}
# Class -> why there is no formula for it here. We only check that it falls no faster
# than its decay allows, and exactly that fast once gradients are zero.
NO_FORMULA = {
    "AdaGC": "of clipped gradients",
    "AdaHessian": "of a random estimate of the Hessian",
    "AdaShift": "of gradients of ten updates ago",
    "Adahessian": "of a random estimate of the Hessian",
    "Aida": "of the difference of gradients and momentum, projected",
    "Ano": "its sign decides between adding and subtracting the square",
    "Conda": "of gradients in a basis of its own",
    "DAdaptAdan": "of gradients and their differences, scaled by its own estimate",
    "GrokFastAdamW": "of amplified gradients",
    "MARS": "of corrected and clipped gradients",
    "Prodigy": "of gradients scaled by its own estimate",
    "SOAP": "of gradients in a basis of its own",
    "StableSPAM": "of clipped and normalized gradients",
    "Yogi": "its sign decides between adding and subtracting the square",
}
# Class -> why its decay is not a number.
NO_DECAY = {"AdaFactor": "1 - t^-.8", "Adafactor": "1 - t^-.8", "AdaSmooth": "adaptive"}
# Class -> why zero gradients do not show its decay.
NOT_SHOWN_BY_ZEROS = {
    "AdaBelief": "its momentum is not zero yet",
    "Aida": "its momentum is not zero yet",
    "GrokFastAdamW": "the gradients of long ago are still added",
    "SparseAdam": "rows without a gradient do not decay",
    "StableSPAM": "it skips them",
    "Yogi": "a zero square changes nothing",
}
FOUND = [name for name in ALL_ROWS if run(name).moment]


def class_of(name: str) -> str:
    optimizer = run(name).optimizer
    return type(getattr(optimizer, "optimizer", optimizer)).__name__


@pytest.mark.parametrize("name", FOUND)
def test_it_is_an_average_of_squared_gradients(name: str) -> None:
    seen, cls = run(name), class_of(name)
    decay = seen.moment.beta2
    if cls in NO_DECAY:
        assert decay is None
    elif cls in NO_FORMULA:
        for before, after in zip(seen.values, seen.values[1:], strict=False):
            assert (after >= decay * before - 1e-6).all() or cls in ("Yogi", "Ano")
    else:
        squares = OF_OTHER_SQUARES.get(name) or OF_OTHER_SQUARES.get(cls) or plain
        group = seen.optimizer.param_groups[0]
        betas = group.get("betas", (0, 0))[:2]
        if name == "torch_optimizer.AdaBelief":  # adds eps every time
            seen = remove_eps(seen, group["eps"])
        assert form_of(seen, squares(seen.grads, *betas))


def remove_eps(seen: Run, eps: float) -> Run:
    added = average([torch.ones(())] * UPDATES, seen.moment.beta2, "zero")
    each = [eps * one / (1 - seen.moment.beta2) for one in added]
    values = [v - e for v, e in zip(seen.values, each, strict=True)]
    return seen._replace(values=values)


@pytest.mark.parametrize("name", FOUND)
def test_its_decay_shows_once_gradients_are_zero(name: str) -> None:
    """The ratio of two readings shows it, after any gradients."""
    if class_of(name) in NO_DECAY | NOT_SHOWN_BY_ZEROS:
        return
    row = ALL_ROWS[name]
    params = row.params()
    optimizer = row.build(params)
    values, zeros = [], 13  # AdaShift looks back by ten

    def zero(*_: Any) -> None:
        for param in params:
            param.grad.zero_()

    for update in range(1, UPDATES + zeros + 1):
        if update == UPDATES + 1:
            optimizer.register_step_pre_hook(zero)
        row.step(optimizer, params, update)
        moment = find_moment(optimizer, params[0], optimizer.param_groups[0])
        values.append(moment.values.double().sum().item())
    decay, age = moment.beta2, UPDATES + zeros
    expected = decay
    if run(name).moment and form_of(run(name)) == "unbiased":
        expected *= (1 - decay ** (age - 1)) / (1 - decay**age)
    if values[-2]:  # NovoGrad's default decay is 0
        assert values[-1] / values[-2] == pytest.approx(expected, rel=3e-4)


def moved(name: str, decay: float) -> float | None:
    """How far gradients of constant size move the parameter in the first updates."""
    row = ALL_ROWS[name]
    params = row.params()
    optimizer = row.build(params)
    claimed = run(name).moment.beta2
    inner = getattr(optimizer, "optimizer", optimizer)
    for group in inner.param_groups:
        for key in ("betas", "beta", "alpha", "rho"):
            value = group.get(key)
            if isinstance(value, tuple) and claimed in value:
                last = len(value) - 1 - value[::-1].index(claimed)
                group[key] = (*value[:last], decay, *value[last + 1 :])
            elif value == claimed:
                group[key] = decay
    start = params[0].detach().clone()

    def constant(*_: Any) -> None:
        for param in params:
            param.grad = 0.1 * torch.where(param.grad.to_dense() < 0, -1.0, 1.0)
            if row.sparse:
                param.grad = param.grad.to_sparse(1)

    optimizer.register_step_pre_hook(constant)
    for _ in range(3):
        row.step(optimizer, params, 1)
    return (params[0].detach() - start).abs().sum().item()


# Class -> why its first steps do not show whether it corrects the bias.
STEPS_DO_NOT_SHOW = {
    "AdaShift": "takes none",
    "AdaHessian": "needs the graph of its gradients",
    "Adahessian": "needs the graph of its gradients",
    "AdamG": "beta2 is in its numerator, too",
    "PAdam": "corrects by the full root, but divides by a partial one",
    "pytorch_optimizer.Magma": "skips steps at random",
    "RAdam": "rectifies, or does not step at first",
    "RangerVA": "divides by the maximum",
    "SOAP": "has another basis each time",
    "ScheduleFreeRAdam": "does not step at first",
    "SimplifiedAdEMAMix": "divides by the correction twice",
}


@pytest.mark.parametrize("name", FOUND)
def test_the_bias_is_corrected_where_the_optimizer_does_so(name: str) -> None:
    """If it is corrected, steps with constant gradients are the same for any beta2."""
    seen, cls = run(name), class_of(name)
    form = None if cls in NO_DECAY else form_of(seen)
    if cls in NO_DECAY or form in ("unbiased", "first") or cls == "NovoGrad":
        assert not seen.moment.debias
    elif not {name, cls} & set(STEPS_DO_NOT_SHOW):
        ratio = moved(name, 0.99) / moved(name, 0.9)
        assert seen.moment.debias is (ratio < 1.2), ratio


def test_every_exception_is_needed() -> None:
    """The tests need every class that the tables above name."""
    classes = {class_of(name) for name in FOUND} | set(FOUND)
    tables = (OF_OTHER_SQUARES, NO_FORMULA, NO_DECAY, NOT_SHOWN_BY_ZEROS)
    for table in (*tables, STEPS_DO_NOT_SHOW):
        assert not set(table) - classes
    plainly = [name for name in FOUND if class_of(name) in NO_FORMULA]
    assert [name for name in plainly if form_of(run(name)) in FORMS[:3]] == []


@pytest.mark.parametrize("name", FOUND)
def test_its_age_is_the_number_of_updates(name: str) -> None:
    late = {"AdaShift": 10, "SOAP": 1, "Prodigy": -1}.get(class_of(name), 0)
    age = run(name).moment.age
    if class_of(name) == "QHAdam" and name == "torch_optimizer.QHAdam":
        assert age is None
    else:
        assert age == max(UPDATES - late, 0)


@pytest.mark.parametrize("name", [name for name in ALL_ROWS if name not in FOUND])
def test_what_is_not_found_is_not_there(name: str) -> None:
    """No tensor of the state is a plain average of squares; known classes say so."""
    seen, row = run(name), ALL_ROWS[name]
    group = seen.optimizer.param_groups[0]
    decays = (*group.get("betas", ()), group.get("beta"), 0.9, 0.99, 0.999)
    for decay in filter(None, decays):
        for form in FORMS[:3]:
            expected = average(plain(seen.grads), decay, form)[-1]
            for param in seen.optimizer.param_groups[0]["params"]:
                for value in seen.optimizer.state.get(param, {}).values():
                    assert not (isinstance(value, Tensor) and same(value, expected))
    assert "keeps no second moment" in str(no_second_moment(seen.optimizer))
    if name not in NEEDS_OVERRIDE and name not in PARTLY:
        with pytest.raises(ValueError, match="keeps no second moment that could"):
            check_has_second_moment(row.build(row.params()))


def test_the_counts() -> None:
    groups = {"override": NEEDS_OVERRIDE, "not of matrices": PARTLY}
    counts = Counter(
        next((label for label, names in groups.items() if name in names), "refused")
        for name in ALL_ROWS
        if name not in FOUND
    )
    assert len(FOUND) == (108 if Adafactor else 105)
    refused = 79 if Muon else 78
    assert counts == {"refused": refused, "override": 8, "not of matrices": 8}
