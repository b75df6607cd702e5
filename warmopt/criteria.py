"""When has the second moment settled? Pure functions from a reading to yes or no.

A criterion is any callable `Reading -> bool`. The criteria here are frozen dataclasses:
they can be compared and printed, and rebuilt from their constants. The constants are
checked, and a wrong one raises a TypeError or a ValueError. No criterion sees a tensor,
the loss or the learning rate, and none remembers earlier readings. If a value is nan
(not known yet, or nothing to measure), it never counts as settled. Each has a
`quantity`, the number that it compares with its `limit`, for pictures of it.

In the formulas, v is the bias-corrected second moment, t is the update, D is the span
of a full window in updates (a criterion that uses D waits until the window is full),
and tau = 1 / (1 - beta2) is the memory of v in updates.

Combine criteria with a function::

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
    "Steady",
    "UpdateRMS",
]


class Reading(NamedTuple):
    """What is measured of a second moment, as plain numbers.

    Attributes:
        update: Update after which the newest sample was taken; the first is 1.
        span: Updates between the oldest and the newest sample of the window.
        samples: Samples in the window so far, from 1 to `window`.
        window: Samples in a full window.
        beta1: Decay of the momentum per update, from the first group that has one, at
            the time when the sample is judged; None if no group has one. If the
            momentum warms too (`momentum_start`), this is its base value.
        beta2: Decay of the second moment per update, from the first group that has
            one, at the same time; None if it is not known.
        inverse_root_variance: Median over the coordinates of var / mean^2 of
            1 / sqrt(v) in the window, dimensionless. nan until the window is full.
        norm_ratio: Sum of v in the oldest sample, divided by the sum of v in the
            newest. nan if there is only one sample.
        update_rms: RMS over the coordinates of m / sqrt(v) in the newest sample, where
            m is the bias-corrected momentum. nan if there is no momentum.
        drifts: For each tensor, log(mean v) in the newest sample minus log(mean v) in
            the oldest. nan if there is only one sample, or if no coordinate has v > 0.
        sizes: For each tensor, the number of all its elements, sampled or not.
        alignment: How well the newest gradient agrees with the last step, in [-1, 1],
            see `Aligned`. nan in the other modes. In aligned mode the entries above are
            those of the last sample of the second moment.
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
    alignment: float = math.nan


Criterion = Callable[[Reading], bool]
Weight = Literal["numel", "tensor"]
Orientation = Literal["old_over_new", "new_over_old", "two_sided"]


@dataclass(frozen=True)
class InverseRootVariance:
    r"""The effective LR of a typical coordinate has been constant for a whole window.

    .. math:: \mathrm{median}_i \frac{\mathrm{Var}_W[v_i^{-1/2}]}
                                     {\mathrm{E}_W[v_i^{-1/2}]^2} \le \text{threshold}

    RAdam computes a variance like this one from t and beta2 alone; here it is measured.
    `threshold` is dimensionless; 0.02 is a spread of 14 %. It was tested with a sample
    every 5 updates and 5 samples in a window, and these three numbers belong together.

    What fools it: it is partly a clock. For t << tau, v is a plain mean over t
    gradients, which moves less and less by itself. So most runs settle at update 25 to
    80, whatever happens in them. It also settles in three cases in which it should not:
    at a tiny LR, although nothing has happened yet; if v is too coarse to move
    (bfloat16 with beta2 near 0.999); and if parameters that are not frozen get no
    gradient for a whole window, since their v stands still.

    What delays it: noise. If only one gradient in ten is not 0, the variance always
    stays above 0.02 at beta2 = 0.95 (but below 0.05), and above 0.1 at beta2 = 0.9.

    Example:
        >>> import math
        >>> nan = math.nan
        >>> reading = Reading(50, 20, 5, 5, 0.9, 0.999, 0.01, nan, nan, (), ())
        >>> InverseRootVariance()(reading), InverseRootVariance(0.005)(reading)
        (True, False)

    Reference:
        Var[psi] of Liu et al., "On the Variance of the Adaptive Learning Rate and
        Beyond", 2019, section 3, https://arxiv.org/abs/1908.03265. The difference: our
        variance is over time, and measured. The rule and its constants are ours.
    """

    threshold: float = 0.02

    def __post_init__(self) -> None:
        _check_positive("threshold", self.threshold)

    @property
    def limit(self) -> float:
        """The most that `quantity` may be: `threshold`."""
        return self.threshold

    def quantity(self, reading: Reading) -> float:
        """The number that is compared with the limit."""
        return reading.inverse_root_variance

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        return self.quantity(reading) <= self.threshold


