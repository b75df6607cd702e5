"""`Warmed`: the wrapper that scales the learning rate while the optimizer steps.

The one invariant: outside `step()`, `group["lr"]` is exactly what the user or the
scheduler set; only while the wrapped optimizer steps is it that value x factor.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from warmopt.clock import DONE, STATE, UPDATES, Clock
from warmopt.couplings import check_coupling, check_first_lr
from warmopt.group_lr import Group, Scaled, momentum_key, restore, scale
from warmopt.schedule import ModeLike, Schedule

__all__ = ["Warmed"]


def _delegated(name: str) -> Any:
    """An attribute, read, set and deleted, of the wrapped optimizer."""
    return property(
        lambda self: getattr(self.wrapped, name),
        lambda self, value: setattr(self.wrapped, name, value),
        lambda self: delattr(self.wrapped, name),
    )


class _Memo:
    """What may be forgotten; in one object, since frameworks copy our attributes."""

    def __init__(self) -> None:
        self.groups_done = -1  # how many there are, once the warmup of all is over
        self.last: Scaled = []  # of the last step, for get_last_lr


class _LoadWatch:
    """The load hooks on the wrapped optimizer, which may be pickled with it.

    They hold the wrapper weakly: an abandoned or copied one must not act.
    """

    def __init__(self, warmed: Warmed | None = None) -> None:
        self._warmed = (lambda: None) if warmed is None else weakref.ref(warmed)

    def __reduce__(self) -> tuple[type[_LoadWatch], tuple[()]]:
        return _LoadWatch, ()

    def before(self, _: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any] | None:
        warmed = self._warmed()
        return None if warmed is None else warmed._before_load(state_dict)

    def after(self, _: Optimizer) -> None:
        if (warmed := self._warmed()) is not None:
            warmed._after_load()


class Warmed(Optimizer):
    r"""Warms up the learning rate of any optimizer.

    While it warms, every `step()` runs the wrapped optimizer with the LR of each
    param group multiplied by a factor, and then puts the LR back:

    .. math:: \text{effective LR}_t = \text{base LR}_t \cdot f(t)

    So schedulers, loggers, scalers and checkpoints go on as if it were not there, on
    either object, made in any order. Everything but the step is the wrapped
    optimizer's own. When the warmup is over, `step()` only passes on.

    An update of a group is a step that really moved it. These are not counted: a step
    that `torch.amp.GradScaler` skips, a step at base LR 0, a step while no parameter
    of the group requires grad. A group added later starts its own warmup.

    Args:
        optimizer: The optimizer to wrap. It is left as it is, but for the state of the
            warmup in its param groups (`warmup_updates`, `warmup_done`,
            `warmup_mode`, `warmup_length`), which is saved and loaded with it. Where
            that state is already there, from a checkpoint, the warmup goes on from it.
        steps: Length in updates: the factor of update t, counted from 1, is t / steps
            for the linear shape, so the first update is not lost and update `steps`
            runs at the full LR. A float in (0, 1) is that share of `total_steps`.
            0 is no warmup. Left out for the modes that take it from beta2.
        mode: Name of a shape (see `warmopt.shapes`), or a pure function
            (update, steps) -> factor, called for update = 1 to steps.
        start: Factor at update 0, dimensionless; above 1 the LR warms down. By default
            that of the shape: 0; 0.01 for exponential; 1/3 for constant.
        offset: Updates, the first of all, that run at `start` before the ramp.
        total_steps: Updates of the whole run. Only needed for a ratio.
        momentum_start: Factor of the momentum at update 0, in [0, 1]. If given, the
            momentum (`momentum`, or the first of `betas`) warms like the LR.

    A param group may hold a `warmup_steps` and a `warmup_start` of its own. If the
    wrapped optimizer has an option of that name, ours is `warmopt_steps` (`_start`).

    Raises:
        TypeError: An argument is of the wrong type, or `steps` is missing.
        ValueError: A value is not allowed, a group has no LR, or an untuned mode
            finds no beta2. The optimizer is then as it was.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = Warmed(torch.optim.SGD([weight], lr=1.0), steps=4)
        >>> for _ in range(3):
        ...     weight.grad = torch.ones(1)
        ...     optimizer.step()
        ...     print(optimizer.param_groups[0]["lr"], optimizer.get_last_lr())
        1.0 [0.25]
        1.0 [0.5]
        1.0 [0.75]
        >>> weight
        Parameter containing:
        tensor([-1.5000], requires_grad=True)
    """

    param_groups = _delegated("param_groups")
    state = _delegated("state")
    defaults = _delegated("defaults")
    # GradScaler sets and deletes these on the object that it is given.
    grad_scale = _delegated("grad_scale")
    found_inf = _delegated("found_inf")
    _step_supports_amp_scaling = _delegated("_step_supports_amp_scaling")

    # Optimizer.__init__ is not called: it would make groups, state and hooks of our
    # own, and hook `step` a second time. Hooks are found by __getattr__.
    def __init__(
        self,
        optimizer: Optimizer,
        steps: float | None = None,
        mode: ModeLike = "linear",
        *,
        start: float | None = None,
        offset: int = 0,
        total_steps: int | None = None,
        momentum_start: float | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "optimizer must be a torch.optim.Optimizer, got "
                f"{type(optimizer).__name__}. Build it first, then wrap it: "
                "Warmed(torch.optim.AdamW(model.parameters()), steps=1000)."
            )
        if isinstance(optimizer, Warmed):
            raise ValueError(
                "optimizer must not be Warmed already, got a Warmed around "
                f"{type(optimizer.wrapped).__name__}. Call its rewarm() to warm again."
            )
        check_coupling(optimizer)
        schedule = Schedule(mode, steps, start, offset, total_steps)
        if momentum_start is not None:
            momentum_start = _checked_momentum(momentum_start, schedule, optimizer)
        clock = Clock(schedule, optimizer)
        for index, group in enumerate(optimizer.param_groups):
            clock.check_new(group, f"param group {index}")

        self.wrapped: Optimizer = optimizer
        self._clock = clock
        self._momentum_start = momentum_start
        self._memo = _Memo()
        self._enrol_groups()
        self._watch_loads()

    # --- the step -----------------------------------------------------------------

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the wrapped optimizer's `step`, at the effective LR while warming.

        Args, return value and grad mode are the wrapped optimizer's. A closure sees
        the base LR. After an exception, LR and count are what they were.
        """
        self._opt_called = True  # for the order check of torch's schedulers
        wrapped = self.wrapped
        if self._memo.groups_done == len(wrapped.param_groups):
            return wrapped.step(*args, **kwargs)

        scaled: Scaled = []
        if args and callable(args[0]):
            args = (self._at_base_lr(args[0], scaled), *args[1:])
        elif callable(kwargs.get("closure")):
            kwargs["closure"] = self._at_base_lr(kwargs["closure"], scaled)
        try:
            if _has_step_hooks(wrapped):
                result = self._step_inside_hooks(args, kwargs, scaled)
            else:
                self._scale_groups(scaled)
                result = wrapped.step(*args, **kwargs)
        finally:
            restore(scaled)
        self._memo.last = scaled or self._memo.last
        self._count_update()
        return result

    # The wrapped step is hooked and profiled already; schedulers need not patch ours.
    step.hooked = True  # type: ignore[attr-defined]
    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    def _scale_groups(self, scaled: Scaled) -> None:
        """Multiplies the LR of each warming group, and its momentum, by its factor."""
        clock, seen, factor = self._clock, None, 1.0
        for group in self.wrapped.param_groups:
            if group.get(DONE) is False or clock.is_warming(group):
                now = clock.read(group)
                if now != seen:  # groups that began together share one factor
                    seen, factor = now, clock.schedule.factor(*now)
                    if now[0] == 1:
                        check_first_lr(self.wrapped, group)
                scale(group, "lr", factor, scaled)
                if self._momentum_start is not None and (key := momentum_key(group)):
                    update, steps, _ = now
                    warmed = clock.schedule.factor(update, steps, self._momentum_start)
                    scale(group, key, min(warmed, 1.0), scaled)

    def _step_inside_hooks(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], scaled: Scaled
    ) -> Any:
        """The step where it has hooks, which are user code: they run at the base LR.

        So the LR is scaled by the last hook before the step, and put back by the first
        one after it. A class whose step calls that of its parent runs its hooks twice.
        """
        wrapped, depth = self.wrapped, 0

        def enter(*_: Any) -> None:
            nonlocal depth
            depth += 1
            if depth == 1:
                self._scale_groups(scaled)

        def leave(*_: Any) -> None:
            nonlocal depth
            depth -= 1
            if depth == 0:
                restore(scaled)
                self._memo.last = scaled[:]
                scaled.clear()

        handles = (
            wrapped.register_step_pre_hook(enter),
            wrapped.register_step_post_hook(leave),
        )
        # torch lets only other kinds of hooks be prepended.
        wrapped._optimizer_step_post_hooks.move_to_end(handles[1].id, last=False)  # type: ignore[attr-defined]
        try:
            return wrapped.step(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()

    def _at_base_lr(
        self, closure: Callable[..., Any], scaled: Scaled
    ) -> Callable[..., Any]:
        """The closure, which is user code, with the base LR in force while it runs."""

        @functools.wraps(closure)
        def at_base_lr(*args: Any, **kwargs: Any) -> Any:
            restore(scaled)
            scaled.clear()
            loss = closure(*args, **kwargs)
            self._scale_groups(scaled)
            return loss

        return at_base_lr

    def _count_update(self) -> None:
        """Counts the update for every group that it really moved."""
        found_inf = getattr(self.wrapped, "found_inf", None)
        if found_inf is not None and found_inf.item():
            return  # a fused kernel has skipped the update
        for group in self.wrapped.param_groups:
            if group.get(DONE) is False and group["lr"] != 0:
                for param in group["params"]:
                    if param.requires_grad:
                        if self._clock.count(group):
                            self._note_done()
                        break

    # --- groups -------------------------------------------------------------------

    def _enrol_groups(self) -> None:
        for group in self.wrapped.param_groups:
            self._clock.enrol(group)
        self._note_done()

    def _note_done(self) -> None:
        """Notes whether all groups are done, which is what ends the work of `step`."""
        self._memo.groups_done = len(self.wrapped.param_groups) if self.done else -1

    def add_param_group(self, param_group: Group) -> None:
        """Adds a group to the wrapped optimizer; it warms from its own first update.

        Raises:
            TypeError: A value of the warmup in the group is of the wrong type.
            ValueError: Such a value is not allowed. The group is not added then.
        """
        if isinstance(param_group, dict):
            index = len(self.wrapped.param_groups)
            whole = {**self.wrapped.defaults, **param_group}
            self._clock.check_new(whole, f"param group {index}")
        self.wrapped.add_param_group(param_group)
        self._enrol_groups()

    def rewarm(
        self, steps: float | None = None, groups: Sequence[int] | None = None
    ) -> None:
        """Warms up again, from the next update on.

        For use after a loss spike, a reset of the optimizer state, an unfreeze, or at
        the start of a resumed pretraining. The LR itself is not touched.

        Args:
            steps: Length in updates, or a ratio of `total_steps`; it is saved with the
                groups. By default that of the last time.
            groups: Indices into `param_groups`. By default all.

        Raises:
            TypeError: `steps` is of the wrong type.
            ValueError: `steps` is not allowed.
            IndexError: There is no such group. Nothing is changed by any of these.
        """
        live = self.wrapped.param_groups
        chosen = dict(enumerate(live))
        if groups is not None:
            allowed = range(-len(live), len(live))
            if wrong := [index for index in groups if index not in allowed]:
                raise IndexError(
                    f"groups must be indices of the {len(live)} param groups, got "
                    f"{wrong[0]!r}."
                )
            chosen = {index: live[index] for index in groups}
        if steps is not None:
            steps = self._clock.schedule.checked_steps("steps", steps)
        for index, group in chosen.items():
            self._clock.check(group, f"param group {index}")
        for group in chosen.values():
            self._clock.restart(group, steps)
        self._memo.last = []
        self._note_done()

    # --- what users ask -----------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the warmup of every group is over."""
        return not any(map(self._clock.is_warming, self.wrapped.param_groups))

    @property
    def factors(self) -> list[float]:
        """Factor of each group's next update, dimensionless; 1 when it is over."""
        return list(map(self._clock.factor, self.wrapped.param_groups))

    def get_last_lr(self) -> list[Any]:
        """Effective LR of each group: what the wrapped optimizer used in the last step.

        Before the first step it is the LR which that step will use; after the warmup
        it is `group["lr"]` as it stands. A tensor LR gives a tensor.
        """
        groups = self.wrapped.param_groups
        if self._memo.groups_done == len(groups):
            return [group["lr"] for group in groups]
        scaled = self._memo.last
        used = {id(group): lr for group, key, _, lr, _ in scaled if key == "lr"}
        return [
            used.get(id(group), group["lr"] * factor)
            for group, factor in zip(groups, self.factors, strict=True)
        ]

    def __repr__(self) -> str:
        states = list(map(self._clock.describe, self.wrapped.param_groups))
        if len(set(states)) > 1:
            states = [f"group {index}: {state}" for index, state in enumerate(states)]
        else:
            states = states[:1]
        lines = "\n    ".join([f"mode: {self._clock.schedule.mode}", *states])
        return f"Warmed (\n    {lines}\n) {self.wrapped!r}"

    # --- all else is the wrapped optimizer's --------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name == "wrapped" or name.startswith("__"):  # while it is being unpickled
            raise AttributeError(name)
        if hasattr(type(self), name):  # our own: let its own error come out
            return object.__getattribute__(self, name)
        return getattr(self.wrapped, name)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Resets the gradients of the wrapped optimizer's parameters."""
        self.wrapped.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state dict; its param groups hold the warmup."""
        return self.wrapped.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state dict, of a warmed or a bare optimizer, and goes on from there.

        Never warms again: see `rewarm`. A bare optimizer's leaves the warmup where it
        was, with a warning. A length that you pass to `Warmed` is code and holds; one
        that stands in a param group, and that of `rewarm`, is loaded with the group.

        Raises:
            TypeError: A value of the warmup is of the wrong type.
            ValueError: A value of the warmup is not allowed, or an unfinished warmup
                was begun with another mode. Nothing has been loaded then.
        """
        # Hooks do the same, but not every class runs them.
        self.wrapped.load_state_dict(self._before_load(state_dict))
        self._after_load()

    def __getstate__(self) -> dict[str, Any]:
        lost = ("step", "_memo")  # a patch by someone else; references to groups
        return {key: value for key, value in vars(self).items() if key not in lost}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _memo=_Memo())
        self._enrol_groups()
        self._watch_loads()

    # --- loading: checked before, completed from what is live ---------------------

    def _watch_loads(self) -> None:
        """Hooks the wrapped optimizer's loading, for when it is what loads."""
        if hasattr(self.wrapped, "_optimizer_load_state_dict_pre_hooks"):
            watch = _LoadWatch(self)
            self.wrapped.register_load_state_dict_pre_hook(watch.before)
            self.wrapped.register_load_state_dict_post_hook(watch.after)

    def _before_load(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Checks what is ours in the state; takes what it lacks from what is live."""
        clock = self._clock
        ours = (*STATE, clock.steps_key, clock.start_key)
        if "param_groups" not in state_dict:
            return state_dict  # of a class with a form of its own
        saved = list(state_dict["param_groups"])
        for index, group in enumerate(saved):
            clock.check(group, f"param group {index} of the loaded state")
        bare = False
        live = self.wrapped.param_groups
        # Where there are more of the one than of the other, torch will refuse.
        for index, (old, new) in enumerate(zip(live, saved, strict=False)):
            kept = {key: old[key] for key in ours if key in old and key not in new}
            saved[index] = {**new, **kept}
            bare = bare or UPDATES in kept
        if bare:
            warnings.warn(
                "The loaded state is of an optimizer without warmup: the warmup goes "
                "on from where it was. Call rewarm() to begin it anew.",
                stacklevel=3,
            )
        return {**state_dict, "param_groups": saved}

    def _after_load(self) -> None:
        self._memo.last = []
        self._enrol_groups()


def _has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether anyone hooks its step; no class without a place for hooks is hooked."""
    own = getattr(optimizer, "_optimizer_step_pre_hooks", None)
    return own is not None and bool(
        own
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )


def _checked_momentum(
    momentum_start: float, schedule: Schedule, optimizer: Optimizer
) -> float:
    """Returns the argument as a float, if there is a momentum for it to scale."""
    momentum_start = schedule.checked_start("momentum_start", momentum_start)
    if momentum_start > 1.0:
        raise ValueError(
            f"momentum_start must be in [0, 1], got {momentum_start}. It is a factor: "
            "for a momentum that rises from 0.8 to 0.9 pass 0.8 / 0.9."
        )
    if not any(map(momentum_key, optimizer.param_groups)):
        raise ValueError(
            f"momentum_start must be left out, got {momentum_start}: no param group of "
            f"{type(optimizer).__name__} has a momentum (looked for 'momentum' and "
            "'betas')."
        )
    return momentum_start
