"""One update of the wrapped optimizer, and the invariant that it keeps.

While an update is on, the learning rate of each warming param group is base x factor.
While it is off, it is the base again: the very object that the user or a scheduler has
put there. `scale_lr` multiplies, `put_back` puts the base back, and `count` counts the
update. There are two exceptions: `plain` does all of that faster in the usual case, and
the count of a tensor LR is moved on its device.

All that is scaled is noted before it is: so an interrupt at any line leaves nothing
scaled, and whoever saves the optimizer in the middle of a step sees the base values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from warmopt._keys import UPDATES, Group

__all__ = [
    "Flight",
    "Scaled",
    "Update",
    "as_scaled",
    "at_rest",
    "count",
    "momentum_key",
    "put_back",
    "scale_lr",
    "scale_momentum",
    "uncount",
]


Scaled = tuple[Group, str, Any, Any, Any, int]
"""A value of a param group while it is scaled: (group, key, base value, scaled value,
factor, the new count of the group if the step is done or 0 if it is not counted).

It is a plain tuple, since one is made for each group at each step.
"""

Flight = list[Scaled] | tuple[Any, ...]
"""All that is scaled now. A plain step notes it as a tuple, which is made faster:
(groups, their base LRs, factor, count before the step). If a fifth entry follows, only
the groups that have it as their LR are scaled so far.
"""


def scale_lr(group: Group, factor: Any, update: int, scaled: list[Scaled]) -> None:
    """Multiplies the LR of a group by its factor. First it notes that in `scaled`.

    A tensor is replaced, never written to: optimizers and groups may share it.
    """
    base = group["lr"]
    value = base * factor
    scaled.append((group, "lr", base, value, factor, update))
    group["lr"] = value


def scale_momentum(group: Group, factor: float, scaled: list[Scaled]) -> None:
    """Multiplies the momentum of a group, if it has one, and notes that in `scaled`."""
    if key := momentum_key(group):
        base = group[key]
        value = (base[0] * factor, *base[1:]) if key == "betas" else base * factor
        scaled.append((group, key, base, value, factor, 0))
        group[key] = value


def as_scaled(flight: Flight | None) -> list[Scaled]:
    """What is scaled, one by one; of a list, the list itself."""
    if flight is None:
        return []
    if isinstance(flight, list):
        return flight
    groups, bases, factor, done, *marks = flight
    return [
        (group, "lr", base, base * factor, factor, done + 1)
        for group, base in zip(groups, bases, strict=False)
        if not marks or group["lr"] is marks[0]
    ]


def at_rest(now: Any, key: str, base: Any, value: Any, factor: Any) -> Any:
    """The base of an entry of a group that is scaled, and is `now`.

    An LR that is neither the base nor the scaled value was written by the optimizer as
    it stepped, in effective units. Then the base becomes what it wrote / factor. (What
    it writes into a tensor in place is lost. To see that, the host would have to wait
    for the device.)
    """
    if now is value or now is base:
        return base
    # A tensor is not compared, for the same reason.
    is_same = not isinstance(now, Tensor) and now == value
    if is_same or (key == "lr" and not factor):
        return base
    return now / factor if key == "lr" else now


def put_back(scaled: list[Scaled]) -> None:
    """Puts the base values back. It may be interrupted, and called again."""
    for index, (group, key, base, value, factor, update) in enumerate(scaled):
        now = group[key]
        if now is value:
            group[key] = base
        elif now is not base:
            base = at_rest(now, key, base, value, factor)
            # Noted first: what an optimizer wrote must not be divided twice.
            scaled[index] = group, key, base, value, factor, update
            group[key] = base


def count(scaled: Iterable[Scaled]) -> None:
    """Counts the update in each group. It may be interrupted, and called again."""
    for group, *_, update in scaled:
        if update:
            group[UPDATES] = update


def uncount(scaled: Iterable[Scaled]) -> None:
    """Sets the counts back to what they were before the update."""
    for group, *_, update in scaled:
        if update:
            group[UPDATES] = update - 1


def momentum_key(group: Group) -> str | None:
    """Where a group keeps its momentum; None if it has none, or one that is 0.

    A momentum is a float, or the first of betas.
    """
    for key, momentum in (
        ("momentum", group.get("momentum")),
        ("betas", (group.get("betas") or (None,))[0]),
    ):
        if isinstance(momentum, float) and momentum:
            return key
    return None


class Scaling(Protocol):
    """What an update needs to have scaled and counted: the planner does it.

    Attributes:
        in_flight: What is scaled now; None while the update is off.
    """

    in_flight: Flight | None

    def scale(self, wrapped: Optimizer) -> None:
        """Scales what is planned; `in_flight` holds what was done, even if it fails."""

    def rest(self, counts: bool) -> None:
        """Puts back what is scaled; counts the update, or leaves the count as it was.

        If nothing is scaled, it does nothing.
        """


class Update:
    """Runs one step of the wrapped optimizer, at the effective learning rate.

    User code that is called in between, a closure or a step hook, runs at the base LR:
    the update is off there, and on again after it.
    """

    def __init__(self, wrapped: Optimizer, scaling: Scaling) -> None:
        self._wrapped, self._scaling = wrapped, scaling
        self._depth = 0

    def run(
        self,
        step: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_hooked: bool,
    ) -> Any:
        """Runs the step, and returns what it returns.

        Args:
            step: The step of the wrapped optimizer.
            args: Its arguments. A closure in them is run at the base LR.
            kwargs: Likewise.
            is_hooked: Whether the step runs hooks of the user.
        """
        scaling = self._scaling
        if args or kwargs:
            args, kwargs = self._with_closure_off(args, kwargs)
        try:
            if is_hooked:
                self._add_hooks()
            else:
                scaling.scale(self._wrapped)
            result = step(*args, **kwargs)
            if is_hooked:
                self._remove_hooks()
            scaling.rest(counts=True)
        except BaseException:
            # An interrupt may come at any line, so what was begun may be unfinished.
            if is_hooked:
                self._remove_hooks()
            scaling.rest(counts=False)
            raise
        return result

    # --- hooks are user code: they see the base LR -----------------------------------

    def _add_hooks(self) -> None:
        """Makes sure that the step is scaled only between the hooks of the user.

        Our last hook before the step turns the update on. Our first hook after it turns
        it off and counts it, so that hooks of the user see the new count.
        """
        self._wrapped.register_step_pre_hook(self._before)
        handle = self._wrapped.register_step_post_hook(self._after)
        # torch cannot register a step hook in front of the others.
        hooks: Any = getattr(self._wrapped, "_optimizer_step_post_hooks")  # noqa: B009
        hooks.move_to_end(handle.id, last=False)

    def _remove_hooks(self) -> None:
        # Not by their handles, since an interrupt may come before we have those.
        for kind in ("pre", "post"):
            hooks = getattr(self._wrapped, f"_optimizer_step_{kind}_hooks")
            for key, hook in list(hooks.items()):
                if hook in (self._before, self._after):
                    del hooks[key]

    # If a class calls the step of its parent, its hooks run twice: the depth finds the
    # outer ones.

    def _before(self, *_: Any) -> None:
        self._depth += 1
        if self._depth == 1:
            self._scaling.scale(self._wrapped)

    def _after(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._scaling.rest(counts=True)

    # --- and so is a closure ---------------------------------------------------------

    def _with_closure_off(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args and callable(args[0]):
            return (self._while_off(args[0]), *args[1:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._while_off(kwargs["closure"])}
        return args, kwargs

    def _while_off(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        scaling = self._scaling

        @functools.wraps(closure)
        def while_off(*args: Any, **kwargs: Any) -> Any:
            was_on = scaling.in_flight is not None
            scaling.rest(counts=False)
            loss = closure(*args, **kwargs)
            if was_on:
                scaling.scale(self._wrapped)
            return loss

        return while_off
