"""The second moment is found in every optimizer that has one, and in no other.

The truth is measured: gradients that are known go in, and what is found must be their
average with the decay that is claimed, by a formula that stands here.
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
from torch import Tensor, optim
from torch.nn import Parameter
from torch.optim import Optimizer

from tests import optimizers
from tests.optimizers import REFUSED, ROWS, UNBUILDABLE
from warmopt.second_moments import (
    Moment,
    beta2,
    check_has_second_moment,
    find_moment,
    no_second_moment,
    stalls,
    warn_if_one_stalls,
)

pytestmark = pytest.mark.xdist_group("second_moments")  # they share their runs

UPDATES = 6
# Those, too, that Warmed itself refuses: they must not be found by mistake.
ALL_ROWS = ROWS | {
    f"{module.__name__}.{name}": optimizers._row(module.__name__, name, cls)
    for module in (torch_optimizer, pytorch_optimizer)
    for name, cls in optimizers._classes(module).items()
    if name not in UNBUILDABLE and re.search(REFUSED, name) and name != "AliG"
}

# What has one that only an override reaches: a bare letter, a list, integers.
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
# What keeps one, but not of matrices, or nothing at these settings.
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
    """The moving averages, started at zero, at the first square or after one update."""
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
    """Up to rounding, eps and the order of a masked copy."""
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


# Class (or row) -> what it averages in place of plain squares.
OF_OTHER_SQUARES: dict[str, Callable[..., list[Tensor]]] = {
    "AdaBelief": belief,
    "Adan": adan,
    "Amos": mean_of_all,
    "CAME": mean_of_rows,
    "Nero": sum_of_rows,
    "NovoGrad": sum_of_all,
    "pytorch_optimizer.Ranger": centered,
}
# Class -> why no formula is written down for it. What is checked of it: it falls no
# faster than its decay allows, and by exactly that once gradients are zero.
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
# Class -> why its decay is no number.
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
    """After any gradients, by the ratio of two readings."""
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


# Class -> why the size of its first steps does not show whether it corrects the bias.
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
    """Then steps under constant gradients are the same with any beta2."""
    seen, cls = run(name), class_of(name)
    form = None if cls in NO_DECAY else form_of(seen)
    if cls in NO_DECAY or form in ("unbiased", "first") or cls == "NovoGrad":
        assert not seen.moment.debias
    elif not {name, cls} & set(STEPS_DO_NOT_SHOW):
        ratio = moved(name, 0.99) / moved(name, 0.9)
        assert seen.moment.debias is (ratio < 1.2), ratio


def test_every_exception_is_needed() -> None:
    """No class stands in a table above that the tests could do without."""
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
    assert len(FOUND) == 108
    assert counts == {"refused": 79, "override": 8, "not of matrices": 8}


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
        (optim.Muon, "a momentum at most"),
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
    """Of a class nobody knows, with a `v` that is not a second moment."""

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
        (optim.Adafactor, "row_var", "variance"),
        (torch_optimizer.Adafactor, "exp_avg_sq_row", "exp_avg_sq"),
        (pytorch_optimizer.AdaFactor, "exp_avg_sq_row", "exp_avg_sq"),
    ],
)
def test_adafactor_factors_matrices_only(
    make: Callable[..., Optimizer], factored: str, plain: str
) -> None:
    """At its first update both hold the squares themselves, here 4."""
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
    """Where it is one: LaProp's averages what was divided by the root already."""
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


class Adam8bit(optim.Adam):
    """Keeps the second moment as bytes and a scale, as the quantized ones do."""

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
    """It stands still, far below the square, which is 1."""
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
