"""When has the second moment settled? Pure functions from a reading to yes or no.

A criterion is any callable `Reading -> bool`; those here are frozen dataclasses, so
that they compare, print and can be rebuilt from their constants. These are checked: a
wrong one is a TypeError or a ValueError. None of them sees a tensor, the loss or the
learning rate, and none remembers the reading before. A value that is nan (not known
yet, or nothing to measure) never settles.

Throughout, v is the bias-corrected second moment, t the update, D the span of the
full window in updates (those that use it wait for it to be full), and
tau = 1 / (1 - beta2) the memory of v in updates.

Combine them with a function::

    drift, update_rms = Drift(), UpdateRMS()
    criterion = lambda reading: drift(reading) and update_rms(reading)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

__all__ = [
    "CRITERIA",
    "Criterion",
    "Drift",
    "EffectiveSampleSize",
    "InverseRootVariance",
    "NormRatio",
    "Reading",
    "UpdateRMS",
]


class Reading(NamedTuple):
    """What is measured of a second moment: plain numbers (see `readings`).

    Attributes:
        update: Update after which the newest sample was taken, counted from 1.
        span: Updates between the oldest sample of the window and the newest.
        samples: Samples in the window so far, 1 to `window`.
        window: Samples in a full window.
        beta1: Decay of the momentum per update, in the first group that has one, as
            it is when the sample is judged; None where there is none. The base one,
            where the momentum warms too (`momentum_start`).
        beta2: Decay of the second moment per update, likewise; None where it is not
            known.
        inverse_root_variance: Median over the coordinates of var / mean^2 of
            1 / sqrt(v) in the window, dimensionless. nan until the window is full.
        norm_ratio: Sum of v in the oldest sample over that in the newest. nan
            with one sample.
        update_rms: RMS over the coordinates of m / sqrt(v), m the bias-corrected
            momentum, in the newest sample. nan where there is no momentum.
        drifts: Per tensor log(mean v) of the newest sample less that of the
            oldest. nan with one sample, and where no coordinate has v > 0.
        sizes: Per tensor the elements of the whole tensor, sampled or not.
    """

    update: int
    span: int
    samples: int
    window: int
    beta1: float | None
    beta2: float | None
    inverse_root_variance: float
    norm_ratio: float
    update_rms: float
    drifts: tuple[float, ...]
    sizes: tuple[int, ...]


Criterion = Callable[[Reading], bool]
Weight = Literal["numel", "tensor"]
Orientation = Literal["old_over_new", "new_over_old", "two_sided"]


@dataclass(frozen=True)
class InverseRootVariance:
    r"""The effective LR of the typical coordinate has been constant for a window.

    .. math:: \mathrm{median}_i \frac{\mathrm{Var}_W[v_i^{-1/2}]}
                                     {\mathrm{E}_W[v_i^{-1/2}]^2} \le \text{threshold}

    The measured counterpart of the variance that RAdam computes from t and beta2
    alone. `threshold` is dimensionless; 0.02 is a spread of 14 %. It was tested with
    samples every 5 updates, 5 to a window; the three belong together.

    What fools it: it is partly a clock. For t << tau, v is a plain mean over t
    gradients, which slows down by itself: most runs settle at update 25 to 80,
    whatever they do. It settles at a tiny LR though nothing has happened yet, where v
    is too coarse to move (bfloat16 near beta2 = 0.999), and where parameters go
    without gradients for a window though they are not frozen: their v stands still.
    What holds it up: noise. Where one gradient in ten is not 0, it stays above 0.02
    for good at beta2 = 0.95 (but below 0.05), and above 0.1 at 0.9.

    Example:
        >>> import math
        >>> nan = math.nan
        >>> reading = Reading(50, 20, 5, 5, 0.9, 0.999, 0.01, nan, nan, (), ())
        >>> InverseRootVariance()(reading), InverseRootVariance(0.005)(reading)
        (True, False)

    Reference:
        Var[psi] of Liu et al., "On the Variance of the Adaptive Learning Rate and
        Beyond", 2019, section 3, https://arxiv.org/abs/1908.03265. Differs: the
        variance is over time and measured. The rule and its constants are ours.
    """

    threshold: float = 0.02

    def __post_init__(self) -> None:
        _check_positive("threshold", self.threshold)

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        return reading.inverse_root_variance <= self.threshold


@dataclass(frozen=True)
class Drift:
    r"""Most tensors' second moments keep their size, whichever way they might move.

    .. math:: \frac{\sum_l w_l\,[\,|\log \bar v_l(t) - \log \bar v_l(t - D)|
              < \text{tol} \cdot D / \tau\,]}{\sum_l w_l} \ge \text{quantile}

    with the mean v of tensor l and w its elements (`by="numel"`) or 1
    (`by="tensor"`). `tol` is a natural logarithm per memory length tau: 0.25 lets
    the effective LR move by 12 % in tau updates. `quantile` is the share of the weight
    that must keep still, in (0, 1]. Tensors without any v > 0 have no weight. Never
    settled before t = 2 D, while v is still mostly noise.

    What fools it: stagnation, and a v too coarse to move (bfloat16 near beta2 =
    0.999). At a tiny LR the gradients are stationary, whatever waits at the full
    one; `UpdateRMS` guards. What holds it up: noise, for a span well below tau.
    The noise of a drift grows like sqrt(D), its tolerance like D; the fewer the
    coordinates and the heavier the tails, the worse. And a steady decay of the
    gradients' squares, by 1 / e in fewer than tau / tol updates.

    Example:
        >>> import math
        >>> reading = Reading(300, 100, 5, 5, 0.9, 0.99, *[math.nan] * 3,
        ...                   drifts=(0.1, -0.3), sizes=(900, 100))
        >>> Drift()(reading), Drift(by="tensor")(reading)
        (True, False)

    Reference:
        Ours, after the norm ratio of 1-bit Adam (see `NormRatio`). Differs: bias
        corrected, two-sided and per tensor, each of which closes one of its holes.
    """

    tol: float = 0.25
    quantile: float = 0.75
    by: Weight = "numel"

    def __post_init__(self) -> None:
        _check_positive("tol", self.tol)
        _check_positive("quantile", self.quantile, most=1.0)
        _check_choice("by", self.by, get_args(Weight))

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        full = reading.samples == reading.window
        if not full or reading.beta2 is None or reading.update < 2 * reading.span:
            return False
        limit = self.tol * reading.span * (1.0 - reading.beta2)
        known = [
            (abs(drift), size if self.by == "numel" else 1)
            for drift, size in zip(reading.drifts, reading.sizes, strict=True)
            if not math.isnan(drift)
        ]
        quiet = sum(weight for drift, weight in known if drift < limit)
        return quiet > 0 and quiet >= self.quantile * sum(weight for _, weight in known)


@dataclass(frozen=True)
class NormRatio:
    r"""The norm of all second moments keeps its size, in the style of 1-bit Adam.

    .. math:: \|v(t - D)\|_1 / \|v(t)\|_1 \ge \text{threshold}

    `orientation` is ``"old_over_new"`` as above, ``"new_over_old"`` the other way
    up, or ``"two_sided"`` for both at once. `threshold` is dimensionless, at most 1.
    With `bias_correction=False` the ratio is that of the raw averages, as 1-bit
    Adam keeps them: the factor is (1 - beta2^(t-D)) / (1 - beta2^t). Where the
    optimizer itself does not correct (RMSprop) the samples are raw already, and it
    must be left at True. The paper's D is tau; ours is the span of the window.

    What fools it: one-sided, it settles at once while v falls (``old_over_new``,
    the usual start of training) or rises (the other). Raw, it measures beta2:
    stationary gradients reach 0.96 at 3.78 tau with D = tau, whatever they are.
    Clipping by the global norm at every update pins the norm of v, so that it
    settles at once. It is also fooled by stagnation, as `Drift` is, and is
    ruled by the tensor with the largest gradients.

    Example:
        >>> import math
        >>> nan = math.nan
        >>> falling = Reading(300, 100, 5, 5, 0.9, 0.99, nan, 1.5, nan, (), ())
        >>> NormRatio()(falling), NormRatio(orientation="two_sided")(falling)
        (True, False)

    Reference:
        Tang et al., "1-bit Adam", 2021, https://arxiv.org/abs/2102.02888. Which
        way up their ratio stands, and the 0.96, are not settled here: take them
        for a style rather than for a reproduction.
    """

    threshold: float = 0.96
    orientation: Orientation = "old_over_new"
    bias_correction: bool = True

    def __post_init__(self) -> None:
        _check_positive("threshold", self.threshold, most=1.0)
        _check_choice("orientation", self.orientation, get_args(Orientation))
        _check_choice("bias_correction", self.bias_correction, (True, False))

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        if reading.samples < reading.window:
            return False
        ratio, beta2 = reading.norm_ratio, reading.beta2
        if not self.bias_correction:
            if beta2 is None:
                return False
            ratio *= 1.0 - beta2 ** (reading.update - reading.span)
            ratio /= 1.0 - beta2**reading.update
        old_over_new = self.threshold <= ratio < math.inf
        new_over_old = 0.0 < ratio <= 1.0 / self.threshold
        if self.orientation == "two_sided":
            return old_over_new and new_over_old
        return old_over_new if self.orientation == "old_over_new" else new_over_old


@dataclass(frozen=True)
class EffectiveSampleSize:
    r"""The second moment averages over enough gradients for RAdam to rely on it.

    .. math:: \rho_t = \frac{2}{1 - \beta_2} - 1 - \frac{2 t \beta_2^t}{1 - \beta_2^t}
              > \text{threshold}

    `threshold` is a number of gradients. 4 is the paper's: from there on the
    variance of the adaptive LR is finite by its formula, and RAdam adapts. By the
    same formula, rho / (2 (rho - 2) (rho - 4)), it is below 0.02 from 31 on.

    What fools it: everything, since it looks at nothing. It is a pure function of
    t and beta2, and at the default settles at update 5 for every beta2 >= 0.9. It
    never settles where beta2 <= 1 - 2 / (threshold + 1).

    Example:
        >>> import math
        >>> after = lambda t: Reading(t, 0, 1, 5, 0.9, 0.999, *[math.nan] * 3, (), ())
        >>> [EffectiveSampleSize()(after(t)) for t in (4, 5)]
        [False, True]

    Reference:
        Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond",
        2019, section 4, https://arxiv.org/abs/1908.03265. Differs: a yes or no;
        the factor of the LR that the paper makes of it is `shapes.rectified`.
    """

    threshold: float = 4.0

    def __post_init__(self) -> None:
        _check_positive("threshold", self.threshold)

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        if reading.beta2 is None or reading.beta2 >= 1.0:
            return False
        decayed = reading.beta2**reading.update
        lost = 2.0 * reading.update * decayed / (1.0 - decayed)
        return 2.0 / (1.0 - reading.beta2) - 1.0 - lost > self.threshold


@dataclass(frozen=True)
class UpdateRMS:
    r"""The updates are mostly noise: what is consistent in the gradients is used up.

    .. math:: \mathrm{RMS}_i(m_i / \sqrt{v_i})
              \le \text{ratio} \cdot \sqrt{(1 - \beta_1) / (1 + \beta_1)}

    The root is what independent gradients of mean 0 give: 0.229 for beta1 = 0.9.
    `ratio` is a multiple of it, dimensionless. A guard for the others, which
    stagnation fools: there the gradients stay alike and this stays near 1.

    What fools it: noise. Small batches reach the limit within tens of updates,
    whatever the second moment does; with beta1 = 0 it says nothing. Very large
    batches never reach it. Both first updates and dead runs can look like either.

    Example:
        >>> import math
        >>> reading = Reading(50, 20, 5, 5, 0.9, 0.99, *[math.nan] * 2, 0.3, (), ())
        >>> UpdateRMS()(reading), UpdateRMS(ratio=1.2)(reading)
        (True, False)

    Reference:
        The update magnitude of Ma & Yarats, "On the Adequacy of Untuned Warmup for
        Adaptive Optimization", 2019, https://arxiv.org/abs/1910.04209. The rule
        and its constant are ours.
    """

    ratio: float = 1.5

    def __post_init__(self) -> None:
        _check_positive("ratio", self.ratio)

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        if reading.beta1 is None:
            return False
        floor = math.sqrt((1.0 - reading.beta1) / (1.0 + reading.beta1))
        return reading.update_rms <= self.ratio * floor


CRITERIA: dict[str, Callable[..., Criterion]] = {
    "inverse_root_variance": InverseRootVariance,
    "drift": Drift,
    "norm_ratio": NormRatio,
    "effective_sample_size": EffectiveSampleSize,
    "update_rms": UpdateRMS,
}
"""Every criterion by name, the default first."""


def _check_positive(name: str, value: object, most: float = math.inf) -> None:
    allowed = "a finite number > 0" if most == math.inf else f"in (0, {most:g}]"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {allowed}, got {value!r}.")
    if not 0.0 < value <= most or value == math.inf:
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        allowed = ", ".join(map(str, choices))
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}.")


def name_of(criterion: Criterion) -> str:
    """Name under which a criterion is recorded: of a function, or with constants."""
    return getattr(criterion, "__name__", None) or repr(criterion)
