"""The criteria: known answers, and every known way to fool them."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.streams import Stream
from warmopt import Adaptive, shapes
from warmopt._measure.statistics import statistics
from warmopt.criteria import (
    CRITERIA,
    Criterion,
    Drift,
    EffectiveSampleSize,
    InverseRootVariance,
    NormRatio,
    Reading,
    Steady,
    UpdateRMS,
)

RAW = NormRatio(bias_correction=False)
TWO_SIDED = NormRatio(orientation="two_sided")
NAN = math.nan
EVERY = [
    *(criterion() for criterion in CRITERIA.values()),
    RAW,
    TWO_SIDED,
    NormRatio(orientation="new_over_old"),
    NormRatio(orientation="new_over_old", bias_correction=False),
    Drift(by="tensor", quantile=0.5),
]


# Three quarters of the elements are in the first tensor.
RESTS = {"inverse_root_variance": 0.01, "drifts": (0.1, 0.2), "sizes": (3, 1)}


def reading(**known: Any) -> Reading:
    """Update 500 with beta2 = 0.99, sampled every 25; what is not given is nan."""
    plain = Reading(500, 100, 5, 5, 0.9, 0.99, NAN, NAN, NAN, (), ())
    return plain._replace(**known)


def settles(stream: Stream, criterion: Criterion) -> int | None:
    """The first update at which it settles; reads every 5 updates, 5 per window."""
    return next((r.update for r in stream.all() if criterion(r)), None)


@pytest.mark.parametrize(
    ("criterion", "known", "settled"),
    [
        (InverseRootVariance(), {"inverse_root_variance": 0.02}, True),
        (InverseRootVariance(), {"inverse_root_variance": 0.0201}, False),
        (InverseRootVariance(0.05), {"inverse_root_variance": 0.04}, True),
        (Steady(), {**RESTS, "inverse_root_variance": 0.02}, True),
        (Steady(), {**RESTS, "inverse_root_variance": 0.0201}, False),
        (Steady(), {**RESTS, "drifts": (-0.2, 9.0)}, True),
        (Steady(), {**RESTS, "drifts": (-0.201, 0.0)}, False),
        (Steady(most=0.3), {**RESTS, "drifts": (-0.3, 9.0)}, True),
        (Steady(quantile=0.8), {**RESTS, "drifts": (0.0, 9.0)}, False),
        (Steady(), {**RESTS, "drifts": (NAN, 0.0)}, True),
        (Steady(), {**RESTS, "drifts": (NAN, NAN)}, False),
        (Steady(), {**RESTS, "drifts": (-math.inf, math.inf)}, False),
        (Drift(), {"drifts": (0.24, -0.24), "sizes": (1, 1)}, True),
        (Drift(), {"drifts": (0.26,), "sizes": (1,)}, False),
        (Drift(), {"drifts": (-0.26,), "sizes": (1,)}, False),
        (Drift(), {"drifts": (math.inf,), "sizes": (1,)}, False),
        (Drift(), {"drifts": (0.13,), "sizes": (1,), "span": 50}, False),
        (Drift(), {"drifts": (0.12,), "sizes": (1,), "span": 50}, True),
        (Drift(), {"drifts": (0.0,), "sizes": (1,), "update": 199}, False),
        (Drift(), {"drifts": (0.0,), "sizes": (1,), "samples": 4}, False),
        (Drift(), {"drifts": (0.0,), "sizes": (1,), "beta2": None}, False),
        (Drift(), {"drifts": (0.0, 1.0), "sizes": (3, 1)}, True),
        (Drift(), {"drifts": (0.0, 1.0), "sizes": (2, 1)}, False),
        (Drift(by="tensor"), {"drifts": (0.0, 1.0), "sizes": (3, 1)}, False),
        (Drift(), {"drifts": (0.0, NAN), "sizes": (1, 99)}, True),
        (Drift(), {"drifts": (), "sizes": ()}, False),
        # Exactly at the limit, which here is a sum of powers of two.
        (Drift(), {"drifts": (0.2,), "sizes": (1,), "span": 2, "beta2": 0.5}, True),
        (Drift(), {"drifts": (0.25,), "sizes": (1,), "span": 2, "beta2": 0.5}, False),
        (Drift(quantile=1.0), {"drifts": (0.0,), "sizes": (1,)}, True),
        (NormRatio(), {"norm_ratio": 0.96}, True),
        (NormRatio(), {"norm_ratio": 0.95}, False),
        (NormRatio(), {"norm_ratio": 9.0}, True),
        (NormRatio(), {"norm_ratio": math.inf}, False),
        (NormRatio(), {"norm_ratio": 1.0, "samples": 4}, False),
        (NormRatio(0.9), {"norm_ratio": 0.95}, True),
        (NormRatio(orientation="new_over_old"), {"norm_ratio": 1.04}, True),
        (NormRatio(orientation="new_over_old"), {"norm_ratio": 1.05}, False),
        (NormRatio(orientation="new_over_old"), {"norm_ratio": 0.1}, True),
        (NormRatio(orientation="new_over_old"), {"norm_ratio": 0.0}, False),
        (NormRatio(0.5, "new_over_old"), {"norm_ratio": 2.0}, True),
        (TWO_SIDED, {"norm_ratio": 0.97}, True),
        (TWO_SIDED, {"norm_ratio": 0.95}, False),
        (TWO_SIDED, {"norm_ratio": 1.05}, False),
        (RAW, {"norm_ratio": 1.0, "update": 378}, True),
        (RAW, {"norm_ratio": 1.0, "update": 377}, False),
        (RAW, {"norm_ratio": 1.0, "beta2": None}, False),
        (RAW, {"norm_ratio": 1.0, "beta2": 1.0}, False),
        (EffectiveSampleSize(), {"update": 5}, True),
        (EffectiveSampleSize(), {"update": 4}, False),
        (EffectiveSampleSize(), {"beta2": 0.6}, False),
        (EffectiveSampleSize(), {"beta2": 0.0}, False),
        (EffectiveSampleSize(), {"beta2": None}, False),
        (UpdateRMS(), {"update_rms": 0.344}, True),
        (UpdateRMS(), {"update_rms": 0.345}, False),
        (UpdateRMS(), {"update_rms": 1.5, "beta1": 0.0}, True),
        (UpdateRMS(), {"update_rms": 0.344, "beta1": None}, False),
    ],
)
def test_what_settles(
    criterion: Criterion, known: dict[str, Any], settled: bool
) -> None:
    assert criterion(reading(**known)) is settled


@pytest.mark.parametrize("criterion", EVERY, ids=repr)
def test_what_is_not_known_never_settles(criterion: Criterion) -> None:
    """Only the criterion that looks at nothing may settle."""
    blind = isinstance(criterion, EffectiveSampleSize)
    assert criterion(reading(drifts=(NAN,), sizes=(1,))) is blind


def test_they_are_values() -> None:
    assert Drift(tol=0.2) == Drift(0.2) != Drift()
    assert len({Drift(), Drift(), NormRatio()}) == 2
    assert repr(InverseRootVariance()) == "InverseRootVariance(threshold=0.02)"
    with pytest.raises(FrozenInstanceError):
        Drift().tol = 1.0  # type: ignore[misc]
    assert next(iter(CRITERIA)) == "steady"
    assert Adaptive().criterion == Steady()


POSITIVE = "must be a finite number > 0, got"


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("inverse_root_variance", {"threshold": 0}, ValueError, f"{POSITIVE} 0"),
        ("inverse_root_variance", {"threshold": NAN}, ValueError, f"{POSITIVE} nan"),
        ("inverse_root_variance", {"threshold": "x"}, TypeError, f"{POSITIVE} 'x'"),
        ("inverse_root_variance", {"threshold": True}, TypeError, f"{POSITIVE} True"),
        ("steady", {"threshold": 0}, ValueError, f"{POSITIVE} 0"),
        ("steady", {"most": -0.2}, ValueError, f"{POSITIVE} -0.2"),
        ("steady", {"quantile": 0}, ValueError, "must be in (0, 1], got 0"),
        ("drift", {"tol": math.inf}, ValueError, f"{POSITIVE} inf"),
        ("drift", {"quantile": 1.1}, ValueError, "must be in (0, 1], got 1.1"),
        (
            "drift",
            {"by": "size"},
            ValueError,
            "must be one of numel, tensor, got 'size'",
        ),
        ("norm_ratio", {"threshold": 1.2}, ValueError, "must be in (0, 1], got 1.2"),
        (
            "norm_ratio",
            {"orientation": "up"},
            ValueError,
            "must be one of old_over_new, new_over_old, two_sided, got 'up'",
        ),
        (
            "norm_ratio",
            {"bias_correction": "no"},
            ValueError,
            "must be one of True, False, got 'no'",
        ),
        ("effective_sample_size", {"threshold": -1}, ValueError, f"{POSITIVE} -1"),
        ("update_rms", {"ratio": None}, TypeError, f"{POSITIVE} None"),
    ],
)
def test_wrong_constants(
    name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        CRITERIA[name](**options)  # type: ignore[call-arg]
    assert str(caught.value) == f"{next(iter(options))} {message}."


def test_effective_sample_size_is_radams() -> None:
    """It settles where the rectified shape begins; 31 samples bring it below 0.02."""
    for beta2 in (0.9, 0.95, 0.999, 0.9999):
        first = next(
            t
            for t in range(1, 99)
            if EffectiveSampleSize()(reading(update=t, beta2=beta2))
        )
        assert first == shapes._rectifiable(2 / (1 - beta2)) == 5
    variance = [rho / (2 * (rho - 2) * (rho - 4)) for rho in range(30, 32)]
    assert variance[0] > 0.02 > variance[1]


@pytest.mark.parametrize("power", [-20, -3, 1, 16])
def test_scaled_gradients_are_decided_alike(power: int) -> None:
    """At the same update for any scale of the loss; both answers occur each time."""
    torch.manual_seed(0)
    change = 1 + 3 * torch.linspace(-1, 1, 500)[:, None, None] ** 2
    gradients = (0.2 + torch.randn(500, 12, 32)) * change
    plain, scaled = (Stream(g, 0.98, 0.9) for g in (gradients, gradients * 2.0**power))
    decisions = [[c(r) for c in EVERY] for r in plain.all()]
    assert decisions == [[c(r) for c in EVERY] for r in scaled.all()]
    assert [r[4:] for r in plain.all()][4:] == [r[4:] for r in scaled.all()][4:]
    blind = CRITERIA["effective_sample_size"]
    for criterion, decided in zip(EVERY, zip(*decisions, strict=True), strict=True):
        assert {*decided} == {True, False} or isinstance(criterion, blind)


# --- known answers


@pytest.mark.parametrize(
    ("beta2", "tau", "expected"), [(0.99, 100, 378), (0.999, 1000, 3783)]
)
def test_the_raw_ratio_measures_beta2(beta2: float, tau: int, expected: int) -> None:
    """It waits 3.78 tau on gradients that never change; corrected, it does not wait."""
    stream = Stream(torch.logspace(-3, 3, 8).expand(4 * tau, 1, 8), beta2)
    wait = range(tau + 1, 4 * tau)
    first = next(t for t in wait if RAW(stream.across(t, tau)))
    assert abs(first - expected) <= 2
    assert TWO_SIDED(stream.across(tau + 1, tau))


def test_stationary_gradients_settle() -> None:
    """All that should settle on Gaussian noise do, as soon as the noise allows it."""
    torch.manual_seed(0)
    stream = Stream(torch.randn(400, 20, 64), 0.99, 0.9)
    assert settles(stream, InverseRootVariance()) == 25
    assert settles(stream, Drift()) == 40
    assert settles(stream, TWO_SIDED) == 25
    assert settles(stream, UpdateRMS()) == 10


def burst(factor: float, length: int) -> Stream:
    """The squares are `factor` times as large for the first `length` updates."""
    gradients = torch.ones(8000, 1, 1, dtype=torch.float64)
    gradients[:length] *= math.sqrt(factor)
    return Stream(gradients, 0.999)


@pytest.mark.parametrize(
    ("factor", "length", "v", "raw", "two_sided"),
    [
        (100, 200, (100.0, 13.75, 2.15), 1081, 6785),
        (100, 50, (49.26, 3.95, 1.27), 1024, 5337),
        (10, 10, (1.86, 1.05, 1.00), 3688, 1947),
    ],
)
def test_memory_of_a_burst(
    factor: float, length: int, v: tuple[float, ...], raw: int, two_sided: int
) -> None:
    """The raw one-sided ratio does not wait until a large burst is forgotten."""
    stream = burst(factor, length)
    assert [float(stream.v[t - 1]) for t in (100, 1000, 3000)] == pytest.approx(
        v, abs=0.006
    )
    wait = range(1001, raw + 1)
    assert next(t for t in wait if RAW(stream.across(t, 1000))) == raw
    assert not TWO_SIDED(stream.across(two_sided - 1, 1000))
    assert all(TWO_SIDED(stream.across(t, 1000)) for t in range(two_sided, 8000, 50))


@pytest.mark.parametrize(
    ("decay", "drift", "settled"),
    [
        (50, -1.0, False),  # all memory: v cannot fall faster
        (200, -0.5, False),
        (390, -100 / 390, False),
        (410, -100 / 410, True),
        (2000, -0.05, True),
    ],
)
def test_decaying_gradients(decay: float, drift: float, settled: bool) -> None:
    """Squares that fall by 1 / e in `decay` updates; tau is 100, tau / tol is 400.

    The one-sided ratio does not notice, raw or corrected.
    """
    half = torch.arange(2000, dtype=torch.float64) / (2 * decay)
    seen = Stream(torch.exp(-half)[:, None, None], 0.99).across(2000, 100)
    assert seen.drifts == pytest.approx((drift,), abs=0.006)
    assert Drift()(seen) is settled
    assert NormRatio()(seen)
    assert RAW(seen)


# --- what fools them


def test_a_ratio_is_fooled_by_its_blind_side() -> None:
    """Each orientation settles at once while v moves to its blind side."""
    torch.manual_seed(0)
    noise, growth = torch.randn(200, 4, 64), torch.linspace(0, 3, 200).exp()
    up, down = (
        Stream(noise * g[:, None, None], 0.99) for g in (growth, growth.flip(0))
    )
    assert settles(down, NormRatio()) == 25
    assert settles(up, NormRatio(orientation="new_over_old")) == 25
    assert settles(up, TWO_SIDED) is settles(down, TWO_SIDED) is None
    assert settles(up, Drift()) is settles(down, Drift()) is None


def test_clipping_pins_the_norm_of_v_but_not_each_tensors() -> None:
    """Gradients are clipped by the global norm, while those of one tensor vanish."""
    torch.manual_seed(0)
    gradients = torch.randn(500, 2, 64)
    gradients[:, 1] *= 5 * torch.exp(-torch.arange(500) / 40)[:, None]
    gradients /= gradients.flatten(1).norm(dim=1)[:, None, None]
    stream = Stream(gradients, 0.99)
    seen = [stream.across(t, 100) for t in range(101, 500)]
    assert [r.norm_ratio for r in seen] == pytest.approx([1.0] * len(seen), rel=1e-5)
    assert TWO_SIDED(seen[0])
    assert abs(next(r.update for r in seen if RAW(r)) - 378) <= 2
    assert not any(Drift()(r) for r in seen)
    assert seen[99].drifts == pytest.approx((0.62, -1.20), abs=0.01)


def trained(lr: float) -> tuple[Stream, float]:
    """The gradients of 400 updates of Adam on a small regression, and the loss."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 8)
    targets = torch.tanh(inputs @ torch.randn(8, 3)) @ torch.randn(3, 1)
    net = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    )
    adam = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    gradients = torch.zeros(400, 4, 128)
    for update in gradients:
        batch = torch.randint(512, (128,))
        adam.zero_grad()
        loss = (net(inputs[batch]) - targets[batch]).square().mean()
        loss.backward()
        for row, p in zip(update, net.parameters(), strict=True):
            assert p.grad is not None
            row[: p.numel()] = p.grad.flatten()
        adam.step()
    return Stream(gradients, 0.99, 0.9), loss.item()