@dataclass(frozen=True)
class Drift:
    r"""The second moments of most tensors keep their size: they do not grow or shrink.

    .. math:: \frac{\sum_l w_l\,[\,|\log \bar v_l(t) - \log \bar v_l(t - D)|
              < \text{tol} \cdot D / \tau\,]}{\sum_l w_l} \ge \text{quantile}

    Here :math:`\bar v_l` is the mean v of tensor l, and the weight :math:`w_l` is its
    number of elements (`by="numel"`) or 1 (`by="tensor"`). `tol` is a natural logarithm
    per memory length tau: with 0.25, the effective LR may move by 12 % in tau updates.
    `quantile` is the share of the total weight that must not move, in (0, 1]. Tensors
    without any v > 0 have no weight. It never settles before t = 2 D, when v is still
    mostly noise.

    What fools it: stagnation, and a v that is too coarse to move (bfloat16 with beta2
    near 0.999). At a tiny LR the gradients hardly change, whatever will happen at the
    full LR. Combine it with `UpdateRMS` as a guard.

    What delays it: noise, if the span is much shorter than tau. The noise of a drift
    grows like sqrt(D), but the tolerance like D. It is worse with few coordinates and
    with heavy tails. Another cause is a steady decay of the squared gradients, by a
    factor of e in fewer than tau / tol updates.

    Example:
        >>> import math
        >>> reading = Reading(300, 100, 5, 5, 0.9, 0.99, *[math.nan] * 3,
        ...                   drifts=(0.1, -0.3), sizes=(900, 100))
        >>> Drift()(reading), Drift(by="tensor")(reading)
        (True, False)

    Reference:
        Ours, based on the norm ratio of 1-bit Adam (see `NormRatio`). The differences:
        the bias is corrected, and it is two-sided and per tensor. Each of these repairs
        one weakness of the norm ratio.
    """

    tol: float = 0.25
    quantile: float = 0.75
    by: Weight = "numel"

    def __post_init__(self) -> None:
        _check_positive("tol", self.tol)
        _check_positive("quantile", self.quantile, most=1.0)
        _check_choice("by", self.by, get_args(Weight))

    @property
    def limit(self) -> float:
        """What `quantity` must stay below: `tol`."""
        return self.tol

    def quantity(self, reading: Reading) -> float:
        """The `tol` above which the reading settles; nan if it never does."""
        full = reading.samples == reading.window
        if not full or reading.beta2 is None or reading.update < 2 * reading.span:
            return math.nan
        unit = reading.span * (1.0 - reading.beta2)
        drift = _moved_by(_known_drifts(reading, self.by), self.quantile)
        if math.isnan(drift):
            return drift
        return drift / unit if unit else math.inf

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        full = reading.samples == reading.window
        if not full or reading.beta2 is None or reading.update < 2 * reading.span:
            return False
        limit = self.tol * reading.span * (1.0 - reading.beta2)
        known = _known_drifts(reading, self.by)
        # If nothing was measured, `quiet` is 0, and that must not count as settled.
        quiet = sum(weight for drift, weight in known if drift < limit)
        return quiet > 0 and quiet >= self.quantile * sum(weight for _, weight in known)


