"""Aligned warmup: the factor climbs as long as new gradients agree with the last step.

This is the only pace that depends on the learning rate: it may end below 1, and hold
there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from warmopt._climb import HOLDING, RAMPING, Climb, Limits, on_device, plain
from warmopt._keys import CLIMB, DONE, FACTOR, PHASE, RAMP_FROM, UPDATES, Group
from warmopt._pace import Pace, Ramp, Sampling
from warmopt.criteria import Reading

__all__ = ["Aligned", "Rule", "Signal"]

Rule = Literal["E1", "align"]
Signal = Literal["ratio", "tensor", "adam"]


@dataclass(frozen=True)
class Aligned(Pace):
    r"""Warms up as fast as fresh gradients agree with the last step, and holds there.

    Before an update, the new gradient is compared with the step before it, which gives
    an alignment a in [-1, 1]: 1 if the step was too short to change anything, 0 if it
    ended at the minimum along its line, below 0 if it went beyond that. Then

    .. math:: f \leftarrow \min(1, f e^{r(a)})

    from f = `start`. So you may give it an LR that is too high, up to about ten times
    what you think is right. `steps` of `Warmed` is only a cap. The warmup ends in one
    of three ways, as `done_reason` says:

    - "full": f has reached 1.
    - "held": no new best f (by 2 %) for `stall` updates, or the cap was reached. Then f
      is held for good, at its geometric mean over those updates: `factors` shows
      where, and a warning names the LR. When noise is all that is left, a is
      slightly negative at every useful LR. So a climb that did not end would sink.
    - "ramped": no signal, since the mean of the first 8 readings was below `threshold`,
      and again that of 8 more at a hundredth of `start` (an LR may be so hot that even
      `start` is too much). Then it is a plain ramp over what is left of `steps`.

    What fools it, measured or by its theory:

    - Gradients that are not fresh. With several updates on one batch, or with data in
      order, they agree too well, so it climbs too far.
    - Gradients that are only noise, as in fine-tuning with a fresh optimizer, or with
      tiny batches. It ramps then, or holds too low.
    - No momentum: with RMSprop, or Adam with beta1 = 0, it holds far too low.
    - An LR a hundred times too high: the damage of the first steps looks like noise, so
      it ramps.
    - It is greedy. At a low LR, a slow ramp may end better.
    - Tensors of which little is sampled, but on which much depends.
    - A batch size that changes: it changes the noise, and f is held already.

    Args:
        rule: r(a). "align" is in proportion: `gain` times a. "E1" is
            :math:`\text{gain} \cdot a / (1 - |a|)`. Both are at most `most`.
        signal: What is compared, on a sample of the elements. "ratio" is the share of
            the slope along the step that is left after it,
            :math:`\langle g', d\rangle / \langle g, d\rangle` with the step d, for any
            optimizer. "tensor" is the mean cosine of g' and d, tensor by tensor. "adam"
            is the cosine of g' and the momentum in Adam's metric, only for optimizers
            that keep both averages.
        gain: How fast it climbs. By default 0.15 for "E1"; for "align" 0.3, and 0.1 if
            the signal is "ratio", which is larger.
        most: The most that the logarithm of f may move at a reading. By default 0.5,
            and 0.1 if the signal is "ratio": it is near 1 where the LR is low, and
            a climb that is too fast is at the top before the trouble shows.
        start: The first f, in (0, 1).
        every: Updates between readings.
        lag: Updates until a reading is used: 1, or 0, for which the host waits for the
            device at every update. By default 1 with a float LR. With a tensor LR (and
            `every` 1) f lives on the device then and is used at once, also in a
            captured CUDA graph; but a `Trace` of it has no rows.
        stall: Updates without a new best f after which it holds.
        threshold: The least mean alignment that counts as a signal. By default 0.1, and
            0.3 if the signal is "ratio": in small trials this mean was above 0.5 from
            scratch, and at most 0.13 in fine-tuning.
        per_group: Whether each param group climbs alone. By default the groups that
            began together share one f, so the ratio of their LRs is kept.
        process_group: The ranks that hold the shards, as in `Adaptive`. The first
            reading after a resume is skipped then, and so it is with DTensors.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A value is not allowed.

    Example:
        >>> import torch
        >>> from warmopt import Warmed
        >>> weight = torch.nn.Parameter(torch.ones(4))
        >>> sgd = torch.optim.SGD([weight], lr=0.1)
        >>> optimizer = Warmed(sgd, steps=1000, mode="aligned")
        >>> while not optimizer.done:
        ...     optimizer.zero_grad()
        ...     weight.square().sum().backward()
        ...     optimizer.step()
        >>> optimizer.done_reason, optimizer.factors
        ('full', [1.0])

    Reference:
        Baydin et al., "Online Learning Rate Adaptation with Hypergradient Descent",
        2018, https://arxiv.org/abs/1703.04782. The differences: it is multiplicative,
        it is normalised, it ends, and your LR is its ceiling. The rules and their
        constants are ours.
    """

    rule: Rule = "align"
    signal: Signal = "ratio"
    gain: float | None = None
    most: float | None = None
    start: float = 0.01
    every: int = 1
    lag: int | None = None
    stall: int = 30
    threshold: float | None = None
    per_group: bool = False
    process_group: Any = None

    keys: ClassVar[tuple[str, ...]] = CLIMB
    is_cap: ClassVar[bool] = True
    has_start: ClassVar[bool] = False
    has_table: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, choices in (("rule", get_args(Rule)), ("signal", get_args(Signal))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got "
                    f"{getattr(self, name)!r}."
                )
        for name in ("every", "stall"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, got {value!r}.")
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
            object.__setattr__(self, name, int(value))  # numpy's are no plain numbers
        if self.lag not in (None, 0, 1) or isinstance(self.lag, bool):
            raise ValueError(f"lag must be 0, 1 or None, got {self.lag!r}.")
        for name in ("gain", "most", "start", "threshold"):
            value = getattr(self, name)
            if name != "start" and value is None:
                continue
            if not isinstance(value, Real) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number, got {value!r}.")
            least, most = -1.0 if name == "threshold" else 0.0, 1.0
            if not least < float(value) < most:
                raise ValueError(f"{name} must be in ({least:g}, 1), got {value!r}.")
            object.__setattr__(self, name, float(value))

    @functools.cached_property
    def limits(self) -> Limits:
        """The constants of the climb."""
        is_ratio = self.signal == "ratio"
        gain = 0.15 if self.rule == "E1" else 0.1 if is_ratio else 0.3
        return Limits(
            self.rule,
            gain if self.gain is None else self.gain,
            (0.1 if is_ratio else 0.5) if self.most is None else self.most,
            self.start,
            self.every,
            self.stall,
            (0.3 if is_ratio else 0.1) if self.threshold is None else self.threshold,
        )

    # --- what `Pace` asks ------------------------------------------------------------

    @property
    def on_device(self) -> bool:  # type: ignore[override]
        """Whether a tensor LR climbs on its device, where a reading is used at once."""
        return self.lag is None and self.every == 1

    @property
    def sampling(self) -> Sampling:
        """What is compared, and how often."""
        return Sampling(
            every=self.every,
            per_group=self.per_group,
            process_group=self.process_group,
            signal=self.signal,
            lag=1 if self.lag is None else self.lag,
        )

    def mode(self, shape: str) -> str:
        """The name of the mode, which is saved."""
        return "aligned"

    def begin(self, group: Group) -> None:
        """Starts at the bottom; a group that is done has nothing to climb."""
        start = 1.0 if group[DONE] else self.start
        is_on_device = self.on_device and isinstance(group["lr"], Tensor)
        for key, value in zip(CLIMB, Climb.begun(start), strict=True):
            known = plain(group.get(key, value))
            if not is_on_device:
                group[key] = known
            elif not isinstance(group.get(key), Tensor):
                group[key] = on_device(known, group["lr"].device)

    def check(self, group: Group, name: str) -> None:
        """Raises TypeError or ValueError if the state of the climb is wrong."""
        for key, value in zip(CLIMB, Climb.begun(self.start), strict=True):
            got = plain(group.get(key, value))
            if type(got) is not type(value):
                kind = type(value).__name__
                raise TypeError(f"{key} of {name} must be of type {kind}, got {got!r}.")
            if not math.isfinite(got):
                raise ValueError(f"{key} of {name} must be finite, got {got!r}.")
            if type(got) is int and got < 0:
                raise ValueError(f"{key} of {name} must be >= 0, got {got}.")
            if key == FACTOR and not 0.0 < got <= 1.0:
                raise ValueError(f"{key} of {name} must be in (0, 1], got {got}.")
            if key == PHASE and got > HOLDING:
                raise ValueError(f"{key} of {name} must be <= {HOLDING}, got {got}.")

    def follow(self, group: Group, ramp: Ramp) -> Callable[[int], float]:
        """Returns the function from an update to its factor."""
        start, last = ramp.start, ramp.last

        def factor(update: int) -> float:
            value = float(group[FACTOR])
            if group[PHASE] == RAMPING:
                begun = int(group[RAMP_FROM])
                share = (update - begun) / (last - begun) if update < last else 1.0
                value += (1.0 - value) * share
            return start + (1.0 - start) * value

        return factor

    def is_over(self, group: Group, ramp: Ramp) -> bool:
        """Whether it is full, holds, or has reached the cap."""
        phase = group.get(PHASE)
        if phase != RAMPING and (phase == HOLDING or group.get(FACTOR, 0.0) >= 1.0):
            return True
        return super().is_over(group, ramp)

    def held(self, group: Group) -> float:
        """The factor that is held; 1 at the end of a ramp."""
        if group.get(PHASE) == RAMPING:
            return 1.0
        return float(group.get(FACTOR, 1.0))

    def done_reason(self, group: Group, ramp: Ramp) -> str:
        """Returns "full", "held" or "ramped"; "cap" for a group of no length."""
        if not int(group[UPDATES]):
            return "cap"
        if group.get(PHASE) == RAMPING:
            return "ramped"
        return "full" if self.held(group) >= 1.0 else "held"

    def reads(self, group: Group) -> bool:
        """Whether it still climbs: a ramp needs no readings."""
        return bool(group[PHASE] != RAMPING)

    def judge(self, groups: Sequence[Group], reading: Reading) -> None:
        """Moves the factor; groups that share it have the same state."""
        first = groups[0]
        now = Climb(*map(first.__getitem__, CLIMB))
        done = int(first[UPDATES])
        after = now.after(reading.alignment, done, self.limits)
        for group in groups:
            group.update(zip(CLIMB, after, strict=True))
