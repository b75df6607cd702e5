"""What is read from real optimizers: which coordinates and dtype, at what cost."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support.features import Adafactor, needs_adafactor
from tests.support.operators import Operators
from tests.support.optimizers import ROWS
from warmopt import Warmed
from warmopt._measure.coordinates import coordinates, sampler
from warmopt._measure.window import Window
from warmopt.adaptive import Adaptive
from warmopt.criteria import Drift
from warmopt.trace import Trace

CPU = torch.device("cpu")
ADAM = ROWS["adam-loop"]


def sample(values: Tensor, count: int = 64) -> list[float]:
    return sampler([values], count, CPU)()[0].tolist()


# --- sampling -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (7, 9), (64,), (0,), (3, 0)], ids=str)
def test_a_small_tensor_is_taken_whole(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape)
    filler = [0.0] * (64 - values.numel())
    assert sample(values) == values.flatten().tolist() + filler


@pytest.mark.parametrize("size", [65, 100, 1000, 999_983])
@pytest.mark.parametrize("count", [64, 48, 32])
def test_of_a_large_one_some_chunks_from_the_first_to_the_last(
    size: int, count: int
) -> None:
    places = sample(torch.arange(size, dtype=torch.float64), count)
    assert len(places) == count
    chunks = [places[n : n + 16] for n in range(0, count, 16)]
    for chunk in chunks:
        assert chunk == [chunk[0] + n for n in range(16)]
    firsts = [chunk[0] for chunk in chunks]
    gaps = [b - a for a, b in itertools.pairwise(firsts)]
    assert (firsts[0], places[-1]) == (0, size - 1)
    assert max(gaps) - min(gaps) <= 1


def test_a_single_chunk_is_from_the_middle() -> None:
    assert sample(torch.arange(100.0), 16) == [42.0 + n for n in range(16)]


@pytest.mark.parametrize(
    ("tensors", "each"), [(1, 64), (64, 64), (65, 48), (128, 32), (129, 16), (9999, 16)]
)
def test_of_many_tensors_it_takes_fewer_coordinates_each(
    tensors: int, each: int
) -> None:
    assert coordinates(tensors) == each
    assert each == 16 or tensors * each <= 4096


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_it_is_a_view_that_sees_later_values(dtype: torch.dtype) -> None:
    values = torch.rand(30, 30, dtype=dtype)
    later = sampler([values], 64, CPU)
    values.fill_(2.0)
    taken = later()
    assert taken.dtype == torch.float32
    assert taken.tolist() == [[2.0] * 64]


def test_channels_last_and_transposed_are_read_in_their_memory() -> None:
    whole = torch.rand(4, 3, 5, 7)
    for values in (whole.to(memory_format=torch.channels_last), whole.mT):
        flat = values.as_strided((420,), (1,))
        assert sample(values) == sample(flat)
        assert set(sample(values)) <= set(whole.flatten().tolist())


def test_complex_is_read_as_pairs() -> None:
    values = torch.rand(50, dtype=torch.complex64)
    assert sample(values) == sample(torch.view_as_real(values))


# --- readings -------------------------------------------------------------------------


def readings_of(
    make: Any,
    shapes: list[tuple[int, ...]],
    *,
    updates: int = 12,
    grads: Any = None,
    dtype: torch.dtype = torch.float32,
    second_moment: Any = None,
    watch: Any = (),
) -> tuple[Warmed, list[Parameter], Trace]:
    params = [Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]
    trace = Trace()
    mode = Adaptive(every=2, window=2, second_moment=second_moment)
    warmed = Warmed(make(params), steps=50, mode=mode, trace=trace, watch=watch)
    for update in range(1, updates + 1):
        for number, param in enumerate(params):
            param.grad = torch.randn(param.shape, dtype=dtype)
            if grads is not None:
                param.grad = grads(number, update, param.grad)
        warmed.step()
    return warmed, params, trace


def adam(params: Any, **options: Any) -> Optimizer:
    return torch.optim.Adam(params, lr=1e-3, **options)


def test_a_reading_is_what_the_state_says() -> None:
    """From the whole v of small tensors, corrected, in float64."""
    params, trace = [Parameter(torch.randn(5, 6)), Parameter(torch.randn(3))], Trace()
    mode = Adaptive(every=3, window=2)
    warmed = Warmed(adam(params), steps=50, mode=mode, trace=trace)
    seen = []
    for update in range(1, 10):
        for param in params:
            param.grad = torch.randn_like(param)
        warmed.step()
        if update in (3, 6):
            states = [warmed.state[param] for param in params]
            v = [s["exp_avg_sq"].double() / (1 - 0.999**update) for s in states]
            m = [s["exp_avg"].double() / (1 - 0.9**update) for s in states]
            seen.append((v, m))
    (old, _), (new, m) = seen
    reading = trace.readings()[1]
    assert (reading.update, reading.span, reading.samples) == (6, 3, 2)
    assert reading.sizes == (30, 3)
    assert (reading.beta1, reading.beta2) == (0.9, 0.999)
    drifts = [math.log(b.sum() / a.sum()) for a, b in zip(old, new, strict=True)]
    assert reading.drifts == pytest.approx(drifts, rel=1e-4)
    flat = [torch.cat([each.flatten() for each in v]) for v in (old, new, m)]
    assert reading.norm_ratio == pytest.approx(float(flat[0].sum() / flat[1].sum()))
    rms = (flat[2] ** 2 / flat[1]).mean().sqrt()
    assert reading.update_rms == pytest.approx(float(rms), rel=1e-5)
    roots = torch.stack(flat[:2]).rsqrt()
    variance = roots.var(0, correction=0) / roots.mean(0) ** 2
    assert reading.inverse_root_variance == pytest.approx(
        float(variance.median()), rel=1e-3
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam-loop", {}),
        ("adam-foreach", {}),
        ("adam-fused", {}),
        ("pytorch_optimizer.AdaBelief", {}),
        ("torch_optimizer.Yogi", {}),
        ("pytorch_optimizer.Lamb", {}),
    ],
)
def test_the_bias_is_that_of_the_parameters_own_age(
    name: str, options: dict[str, Any]
) -> None:
    """Gradients of size 1: their mean square is 1 at any age, so nothing ever moves.

    The second parameter joins at update 5. Some of these optimizers count in a tensor,
    some in a number, some in the group (then a parameter has no age of its own).
    """
    own_age = name not in ("pytorch_optimizer.AdaBelief", "pytorch_optimizer.Lamb")
    row = ROWS[name]
    params, trace = [Parameter(torch.rand(4)), Parameter(torch.rand(4))], Trace()
    warmed = Warmed(
        row.make(params, lr=1e-3, **row.options),
        steps=90,
        mode=Adaptive(every=2, window=2),
        trace=trace,
    )
    for update in range(1, 40):
        for param in params[: 1 if update < 5 else 2]:
            param.grad = torch.tensor([1.0, -1.0, 1.0, -1.0])
        warmed.step()
    known = [0, 1] if own_age else [0]
    if name == "pytorch_optimizer.AdaBelief" or name == "torch_optimizer.Yogi":
        tolerance = 0.3  # averages (g - m)^2, or v does not begin at 0
    else:
        tolerance = 1e-5
    for reading in trace.readings()[4:]:
        drifts = [reading.drifts[n] for n in known]
        assert drifts == pytest.approx([0.0] * len(known), abs=tolerance)


def test_an_average_that_has_not_begun_is_a_sample_of_zeros() -> None:
    """Not of nan, which means no sample: a resumed window would be shorter."""
    soap = ROWS["pytorch_optimizer.SOAP"]
    params, trace = [Parameter(torch.rand(4, 3))], Trace()
    mode = Adaptive(every=1, window=2)
    warmed = Warmed(soap.build(params), steps=50, mode=mode, trace=trace)
    soap.step(warmed, params, 1)
    ring = warmed.param_groups[0]["warmup_ring"].view(2, 64)
    assert ring.isnan().all(1).tolist() == [False, True]


def test_sparse_gradients() -> None:
    def sparse(number: int, update: int, grad: Tensor) -> Tensor:
        kept = torch.zeros_like(grad)
        kept[:2] = grad[:2]
        return kept.to_sparse(1)

    _, _, trace = readings_of(
        lambda params: torch.optim.SparseAdam(params, lr=1e-3), [(9, 4)], grads=sparse
    )
    last = trace.readings()[-1]
    assert last.inverse_root_variance > 0.0  # of the rows that had gradients
    assert math.isfinite(last.drifts[0])


def test_complex_parameters() -> None:
    _, _, trace = readings_of(adam, [(9, 4)], dtype=torch.complex64)
    assert trace.readings()[-1].inverse_root_variance > 0.0


def test_no_elements_and_channels_last() -> None:
    def make(params: Any) -> Optimizer:
        params[1].data = params[1].data.to(memory_format=torch.channels_last)
        return adam(params)

    _, _, trace = readings_of(make, [(0, 3), (4, 3, 5, 5), ()])
    last = trace.readings()[-1]
    assert last.sizes == (0, 300, 1)
    assert [math.isnan(drift) for drift in last.drifts] == [True, False, False]


@needs_adafactor
def test_factored() -> None:
    _, _, trace = readings_of(
        lambda params: Adafactor(params, lr=1e-3), [(40, 30), (8,)]
    )
    last = trace.readings()[-1]
    assert last.sizes == (1200, 8)
    assert last.beta2 is None
    assert last.inverse_root_variance > 0.0


@pytest.mark.parametrize("beta2", [0.999, 0.99])
def test_a_second_moment_that_stalls_in_bfloat16_does_not_settle(beta2: float) -> None:
    """It warns once, not at every reading. Where the values can move, they are read."""

    def make(params: Any) -> Optimizer:
        return adam(params, betas=(0.9, beta2))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warmed, _, trace = readings_of(
            make, [(9, 4)], dtype=torch.bfloat16, watch=[Drift()]
        )
    stalls = beta2 == 0.999
    messages = [str(each.message) for each in caught]
    assert len(messages) == stalls
    assert all("too coarse for beta2=0.999" in message for message in messages)
    values = [reading.inverse_root_variance for reading in trace.readings()[1:]]
    assert all(math.isnan(value) == stalls for value in values)
    assert ("watching 100%" in repr(warmed)) == (not stalls)
    if stalls:
        assert not any(row["settled"] for row in trace)


@pytest.mark.parametrize(
    "override", ["exp_avg_sq", lambda param, state, group: state.get("exp_avg_sq")]
)
def test_an_override_finds_the_same(override: Any) -> None:
    torch.manual_seed(3)
    _, _, expected = readings_of(adam, [(9, 40)])
    torch.manual_seed(3)
    _, _, trace = readings_of(adam, [(9, 40)], second_moment=override)
    assert str(trace.rows) == str(expected.rows)


def test_an_override_that_finds_nothing_is_refused_after_the_first_step() -> None:
    with pytest.raises(ValueError, match=r"second_moment='wrong'.*exp_avg_sq"):
        readings_of(adam, [(9, 4)], second_moment="wrong")


def test_replaced_tensors_are_followed() -> None:
    """By a loaded state, and by a tensor that is put there by hand."""
    warmed, params, trace = readings_of(adam, [(9, 4)], updates=7)
    state = warmed.wrapped.state[params[0]]
    state["exp_avg_sq"] = torch.full_like(params[0], 4.0)
    for _ in range(4):
        state["exp_avg_sq"].fill_(4.0)
        params[0].grad = torch.zeros_like(params[0])
        warmed.step()
    drift = trace.readings()[-1].drifts[0]
    assert drift > 3.0  # from about 1 to 4 / (1 - 0.999^8)


# --- what it costs --------------------------------------------------------------------


# Gather 1; correct 6 (a GPU sees only the last); keep 1; judge 9. In full: one more to
# gather and one more to correct, and 13 to judge.
@pytest.mark.parametrize(("momentum", "most"), [(False, 16), (True, 33)])
def test_a_reading_is_few_small_operators(momentum: bool, most: int) -> None:
    """For any number and size of tensors: only samples are ever created."""
    params = [Parameter(torch.zeros(300, 1000)) for _ in range(20)]
    optimizer = adam(params, foreach=True)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    probe = Window(optimizer, optimizer.param_groups, 1, 5, in_full=momentum)
    probe.after(1)
    for update in range(2, 9):
        with Operators() as seen:
            probe.after(update)
    print(f"{len(seen.names)} operators: {' '.join(seen.names)}")
    assert len(seen.names) <= most
    assert seen.host_reads == 0
    # The ring has 5 samples; a tensor has 300 000 elements.
    assert seen.largest <= 5 * 20 * 64


def test_between_readings_nothing_is_computed() -> None:
    optimizer = adam(params := [Parameter(torch.zeros(9))])
    params[0].grad = torch.ones(9)
    optimizer.step()
    probe = Window(optimizer, optimizer.param_groups, 5, 5)
    probe.after(5)
    with Operators() as seen:
        for update in range(6, 10):
            assert probe.after(update) is None
    assert seen.names == []
