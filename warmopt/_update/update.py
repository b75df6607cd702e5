"""One update of the wrapped optimizer, and the invariant that it keeps.

While an update is on, the learning rate of each warming param group is base x factor.
While it is off, it is the base again: the very object that the user or a scheduler has
put there. `scale_lr` multiplies, `Scaled.put_back` puts the base back, and
`Scaled.count` counts the update. There are two exceptions: `plain` does all of that
faster in the usual case, and the count of a tensor LR is moved on its device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from warmopt._keys import UPDATES, Group

__all__ = [
    "Scaled",
    "Update",
    "momentum_key",
    "put_back",
    "scale_lr",
    "scale_momentum",
]


@dataclass(slots=True)
class Scaled:
    """A value of a param group that is scaled now.

    Attributes:
        group: The param group.
        key: Its key: that of an LR, or of a momentum.
        base: The value that the user has set. A tensor is replaced, never written to:
            optimizers and groups may share it.
        value: The scaled value.
        factor: What the base was multiplied by.
        update: The new count of the group if the step is done; 0 if it is not counted.
    """

    group: Group
    key: str
    base: Any
    value: Any
    factor: Any
    update: int = 0

    def apply(self) -> None:
        """Puts the scaled value into the group."""
        self.group[self.key] = self.value

    def put_back(self) -> None:
        """Puts the base value back.

        An LR that is neither the base nor the scaled value was written by the optimizer
        as it stepped, in effective units. Then the base becomes what it wrote / factor.
        (What it writes into a tensor in place is lost. To see that, the host would have
        to wait for the device.)
        """
        now = self.group[self.key]
        if now is self.value:
            self.group[self.key] = self.base
        elif now is not self.base:
            # A tensor is not compared: the host would have to wait for the device.
            is_same = not isinstance(now, Tensor) and now == self.value
            if is_same or (self.key == "lr" and not self.factor):
                self.group[self.key] = self.base
            elif self.key == "lr":
                self.group[self.key] = now / self.factor

    def count(self) -> None:
        """Counts the update in the group."""
        if self.update:
            self.group[UPDATES] = self.update


def scale_lr(group: Group, factor: Any, update: int, scaled: list[Scaled]) -> None:
    """Multiplies the LR of a group by its factor. First it notes that in `scaled`."""
    base = group["lr"]
    scaled.append(Scaled(group, "lr", base, base * factor, factor, update))
    scaled[-1].apply()


def scale_momentum(group: Group, factor: float, scaled: list[Scaled]) -> None:
    """Multiplies the momentum of a group, if it has one, and notes that in `scaled`."""
    if key := momentum_key(group):
        base = group[key]
        value = (base[0] * factor, *base[1:]) if key == "betas" else base * factor
        scaled.append(Scaled(group, key, base, value, factor))
        scaled[-1].apply()


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


def put_back(scaled: list[Scaled]) -> None:
    """Puts all base values back, and empties the list."""
    for each in scaled:
        each.put_back()
    scaled.clear()


class Scaling(Protocol):
    """What an update needs to have scaled and counted: the planner does it."""

    def scale(self, wrapped: Optimizer, scaled: list[Scaled]) -> None:
        """Scales what is planned; `scaled` holds what was done, even if it fails."""

    def count(self, scaled: list[Scaled]) -> None:
        """Counts the update, now or when it is known that it was not skipped."""


class Update:
    """Runs one step of the wrapped optimizer, at the effective learning rate.

    User code that is called in between, a closure or a step hook, runs at the base LR:
    the update is off there, and on again after it.
    """

    def __init__(self, wrapped: Optimizer, scaling: Scaling) -> None:
        self._wrapped, self._scaling = wrapped, scaling
        self._scaled: list[Scaled] = []
        self._is_on = False

    def on(self) -> None:
        """Multiplies: from here on the LR is base x factor."""
        self._is_on = True
        self._scaling.scale(self._wrapped, self._scaled)

    def off(self, counts: bool = False) -> None:
        """Puts the base values back, and counts the update if the step was done."""
        done = self._scaled[:]
        put_back(self._scaled)
        if counts and self._is_on:
            self._scaling.count(done)
        self._is_on = False

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
        if args or kwargs:
            args, kwargs = self._with_closure_off(args, kwargs)
        try:
            if is_hooked:
                result = self._run_between_hooks(step, args, kwargs)
            else:
                self.on()
                result = step(*args, **kwargs)
            self.off(counts=True)
        except BaseException:
            self.off()
            raise
        return result

    def _run_between_hooks(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs a step that has hooks, which are user code, at the base LR.

        The last hook before the step turns the update on. The first hook after it turns
        it off and counts it, so that hooks of the user see the new count. If a class
        calls the step of its parent, its hooks run twice: `depth` finds the outer ones.
        """
        wrapped, depth = self._wrapped, 0

        def before(*_: Any) -> None:
            nonlocal depth
            depth += 1
            if depth == 1:
                self.on()

        def after(*_: Any) -> None:
            nonlocal depth
            depth -= 1
            if depth == 0:
                self.off(counts=True)

        handles = []
        try:
            handles.append(wrapped.register_step_pre_hook(before))
            handles.append(wrapped.register_step_post_hook(after))
            # torch cannot register a step hook in front of the others.
            hooks: Any = getattr(wrapped, "_optimizer_step_post_hooks")  # noqa: B009
            hooks.move_to_end(handles[-1].id, last=False)
            return step(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()

    def _with_closure_off(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args and callable(args[0]):
            return (self._while_off(args[0]), *args[1:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._while_off(kwargs["closure"])}
        return args, kwargs

    def _while_off(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(closure)
        def while_off(*args: Any, **kwargs: Any) -> Any:
            was_on = self._is_on
            self.off()
            loss = closure(*args, **kwargs)
            if was_on:
                self.on()
            return loss

        return while_off