def test_stagnation_fools_all_but_the_update_rms() -> None:
    """At a tiny LR nothing is learned, and all second moments are at rest."""
    stalled, loss_stalled = trained(lr=1e-7)
    healthy, loss_healthy = trained(lr=1e-2)
    assert loss_stalled > 20 * loss_healthy
    guard = UpdateRMS()
    for criterion in (InverseRootVariance(), Drift(), TWO_SIDED):
        first = settles(stalled, criterion)
        assert first is not None
        assert first <= 100
        guarded = lambda r, fooled=criterion: fooled(r) and guard(r)  # noqa: E731
        assert settles(stalled, guarded) is None
    assert min(r.update_rms for r in stalled.all()) > 3 * math.sqrt(0.1 / 1.9)
    first = settles(healthy, guard)
    assert first is not None
    assert first <= 50


def test_inverse_root_variance_is_partly_a_clock() -> None:
    """Gradients that grow 20-fold settle nearly as soon as those at rest."""
    torch.manual_seed(0)
    noise = torch.randn(400, 20, 64)
    growing = Stream(noise * torch.linspace(1, 20, 400)[:, None, None], 0.999)
    assert settles(Stream(noise, 0.999), InverseRootVariance()) == 25
    assert settles(growing, InverseRootVariance()) == 35
    assert settles(growing, Drift()) is None