@dataclass(frozen=True)
class NormRatio:
    r"""The norm of all second moments keeps its size, in the style of 1-bit Adam.

    .. math:: \|v(t - D)\|_1 / \|v(t)\|_1 \ge \text{threshold}

    `orientation` is ``"old_over_new"`` for the ratio above, ``"new_over_old"`` for its
    inverse, or ``"two_sided"`` if both must reach the threshold. `threshold` is
    dimensionless, at most 1. With `bias_correction=False` it is the ratio of the raw
    averages, which 1-bit Adam uses: the ratio above times
    (1 - beta2^(t-D)) / (1 - beta2^t). If the optimizer itself does not correct the bias
    (RMSprop), the samples are raw already, and `bias_correction` must stay True. In the
    paper D is tau; here it is the span of the window.

    What fools it: if it is one-sided, it settles at once while v falls
    (``old_over_new``; v usually falls at the start of training) or while v rises
    (``new_over_old``). Without bias correction it measures beta2: all stationary
    gradients reach 0.96 at 3.78 tau if D = tau. Clipping by the global norm at every
    update keeps the norm of v constant, so that it settles at once. Stagnation fools
    it too, as it fools `Drift`. And the tensor with the largest gradients decides
    almost alone.

    Example:
        >>> import math
        >>> nan = math.nan
        >>> falling = Reading(300, 100, 5, 5, 0.9, 0.99, nan, 1.5, nan, (), ())
        >>> NormRatio()(falling), NormRatio(orientation="two_sided")(falling)
        (True, False)

    Reference:
        Tang et al., "1-bit Adam", 2021, https://arxiv.org/abs/2102.02888. We are not
        sure which way up their ratio is, nor about the 0.96. So this is a rule in the
        style of the paper, and not a reproduction.
    """

    threshold: float = 0.96
    orientation: Orientation = "old_over_new"
    bias_correction: bool = True

    def __post_init__(self) -> None:
        _check_positive("threshold", self.threshold, most=1.0)
        _check_choice("orientation", self.orientation, get_args(Orientation))
        _check_choice("bias_correction", self.bias_correction, (True, False))

    @property
    def limit(self) -> float:
        """The least that `quantity` must be: `threshold`."""
        return self.threshold

    def quantity(self, reading: Reading) -> float:
        """The ratio, or its inverse, or the smaller of both: see `orientation`."""
        ratio = self._ratio(reading)
        inverse = 1.0 / ratio if ratio else math.inf
        if self.orientation == "two_sided":
            return min(ratio, inverse)
        return ratio if self.orientation == "old_over_new" else inverse

    def _ratio(self, reading: Reading) -> float:
        """Old over new; nan if it is not known."""
        ratio, beta2 = reading.norm_ratio, reading.beta2
        if reading.samples < reading.window:
            return math.nan
        if not self.bias_correction:
            if beta2 is None or beta2 >= 1.0:
                return math.nan
            ratio *= 1.0 - beta2 ** (reading.update - reading.span)
            ratio /= 1.0 - beta2**reading.update
        return ratio

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        ratio = self._ratio(reading)
        # A ratio of inf or 0 means that one of the sums is 0. nan fails both tests.
        old_over_new = self.threshold <= ratio < math.inf
        new_over_old = 0.0 < ratio <= 1.0 / self.threshold
        if self.orientation == "two_sided":
            return old_over_new and new_over_old
        return old_over_new if self.orientation == "old_over_new" else new_over_old


@dataclass(frozen=True)
class EffectiveSampleSize:
    r"""The second moment averages over enough gradients for RAdam to use it.

    .. math:: \rho_t = \frac{2}{1 - \beta_2} - 1 - \frac{2 t \beta_2^t}{1 - \beta_2^t}
              > \text{threshold}

    `threshold` is a number of gradients. The paper uses 4: above it, the variance of
    the adaptive LR is finite by the paper's formula, rho / (2 (rho - 2) (rho - 4)), and
    RAdam adapts. By the same formula, the variance is below 0.02 from rho = 31 on.

    What fools it: everything, since it looks at no measurement. It is a pure function
    of t and beta2. With the default threshold it settles at update 5 for every
    beta2 >= 0.9. It never settles if beta2 <= 1 - 2 / (threshold + 1).

    Example:
        >>> import math
        >>> after = lambda t: Reading(t, 0, 1, 5, 0.9, 0.999, *[math.nan] * 3, (), ())
        >>> [EffectiveSampleSize()(after(t)) for t in (4, 5)]
        [False, True]

    Reference:
        Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond",
        2019, section 4, https://arxiv.org/abs/1908.03265. The difference: this is a yes
        or no. The paper computes a factor of the LR from it: `shapes.rectified`.
    """

    threshold: float = 4.0

    def __post_init__(self) -> None:
        _check_positive("threshold", self.threshold)

    @property
    def limit(self) -> float:
        """What `quantity` must be above: `threshold`."""
        return self.threshold

    def quantity(self, reading: Reading) -> float:
        """The number of gradients, as in the formula; nan without a beta2."""
        if reading.beta2 is None or reading.beta2 >= 1.0:
            return math.nan
        decayed = reading.beta2**reading.update
        lost = 2.0 * reading.update * decayed / (1.0 - decayed)
        return 2.0 / (1.0 - reading.beta2) - 1.0 - lost

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        return self.quantity(reading) > self.threshold


