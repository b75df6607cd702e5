"""From samples of a second moment to the numbers that a criterion looks at.

Tensors in, one small tensor out; nothing here is read to the host, so that the
caller decides when to wait. `Reading` says what the numbers mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["median_variance", "statistics"]


def median_variance(ring: Tensor) -> Tensor:
    """`inverse_root_variance` of a window, alone: what the default criterion needs.

    Shape: ring [samples, tensors, coordinates], float32; result [].
    """
    return _variances(ring).nanmedian()


def _variances(ring: Tensor) -> Tensor:
    """Of each coordinate's inverse root over the window, relative to its mean."""
    inverse_root = ring.rsqrt()
    # Where a v is 0, its inverse root and their mean are inf, and the ratio nan.
    # (var(0) would take many times as long, and new memory at each step twice.)
    deviation = inverse_root.div_(inverse_root.mean(0)).sub_(1.0)
    return deviation.square_().mean(0)


def statistics(
    ring: Tensor,
    momentum: Tensor | None = None,
    *,
    window: int,
    newest: int = -1,
) -> Tensor:
    """What a window of samples says, as one vector.

    Left out is every coordinate with v = 0 (or nan) in any of the samples, so that
    parameters that have had no gradient, frozen ones, and padding count for nothing.
    Gradients scaled by a power of two give the same bits: every operation on v is
    linear or makes a ratio.

    Args:
        ring: Samples of v, bias-corrected where the optimizer does it, oldest
            first; a tensor with fewer coordinates than columns is padded with 0.
        momentum: The bias-corrected momentum at the newest sample.
        window: Samples in a full window; `ring` may hold fewer.
        newest: Where the newest sample is, if not last; the oldest comes after it.

    Returns:
        `inverse_root_variance`, `norm_ratio` and `update_rms`, then the `drifts`,
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
    if newest in (-1, len(ring) - 1):
        ends, old, new = ring[:: max(len(ring) - 1, 1)], 0, -1
    else:
        ends, old, new = ring[newest : newest + 2], 1, 0
    ends = ends.where(kept, unknown)
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