@pytest.mark.parametrize("beta2", [0.95, 0.99, 0.999])
def test_steady_growth_does_not_fool_the_default(beta2: float) -> None:
    """A v that grows by 2 % an update is not settled; one at rest is, as before."""
    torch.manual_seed(0)
    noise = torch.randn(400, 20, 64)
    rests, grows = (
        Stream(noise * rate ** torch.arange(400.0)[:, None, None], beta2)
        for rate in (1.0, 1.01)
    )
    first = settles(rests, InverseRootVariance())
    assert first == settles(rests, Steady())
    assert settles(grows, InverseRootVariance()) == first
    assert settles(grows, Steady()) is None


@pytest.mark.parametrize(
    ("beta2", "threshold", "expected"),
    [(0.99, 0.02, 40), (0.95, 0.02, None), (0.95, 0.05, 40), (0.9, 0.05, None)],
)
def test_inverse_root_variance_is_held_up_by_noise(
    beta2: float, threshold: float, expected: int | None
) -> None:
    """The gradients are stationary, but nine in ten are 0."""
    torch.manual_seed(0)
    rare = torch.randn(400, 20, 64) * (torch.rand(400, 20, 64) < 0.1)
    first = settles(Stream(rare, beta2), InverseRootVariance(threshold))
    assert first == expected