@dataclass(frozen=True)
class UpdateRMS:
    r"""The updates are mostly noise: gradients no longer agree from update to update.

    .. math:: \mathrm{RMS}_i(m_i / \sqrt{v_i})
              \le \text{ratio} \cdot \sqrt{(1 - \beta_1) / (1 + \beta_1)}

    The root is the value for independent gradients with mean 0: 0.229 for beta1 = 0.9.
    `ratio` is a multiple of it, dimensionless. Use it as a guard for the criteria that
    stagnation fools: in a run that stagnates, all gradients are alike, and this value
    stays near 1.

    What fools it: noise. With small batches it reaches the limit within tens of
    updates, whatever the second moment does. With beta1 = 0 it says nothing. With very
    large batches it never reaches the limit. In the first updates, and in a dead run,
    it can be either high or low.

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

    @property
    def limit(self) -> float:
        """The most that `quantity` may be: `ratio`."""
        return self.ratio

    def quantity(self, reading: Reading) -> float:
        """The RMS as a multiple of that for independent gradients."""
        floor = self._floor(reading)
        return reading.update_rms / floor if floor else math.inf

    def _floor(self, reading: Reading) -> float:
        """The RMS for independent gradients; nan without a beta1."""
        if reading.beta1 is None:
            return math.nan
        return math.sqrt((1.0 - reading.beta1) / (1.0 + reading.beta1))

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        return reading.update_rms <= self.ratio * self._floor(reading)


@dataclass(frozen=True)
class Steady:
    r"""The effective LR is constant for a window, and v neither grows nor shrinks.

    It is `InverseRootVariance`, and for at least `quantile` of all elements also

    .. math:: |\log \bar v_l(t) - \log \bar v_l(t - D)| \le \text{most}

    where :math:`\bar v_l` is the mean v of the tensor l that has the element. `most` is
    a natural logarithm: 0.2 over the 20 updates of the default window is 1 % an update.
    `quantile` is a share in (0, 1]. Tensors without any v > 0 do not count. This is the
    default of `Adaptive`. For `InverseRootVariance` alone, a v that grows by 2 % at
    every update settles as soon as one that is at rest.

    What fools it: what fools `InverseRootVariance`, except for steady growth or decay
    that is faster than `most`. Clipping by the global norm hides growth.

    Example:
        >>> import math
        >>> nan = math.nan
        >>> grows = Reading(50, 20, 5, 5, 0.9, 0.999, 0.01, nan, nan, (0.4,), (900,))
        >>> InverseRootVariance()(grows), Steady()(grows)
        (True, False)

    Reference:
        Ours. https://arxiv.org/abs/1908.03265 has the variance, see
        `InverseRootVariance`.
    """

    threshold: float = 0.02
    most: float = 0.2
    quantile: float = 0.75

    def __post_init__(self) -> None:
        _check_positive("threshold", self.threshold)
        _check_positive("most", self.most)
        _check_positive("quantile", self.quantile, most=1.0)

    @property
    def limit(self) -> float:
        """The most that `quantity` may be: 1."""
        return 1.0

    def quantity(self, reading: Reading) -> float:
        """The variance or the drift as a multiple of its limit, the larger of both."""
        drift = _moved_by(_known_drifts(reading, "numel"), self.quantile)
        parts = reading.inverse_root_variance / self.threshold, drift / self.most
        return math.nan if any(map(math.isnan, parts)) else max(parts)

    def __call__(self, reading: Reading) -> bool:
        """Whether the reading counts as settled."""
        return self.quantity(reading) <= 1.0


CRITERIA: dict[str, Callable[..., Criterion]] = {
    "steady": Steady,
    "inverse_root_variance": InverseRootVariance,
    "drift": Drift,
    "norm_ratio": NormRatio,
    "effective_sample_size": EffectiveSampleSize,
    "update_rms": UpdateRMS,
}
"""All criteria by name; the first one is the default."""


def _check_positive(name: str, value: object, most: float = math.inf) -> None:
    """Raises an error that names the constant, unless it is in (0, most]."""
    allowed = "a finite number > 0" if most == math.inf else f"in (0, {most:g}]"
    # For Python a bool is an int too, but here it is a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {allowed}, got {value!r}.")
    if not 0.0 < value <= most or value == math.inf:
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises an error that names the constant, unless it is one of the choices."""
    if value not in choices:
        allowed = ", ".join(map(str, choices))
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}.")


def _known_drifts(reading: Reading, by: Weight) -> list[tuple[float, int]]:
    """The size of each drift that is known, and its weight."""
    return [
        (abs(drift), size if by == "numel" else 1)
        for drift, size in zip(reading.drifts, reading.sizes, strict=True)
        if not math.isnan(drift)
    ]


def _moved_by(known: list[tuple[float, int]], quantile: float) -> float:
    """The most that this share of the weight has moved; nan if nothing is known."""
    needed, quiet = quantile * sum(weight for _, weight in known), 0
    for drift, weight in sorted(known):
        quiet += weight
        if 0 < quiet >= needed:
            return drift
    return math.nan


def name_of(criterion: Criterion) -> str:
    """Name under which a criterion is recorded: of a function, or with constants."""
    return getattr(criterion, "__name__", None) or repr(criterion)
