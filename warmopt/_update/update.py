"""One update of the wrapped optimizer, and the invariant that it keeps.

While an update is on, the learning rate of each warming param group is base x factor.
While it is off, it is the base again: the very object that the user or a scheduler has
put there. `scale_lr` multiplies, `put_back` puts the base back, and `count`
counts the update. There are two exceptions: `plain` does all of that
faster in the usual case, and the count of a tensor LR is moved on its device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from warmopt._keys import UPDATES, Group

__all__ = [
    "Scaled",
    "Update",
    "count",
    "momentum_key",
    "put_back",
    "scale_lr",
    "scale_momentum",
]


Scaled = tuple[Group, str, Any, Any, Any, int]
"""A value of a param group while it is scaled: (group, key, base value, scaled value,
factor, the new count of the group if the step is done or 0 if it is not counted).

It is a plain tuple, since one is made for each group at each step.
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


def put_back(scaled: Iterable[Scaled]) -> None:
    """Puts the base values back.

    An LR that is neither the base nor the scaled value was written by the optimizer as
    it stepped, in effective units. Then the base becomes what it wrote / factor. (What
    it writes into a tensor in place is lost. To see that, the host would have to wait
    for the device.)
    """
    for group, key, base, value, factor, _ in scaled:
        now = group[key]
        if now is value:
            group[key] = base
        elif now is not base:
            # A tensor is not compared, for the same reason.
            is_same = not isinstance(now, Tensor) and now == value
            if is_same or (key == "lr" and not factor):
                group[key] = base
            elif key == "lr":
                group[key] = now / factor


def count(scaled: Iterable[Scaled]) -> None:
    """Counts the update in each group."""
    for group, *_, update in scaled:
        if update:
            group[UPDATES] = update


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
        self._scaled: list[Scaled] | None = None  # None while it is off

    def on(self) -> None:
        """Multiplies: from here on the LR is base x factor."""
        self._scaled = []
        self._scaling.scale(self._wrapped, self._scaled)

    def off(self, counts: bool = False) -> None:
        """Puts the base values back, and counts the update if the step was done."""
        if self._scaled is None:
            return
        put_back(self._scaled)
        if counts:
            self._scaling.count(self._scaled)
        self._scaled = None

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
            was_on = self._scaled is not None
            self.off()
            loss = closure(*args, **kwargs)
            if was_on:
                self.on()
            return loss

        return while_off
