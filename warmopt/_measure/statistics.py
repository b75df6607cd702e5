"""Computes the numbers that a criterion looks at, from samples of a second moment.

Tensors go in, and one small tensor comes out. Nothing is read to the host here, so the
caller decides when to wait for the device. `Reading` says what the numbers mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["median_variance", "statistics"]


def median_variance(ring: Tensor) -> Tensor:
    """Only `inverse_root_variance` of a window: some criteria need no more.

    Shape: ring [samples, tensors, coordinates], float32; result [].
    """
    return _variances(ring).nanmedian()


def _variances(ring: Tensor) -> Tensor:
    """Variance of 1 / sqrt(v) over the window, relative to its squared mean.

    It has one value per coordinate: shape [tensors, coordinates].
    """
    inverse_root = ring.rsqrt()
    # If any v is 0, its inverse root and the mean are inf, and the result is nan, which
    # leaves this coordinate out. (torch's var(0) would take many times as long, and
    # would allocate memory twice at each step.)
    deviation = inverse_root.div_(inverse_root.mean(0)).sub_(1.0)
    return deviation.square_().mean(0)


def statistics(
    ring: Tensor, momentum: Tensor | None = None, *, window: int, newest: int = -1
) -> Tensor:
    """Computes all numbers of a window of samples, as one vector.

    A coordinate with v = 0 (or nan) in any of the samples is left out. So parameters
    that never had a gradient, frozen parameters and padding do not count. If all
    gradients are scaled by the same power of two, the result is the same to the bit,
    since every operation on v is linear or makes a ratio.

    Args:
        ring: Samples of v, oldest first. The bias is corrected if the optimizer
            corrects it. A tensor with fewer coordinates than columns is padded with 0.
        momentum: The bias-corrected momentum at the newest sample.
        window: Samples in a full window; `ring` may hold fewer.
        newest: Index of the newest sample, if it is not the last. Then the oldest
            sample comes right after it, as in a ring buffer.

    Returns:
        `inverse_root_variance`, `norm_ratio` and `update_rms`, and then the `drifts`,
        all as in `Reading`.

    Shape: ring [samples, tensors, coordinates] and momentum [tensors, coordinates],
        float32; result [3 + tensors].

    Example:
        >>> v = torch.tensor([[[4.0, 0.0]], [[1.0, 2.0]]])
        >>> statistics(v, torch.tensor([[0.5, 9.0]]), window=2)
        tensor([ 0.1111,  4.0000,  0.5000, -1.3863])
    """
    unknown = ring.new_full((1,), math.nan)
    variance = _variances(ring)
    is_full = 1 < len(ring) >= window
    median = variance.nanmedian().reshape(1) if is_full else unknown
    kept = variance >= 0.0
    # The other numbers need only the oldest and the newest sample: `old` and `new` are
    # their indices in `ends`.
    if newest in (-1, len(ring) - 1):
        ends, old, new = ring[:: max(len(ring) - 1, 1)], 0, -1
    else:
        ends, old, new = ring[newest : newest + 2], 1, 0
    ends = ends.where(kept, unknown)  # the nansum below skips what is left out
    sums = ends.nansum(-1)
    totals = sums.sum(-1, keepdim=True)
    if momentum is None:
        update_rms = unknown
    else:
        squares = (momentum.square() / ends[new]).nansum()
        update_rms = (squares / kept.sum()).sqrt().reshape(1)
    if len(ring) == 1:
        return torch.cat([unknown, unknown, update_rms, unknown.expand(sums.shape[1])])
    drifts = (sums[new] / sums[old]).log()
    return torch.cat([median, totals[old] / totals[new], update_rms, drifts])