def test_effective_sample_size_looks_at_nothing() -> None:
    torch.manual_seed(0)
    wild = torch.randn(50, 1, 64) * 10.0 ** torch.randint(-6, 6, (50, 1, 1))
    assert settles(Stream(wild, 0.999), EffectiveSampleSize()) == 5


def test_update_rms_is_fooled_by_noise() -> None:
    """Gradients with mean 0 pass at once, while their squares grow 400-fold."""
    torch.manual_seed(0)
    growth = torch.linspace(1, 20, 400)[:, None, None]
    noise = torch.randn(400, 20, 64) * growth
    assert settles(Stream(noise, 0.99, 0.9), UpdateRMS()) <= 25
    assert settles(Stream(noise, 0.99), Drift()) is None
    without_momentum = [
        UpdateRMS()(r) for r in Stream(growth + 0 * noise, 0.99, 0.0).all()
    ]
    assert all(without_momentum)


def second_moments(dtype: torch.dtype) -> Tensor:
    """Those of Adam, corrected; the gradients grow by 30 % in the last 100 updates."""
    p = torch.nn.Parameter(torch.zeros(8, dtype=dtype))
    adam = torch.optim.Adam([p], betas=(0.9, 0.999))
    samples = []
    for update in range(1, 2101):
        p.grad = torch.full_like(p, 1.0 if update <= 2000 else 1.3)
        adam.step()
        if update > 2075 and update % 5 == 0:
            v = adam.state[p]["exp_avg_sq"].float()
            samples.append(v / (1 - 0.999**update))
    return torch.stack(samples)[:, None]


def test_a_second_moment_too_coarse_to_move_fools_them() -> None:
    """In bfloat16 an update of 1 / 1000 is rounded away."""
    drifts, settled = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        _, _, _, drift = statistics(second_moments(dtype), window=5).tolist()
        seen = Reading(2100, 20, 5, 5, 0.9, 0.999, NAN, NAN, NAN, (drift,), (8,))
        drifts[dtype], settled[dtype] = drift, Drift()(seen)
    assert settled == {torch.float32: False, torch.bfloat16: True}
    assert drifts[torch.bfloat16] < 0 < drifts[torch.float32]
