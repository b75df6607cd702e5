"""The statistics of a window: compared with float64 and theory, and what they cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.operators import Operators
from tests.support.streams import Stream
from warmopt._measure.statistics import median_variance, statistics


def window(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise of very different sizes; a zero tensor, a padded one, a zero reading."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-12, 4, 7)[:, None]
    ring = sizes * torch.empty(5, 7, 64).exponential_(generator=generator)
    momentum = torch.randn(7, 64, generator=generator) * sizes.sqrt()
    ring[:, 3] = 0.0
    ring[:, 5, 30:] = 0.0
    ring[2, 4, 10] = 0.0
    return ring, momentum


def test_they_are_what_float64_gives() -> None:
    """Each formula in its simplest form, one coordinate after the other."""
    ring, momentum = window()
    spreads, squares, old, new = [], [], [0.0] * 7, [0.0] * 7
    for tensor in range(7):
        for column in range(64):
            v = ring[:, tensor, column].double()
            if (v == 0).any():
                continue
            inverse_root = 1 / v.sqrt()
            mean = inverse_root.mean()
            spreads.append(float((inverse_root - mean).square().mean() / mean**2))
            squares.append(float(momentum[tensor, column].double() ** 2 / v[-1]))
            old[tensor] += float(v[0])
            new[tensor] += float(v[-1])
    assert len(spreads) == 6 * 64 - 34 - 1
    expected = [
        sorted(spreads)[(len(spreads) - 1) // 2],
        sum(old) / sum(new),
        math.sqrt(sum(squares) / len(squares)),
        *(math.log(b / a) if a else math.nan for a, b in zip(old, new, strict=True)),
    ]
    assert statistics(ring, momentum, window=5).tolist() == pytest.approx(
        expected, rel=1e-5, abs=1e-6, nan_ok=True
    )


def test_the_first_number_can_be_had_alone() -> None:
    ring, momentum = window()
    assert median_variance(ring) == statistics(ring, momentum, window=5)[0]


def test_two_samples_can_be_a_window() -> None:
    ring, _ = window()
    assert not statistics(ring[:2], window=2)[0].isnan()


def test_rows_and_columns_of_zeros_change_nothing() -> None:
    ring, momentum = window()
    padded = torch.zeros(5, 9, 80)
    padded[:, :7, :64] = ring
    padded_momentum = torch.full((9, 80), 3.0)
    padded_momentum[:7, :64] = momentum
    plain = statistics(ring, momentum, window=5).tolist()
    assert statistics(padded, padded_momentum, window=5).tolist() == pytest.approx(
        [*plain, math.nan, math.nan], rel=1e-6, nan_ok=True
    )


@pytest.mark.parametrize("power", [-20, -3, 1, 16])
def test_scaled_gradients_give_the_same_bits(power: int) -> None:
    ring, momentum = window()
    scaled = statistics(ring * 4.0**power, momentum * 2.0**power, window=5)
    torch.testing.assert_close(
        scaled, statistics(ring, momentum, window=5), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize(
    ("samples", "momentum", "nans"),
    [
        (1, True, {0, 1, 3, 4, 5, 6, 7, 8, 9}),
        (1, False, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}),
        (2, True, {0, 6}),
        (4, False, {0, 2, 6}),
        (5, True, {6}),
        (5, False, {2, 6}),
    ],
)
def test_what_is_not_known_is_nan(samples: int, momentum: bool, nans: set[int]) -> None:
    """Tensor 3, value 6, has no gradients."""
    ring, m = window()
    values = statistics(ring[:samples], m if momentum else None, window=5)
    assert {i for i, value in enumerate(values.tolist()) if math.isnan(value)} == nans


def test_nothing_at_all_is_nan() -> None:
    nothing = statistics(torch.zeros(5, 2, 3), torch.zeros(2, 3), window=5)
    assert nothing.isnan().all()


@pytest.mark.parametrize(("momentum", "kernels"), [(False, 16), (True, 22)])
def test_it_costs_few_small_kernels(momentum: bool, kernels: int) -> None:
    """For any number of tensors, and with no more memory than the window itself."""
    ring, m = window()
    with Operators() as seen:
        statistics(ring, m if momentum else None, window=5)
    assert (len(seen.names), seen.largest) == (kernels, ring.numel())


def test_it_never_reads_to_the_host() -> None:
    """Tensors without data would raise an error as soon as a number is read."""
    with FakeTensorMode():
        ring, momentum = torch.rand(5, 3, 8), torch.rand(3, 8)
        assert statistics(ring, momentum, window=5).shape == (6,)
        with pytest.raises(Exception, match="_local_scalar_dense"):
            ring.sum().item()


def sparse(*size: int) -> Tensor:
    return torch.randn(size) * (torch.rand(size) < 0.1)


def student(*size: int) -> Tensor:
    """With five degrees of freedom."""
    return torch.randn(size) / sum(torch.randn(size) ** 2 for _ in range(5)).sqrt()


# The sd of the drift over tau = 1 / (1 - beta2) updates, at update 2, 3 and 5 tau, for
# one coordinate whose squares have relative variance 1. The limit is sqrt(2 (1 -
# beta2^tau) (1 - beta2) / (1 + beta2)).
SPREAD = {
    0.95: (0.243, 0.199, 0.183),
    0.99: (0.108, 0.088, 0.081),
    0.999: (0.034, 0.0277, 0.0255),
}


@pytest.mark.parametrize("beta2", SPREAD)
@pytest.mark.parametrize(
    ("draw", "relative_variance", "share"),
    [
        (torch.randn, 2.0, 1.0),
        (lambda *size: torch.empty(size).exponential_(), 5.0, 1.0),  # Laplace
        (sparse, 29.0, 1.0),
        # The tail is so heavy that the log of the mean spreads less than in the theory,
        # which is linear: 8 % less here, 4 % with ten times as many coordinates.
        (student, 8.0, 0.92),
    ],
    ids=["gauss", "laplace", "sparse", "t5"],
)
def test_drift_of_stationary_gradients(
    draw: Any, relative_variance: float, share: float, beta2: float
) -> None:
    """Mean 0, and the spread from theory: a tolerance must be larger than this.

    The mean is only 0 once every coordinate has had a gradient. Before that, the sparse
    ones that count are those that began with a large v.
    """
    torch.manual_seed(1)
    tau = round(1 / (1 - beta2))
    coordinates = 1000 // tau
    stream = Stream(draw(5 * tau, 2000, coordinates), beta2)
    for multiple, spread in zip((2, 3, 5), SPREAD[beta2], strict=True):
        drifts = torch.tensor(stream.across(multiple * tau, tau).drifts)
        expected = share * spread * math.sqrt(relative_variance / coordinates)
        assert float(drifts.std()) == pytest.approx(expected, rel=0.05)
    assert abs(float(drifts.mean())) < 4 * expected / math.sqrt(2000)


@pytest.mark.parametrize("newest", range(5))
def test_a_ring_may_begin_anywhere(newest: int) -> None:
    torch.manual_seed(0)
    ring, momentum = torch.rand(5, 3, 8), torch.rand(3, 8)
    turned = ring.roll(newest + 1, 0)
    seen = statistics(turned, momentum, window=5, newest=newest)
    torch.testing.assert_close(seen, statistics(ring, momentum, window=5))
