"""How long and how far: a mode with its length, start and offset, checked once.

It knows numbers, not optimizers. The length and the start of a single param group come
in as arguments.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

from warmopt._pace import Pace, Ramp
from warmopt._tell import tell
from warmopt._words import did_you_mean
from warmopt.adaptive import Adaptive
from warmopt.aligned import Aligned
from warmopt.shapes import MODES, FixedMode, Shape, exponential, last_update

__all__ = ["MOST_UPDATES", "ModeLike", "ModeName", "Schedule"]

MOST_UPDATES = 2**53  # beyond, float64 cannot count
LIKE_AN_LR = 1e-5  # a factor that is so small was probably meant as an LR
ModeName = Literal[FixedMode, "adaptive", "aligned"]
ModeLike = ModeName | Pace | Callable[..., float]


PACES: dict[str, Callable[[], Pace]] = {"adaptive": Adaptive, "aligned": Aligned}
"""The modes that are not a shape, but a way to walk one."""


class Schedule:
    """The factor of each update, from the arguments of `Warmed`.

    Attributes:
        mode: Name of the mode. For a function it is the function's own name.
        pace: How the ramp is walked.
        shape: The formula of the ramp, (update, steps, start) -> factor.
        steps: Length in updates; None if each group takes it from its beta2.
        start: Factor at update 0, dimensionless.
        offset: Number of updates at the beginning that run at `start`.
        total_steps: Updates of the whole run, of which a ratio is a share.
        steps_from_beta2: Rule that gives the length if `steps` is None.
    """

    def __init__(
        self,
        mode: str | Pace | Callable[..., float],
        steps: float | None,
        start: float | None = None,
        offset: int = 0,
        total_steps: int | None = None,
    ) -> None:
        self.pace, shape = _pace_and_shape(mode)
        name, self.shape, self.steps_from_beta2, default_start = _resolved(shape)
        self.mode = self.pace.mode(name)
        if self.pace.is_cap and steps is None and self.steps_from_beta2 is None:
            self.steps_from_beta2 = MODES["untuned_linear"].steps_from_beta2
        if total_steps is not None and not (_is_int(total_steps) and total_steps > 0):
            raise _wrong("total_steps", total_steps, "a positive int")
        if not (_is_int(offset) and offset >= 0):
            raise _wrong("offset", offset, "an int of updates, >= 0")
        self.total_steps = total_steps
        self.offset = int(offset)
        if offset:
            self.check_has_start("offset", offset)
        self.steps = self._checked_length(steps)
        if start is None:
            start = default_start or 0.0
        else:
            self.check_has_start("start", start)
        self.start = self.checked_start("start", start)
        if 0.0 < self.start <= LIKE_AN_LR and self.shape is not exponential:
            tell(
                f"start={start:g} is a factor of the LR, not an LR. If you meant an "
                f"LR, pass start={start:g} / lr."
            )

    def check_has_start(self, name: str, value: Any) -> None:
        """Raises a TypeError that begins with `name` if the ramp's start has no use."""
        if not self.pace.has_start:
            raise TypeError(
                f"{name} must be left out with mode={self.mode!r}, which has its own "
                f"start, got {value!r}. Use mode={type(self.pace).__name__}(start=...)."
            )

    def _checked_length(self, steps: float | None) -> int | None:
        """Returns `steps` in updates; None where the length follows from beta2."""
        if self.steps_from_beta2 is None:
            if steps is None:
                raise TypeError(
                    f"steps must be given with mode={self.mode!r}, got None. Pass the "
                    "length in updates, or mode='untuned_linear' to take it from beta2."
                )
            return self.checked_steps("steps", steps)
        if steps is not None:
            raise TypeError(
                f"steps must be left out with mode={self.mode!r}, which takes the "
                f"length from beta2, got {steps!r}. To set the length, use "
                "mode='linear' or mode='saturating'."
            )
        return None

    def ramp(self, steps: float, start: float) -> Ramp:
        """A ramp of this shape, with a length in updates and a factor at update 0."""
        return Ramp(self.shape, steps, start, self.offset, self.last_update(steps))

    def factor(self, update: float, steps: float, start: float) -> float:
        """Factor of an update (the first is 1) in a ramp of `steps` from `start`."""
        return self.ramp(steps, start).factor(update)

    def last_update(self, steps: float) -> int:
        """Update after which a ramp of `steps` is over; 0 where there is none."""
        return last_update(self.shape, steps) + self.offset if steps else 0

    def checked_steps(self, name: str, steps: Any) -> int:
        """Returns a length in updates, from an int or a ratio; `name` is for errors."""
        if _is_number(steps) and 0 < steps < 1:
            if self.total_steps is None:
                raise TypeError(
                    f"total_steps must be given where {name} is a ratio, got {name}="
                    f"{steps!r}. Pass the updates of the whole run, or an int length."
                )
            steps = max(1, round(float(steps) * self.total_steps))
        if not (_is_int(steps) and 0 <= steps <= MOST_UPDATES):
            allowed = "an int of updates in [0, 2**53], or a ratio in (0, 1)"
            raise _wrong(name, steps, allowed)
        if self.total_steps is not None and steps > self.total_steps:
            raise ValueError(
                f"{name} must be at most total_steps, {self.total_steps}, got {steps}: "
                "the run would end before the warmup."
            )
        self.check_length(name, int(steps))
        return int(steps)

    def check_length(self, name: str, steps: float) -> None:
        """Raises a ValueError that begins with `name` if the shape refuses a length."""
        try:
            self.last_update(steps)
        except ValueError as error:
            prefix = "" if name == "steps" else f"{name}: "
            raise ValueError(f"{prefix}{error}") from None

    def checked_start(self, name: str, start: Any) -> float:
        """Returns a start factor as a float; `name` is for errors."""
        if not (_is_number(start) and 0.0 <= start <= sys.float_info.max):
            raise _wrong(name, start, "a finite number >= 0")
        if start == 0.0 and self.shape is exponential:
            raise _wrong(name, start, "> 0 with mode='exponential'")
        return float(start)


