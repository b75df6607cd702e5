"""Warmup shapes: pure functions from an update to the factor of the learning rate.

Every shape is one formula with the same arguments:

- ``update`` (t): the update, counted from the start of the ramp; the first is 1. Most
  shapes are defined for 0 <= t <= n, `saturating` and `rectified` for every t >= 0.
- ``steps`` (n): the length in updates, n >= 1.
- ``start`` (s): the factor at t = 0, dimensionless, >= 0. With a start above 1 the
  shape comes *down* to 1.

The factor is `start` at t = 0 and exactly 1 at the last update (see `last_update`). In
between it only rises, or only falls. Some shapes have more options, which are keyword
arguments with a default. Set them with `functools.partial`:
``mode=partial(polynomial, power=3)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = [
    "MODES",
    "FixedMode",
    "Mode",
    "Shape",
    "constant",
    "cosine",
    "exponential",
    "last_update",
    "linear",
    "log",
    "one_minus_sqrt",
    "polynomial",
    "rectified",
    "saturating",
    "sqrt",
    "staircase",
]

Shape = Callable[..., float]
MOST_RECTIFIED = 1e11  # beyond, `_rho` is all rounding, and the search never ends


def linear(update: float, steps: float, start: float = 0.0) -> float:
    r"""Straight line: the factor grows by the same amount at every update.

    .. math:: f(t) = s + (1 - s)\, t / n

    Example:
        >>> [linear(t, 4) for t in (1, 2, 3, 4)]
        [0.25, 0.5, 0.75, 1.0]

    Reference:
        Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2,
        https://arxiv.org/abs/1706.02677.
    """
    return start + (1.0 - start) * (update / steps)


def constant(update: float, steps: float, start: float = 1 / 3) -> float:
    r"""One low plateau: `start` before update n, and 1 from update n on.

    .. math:: f(t) = s \text{ for } t < n, \quad f(n) = 1

    Example:
        >>> [constant(t, 3, start=0.1) for t in (1, 2, 3)]
        [0.1, 0.1, 1.0]

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2015,
        section 4.2, https://arxiv.org/abs/1512.03385. The default start is the one
        of `torch.optim.lr_scheduler.ConstantLR`.
    """
    return start if update < steps else 1.0


def staircase(
    update: float, steps: float, start: float = 0.0, *, levels: int = 5
) -> float:
    r"""Equal plateaus: `levels` jumps of equal height, one every n / levels updates.

    .. math:: f(t) = s + (1 - s)\, \lceil k t / n \rceil / k

    The first plateau is one jump above `start`, so that no update is wasted. The last
    one is the full learning rate. `levels` (k) is a number of plateaus, >= 1.

    Example:
        >>> [round(staircase(t, 6, levels=3), 2) for t in (1, 2, 3, 4, 5, 6)]
        [0.33, 0.33, 0.67, 0.67, 1.0, 1.0]
    """
    return start + (1.0 - start) * (math.ceil(levels * update / steps) / levels)


def cosine(update: float, steps: float, start: float = 0.0) -> float:
    r"""Half a cosine wave: flat at both ends, steepest in the middle.

    .. math:: f(t) = s + (1 - s)\, \tfrac{1}{2} (1 - \cos(\pi t / n))

    Example:
        >>> [round(cosine(t, 4), 3) for t in (1, 2, 3, 4)]
        [0.146, 0.5, 0.854, 1.0]

    Reference:
        The rising half of Loshchilov & Hutter, "SGDR", 2016, eq. (5),
        https://arxiv.org/abs/1608.03983.
    """
    return start + (1.0 - start) * (0.5 * (1.0 - math.cos(math.pi * (update / steps))))


def exponential(update: float, steps: float, start: float = 0.01) -> float:
    r"""Geometric growth: every update multiplies the factor by the same number.

    .. math:: f(t) = s^{\,1 - t/n}

    It needs `start` > 0. It is the learning rate range test, used as a warmup.

    Example:
        >>> [round(exponential(t, 2), 3) for t in (1, 2)]
        [0.1, 1.0]

    Reference:
        The sweep of fastai's learning rate finder, after Smith, "Cyclical
        Learning Rates", 2015, section 3.3, https://arxiv.org/abs/1506.01186.
    """
    return math.pow(start, 1.0 - update / steps)


def polynomial(
    update: float, steps: float, start: float = 0.0, *, power: float = 2.0
) -> float:
    r"""Power of the progress: `power` > 1 starts gently, `power` < 1 starts steeply.

    .. math:: f(t) = s + (1 - s)\, (t / n)^p

    `power` (p) is dimensionless, > 0. With `power` = 1 it is `linear`.

    Example:
        >>> [polynomial(t, 4) for t in (1, 2, 3, 4)]
        [0.0625, 0.25, 0.5625, 1.0]
    """
    return start + (1.0 - start) * math.pow(update / steps, power)


def sqrt(update: float, steps: float, start: float = 0.0) -> float:
    r"""Square root of the progress: steep at first, then flatter and flatter.

    .. math:: f(t) = s + (1 - s)\, \sqrt{t / n}

    Example:
        >>> [round(sqrt(t, 4), 3) for t in (1, 2, 3, 4)]
        [0.5, 0.707, 0.866, 1.0]
    """
    return start + (1.0 - start) * math.sqrt(update / steps)


def one_minus_sqrt(update: float, steps: float, start: float = 0.0) -> float:
    r"""Mirror image of `sqrt`: flat at first, then steeper and steeper.

    .. math:: f(t) = s + (1 - s)\, (1 - \sqrt{1 - t / n})

    Example:
        >>> [round(one_minus_sqrt(t, 4), 3) for t in (1, 2, 3, 4)]
        [0.134, 0.293, 0.5, 1.0]

    Reference:
        The "1-sqrt" shape of Hägele et al., "Scaling Laws and Compute-Optimal
        Training Beyond Fixed Training Durations", 2024,
        https://arxiv.org/abs/2405.18392. There it is used for a cooldown.
    """
    return start + (1.0 - start) * (1.0 - math.sqrt(1.0 - update / steps))


def log(update: float, steps: float, start: float = 0.0) -> float:
    r"""Logarithm of the update: the steepest start of all shapes.

    .. math:: f(t) = s + (1 - s)\, \ln(1 + t) / \ln(1 + n)

    Example:
        >>> [round(log(t, 3), 3) for t in (1, 2, 3)]
        [0.5, 0.792, 1.0]

    Reference:
        DeepSpeed's `WarmupLR`. The difference: its factor is ln(t) / ln(n), so that
        one update is lost at factor 0. From then on it is the same as this shape with
        `steps` = n - 1, one update later.
    """
    return start + (1.0 - start) * (math.log1p(update) / math.log1p(steps))


def saturating(update: float, steps: float, start: float = 0.0) -> float:
    r"""Exponential approach to 1, where `steps` is the time constant.

    .. math:: f(t) = s + (1 - s)\, (1 - e^{-t / n})

    After n updates it has gone 63 % of the way, and after 5 n updates 99.3 %. It ends
    after 37.5 n updates, when it is so close to 1 that it is 1 in float64.

    Example:
        >>> [round(saturating(t, 2), 3) for t in (1, 2, 10)]
        [0.393, 0.632, 0.993]

    Reference:
        Ma & Yarats, "On the Adequacy of Untuned Warmup for Adaptive
        Optimization", 2019, https://arxiv.org/abs/1910.04209.
    """
    return start + (1.0 - start) * (1.0 - math.exp(-update / steps))


def rectified(update: float, steps: float, start: float = 0.0) -> float:
    r"""RAdam's variance rectification, where `steps` is 2 / (1 - beta2).

    .. math::
        f(t) = s + (1 - s) \sqrt{\frac{(\rho_k-4)(\rho_k-2)\rho_\infty}
                                      {(\rho_\infty-4)(\rho_\infty-2)\rho_k}},
        \quad k = t + \delta - 1

    with :math:`\rho_\infty = n - 1`,
    :math:`\rho_k = \rho_\infty - 2 k \beta_2^k / (1 - \beta_2^k)`, and
    :math:`\delta` the first k with :math:`\rho_k > 4`. It ends when it is so close to 1
    that it is 1 in float64.

    Raises:
        ValueError: n is not above 5 (n = 5 is beta2 = 0.6), or it is above 1e11.

    Example:
        >>> [round(rectified(t, 2000), 4) for t in (1, 2, 1000)]
        [0.0173, 0.0258, 0.6464]

    Reference:
        Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond",
        2019, section 4, https://arxiv.org/abs/1908.03265, shifted by delta - 1
        updates as in Ma & Yarats, 2019, section 3. The difference from the optimizer
        RAdam: there the first delta - 1 updates are momentum SGD.
    """
    if update <= 0:
        return start
    rho_inf = steps - 1.0
    # The formula needs rho > 4, so the count begins at the first k where this holds.
    rho = _rho(update + _rectifiable(steps) - 1, steps)
    square = ((rho - 4.0) * (rho - 2.0) * rho_inf) / (
        (rho_inf - 4.0) * (rho_inf - 2.0) * rho
    )
    return start + (1.0 - start) * math.sqrt(max(square, 0.0))


def _rho(k: float, steps: float) -> float:
    """Length of the simple average that is like the EMA over k gradients."""
    # 1 - 2 / steps is beta2.
    decayed: float = (1.0 - 2.0 / steps) ** k
    return (steps - 1.0) - 2.0 * k * decayed / (1.0 - decayed)


@lru_cache
def _rectifiable(steps: float) -> int:
    """First k with rho > 4. It is 5 for every beta2 >= 0.9."""
    if steps <= 5:
        raise ValueError(
            f"steps must be > 5 for the rectified shape, got {steps}. It stands for "
            "2 / (1 - beta2), and below beta2 = 0.6 nothing can be rectified."
        )
    if steps > MOST_RECTIFIED:
        raise ValueError(
            f"steps must be at most {MOST_RECTIFIED:g} for the rectified shape, got "
            f"{steps:g}: above that, beta2 is 1 in float64."
        )
    k = 1
    while _rho(k, steps) <= 4.0:
        k += 1
    return k


def last_update(shape: Shape, steps: float) -> int:
    """First update from which on `shape` stays at 1.

    This is `steps`, except for the two shapes that only come closer and closer to 1.
    For these it is the first update with a factor of 1 in float64.

    Example:
        >>> last_update(linear, 1000), last_update(saturating, 1000)
        (1000, 37430)
    """
    if shape not in (saturating, rectified):
        return math.ceil(steps)
    return _first_at_one(shape, steps)


@lru_cache
def _first_at_one(shape: Shape, steps: float) -> int:
    """Finds the first update with factor 1 by bisection."""
    # Both shapes only rise: first an upper limit is found, then the exact update.
    end = math.ceil(steps)
    while shape(end, steps) < 1.0:
        end *= 2
    start = 0
    while end - start > 1:
        middle = (start + end) // 2
        if shape(middle, steps) < 1.0:
            start = middle
        else:
            end = middle
    return end


class Mode(NamedTuple):
    """A shape and, for the untuned modes, the rule that computes steps from beta2."""

    shape: Shape
    steps_from_beta2: Callable[[float], float] | None = None


def _untuned_linear_steps(beta2: float) -> int:
    return round(2.0 / (1.0 - beta2))


def _untuned_exponential_steps(beta2: float) -> int:
    return round(1.0 / (1.0 - beta2))


def _radam_steps(beta2: float) -> float:
    if beta2 <= 0.6:
        raise ValueError(
            f"mode='radam' needs beta2 > 0.6, got {beta2}. "
            "Use mode='untuned_linear' for a lower beta2."
        )
    return 2.0 / (1.0 - beta2)


FixedMode = Literal[
    "linear",
    "constant",
    "staircase",
    "cosine",
    "exponential",
    "polynomial",
    "sqrt",
    "one_minus_sqrt",
    "log",
    "saturating",
    "untuned_linear",
    "untuned_exponential",
    "radam",
]
"""The keys of `MODES`, for type checkers and editors."""

MODES: dict[str, Mode] = {
    "linear": Mode(linear),
    "constant": Mode(constant),
    "staircase": Mode(staircase),
    "cosine": Mode(cosine),
    "exponential": Mode(exponential),
    "polynomial": Mode(polynomial),
    "sqrt": Mode(sqrt),
    "one_minus_sqrt": Mode(one_minus_sqrt),
    "log": Mode(log),
    "saturating": Mode(saturating),
    "untuned_linear": Mode(linear, _untuned_linear_steps),
    "untuned_exponential": Mode(saturating, _untuned_exponential_steps),
    "radam": Mode(rectified, _radam_steps),
}
"""All modes by name. The last three take their length from beta2 (Ma & Yarats, 2019):
2 / (1 - beta2) for `untuned_linear` and `radam`, 1 / (1 - beta2) for
`untuned_exponential`. The two untuned lengths are rounded to whole updates."""