def _pace_and_shape(mode: Any) -> tuple[Pace, Any]:
    """The pace that a mode asks for, and the shape that it walks."""
    pace = PACES[mode]() if isinstance(mode, str) and mode in PACES else mode
    return (pace, pace.shape) if isinstance(pace, Pace) else (Pace(), mode)


class _Resolved(NamedTuple):
    """A shape as it was asked for: its name, its formula, and what it sets itself."""

    name: str
    shape: Shape
    steps_from_beta2: Callable[[float], float] | None
    default_start: float | None


def _resolved(mode: Any) -> _Resolved:
    if isinstance(mode, str) and mode in MODES:
        known = MODES[mode]
        default_start = _default_start(known.shape)
        return _Resolved(mode, known.shape, known.steps_from_beta2, default_start)
    if callable(mode):
        default_start = _default_start(mode)
        is_ours = any(mode is known.shape for known in MODES.values())
        takes_start = default_start is not None
        shape = mode if is_ours else partial(_checked, mode, takes_start)
        return _Resolved(_name(mode), shape, None, default_start)
    kind = ValueError if isinstance(mode, str) else TypeError
    raise kind(
        f"mode must be one of {', '.join(MODES)}, {', '.join(PACES)}, or a function of "
        f"(update, steps), got {mode!r}.{did_you_mean(str(mode), [*MODES, *PACES])}"
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _wrong(name: str, value: Any, allowed: str) -> Exception:
    """The error for a value of the wrong type, or of the right type but not allowed."""
    kind = ValueError if _is_number(value) else TypeError
    is_whole = isinstance(value, float) and value.is_integer() and value > 0
    remedy = f" Write {int(value)}." if is_whole and "int" in allowed.split() else ""
    return kind(f"{name} must be {allowed}, got {value!r}.{remedy}")


def _name(function: Any) -> str:
    """The name of a function as mode. It is stored, and the same in every process."""
    if isinstance(function, partial):
        options = [_name(value) for value in function.args]
        options += [f"{key}={_name(value)}" for key, value in function.keywords.items()]
        return f"{_name(function.func)}({', '.join(options)})"
    if isinstance(function, (bool, int, float, str)):
        return repr(function)
    return str(getattr(function, "__name__", type(function).__name__))


def _default_start(function: Callable[..., float]) -> float | None:
    """Default of the parameter `start`, 0 if it has none; None without parameter."""
    try:
        start = inspect.signature(function).parameters.get("start")
    except ValueError:  # a builtin without a signature
        start = None
    if start is None:
        return None
    return 0.0 if start.default in (start.empty, None) else float(start.default)


def _checked(
    function: Callable[..., float],
    takes_start: bool,
    update: float,
    steps: float,
    start: float,
) -> float:
    """A user's function as a shape. It refuses a factor that makes no sense."""
    if takes_start:
        factor = function(update, steps, start=start)
    else:
        factor = function(update, steps)
        if isinstance(factor, Real):
            factor = start + (1.0 - start) * factor
    # NaN fails the comparison too.
    if not (isinstance(factor, Real) and 0.0 <= factor < math.inf):
        raise ValueError(
            f"mode {_name(function)} must return a finite number >= 0, got {factor!r} "
            f"for update {update} of {steps}."
        )
    return float(factor)
