"""`Warmed`: the wrapper that scales the learning rate while the optimizer steps.

It keeps one promise. Outside `step()`, `group["lr"]` is exactly what the user or the
scheduler has set. While the wrapped optimizer steps, it is that value x factor.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeGuard, TypeVar

from torch.optim import Optimizer

from warmopt._factory import factory
from warmopt._groups.loading import (
    Hooks,
    checked_and_completed,
    is_same_load,
    with_entries,
)
from warmopt._groups.ramps import Ramps
from warmopt._groups.schedule import ModeLike, ModeName, Schedule
from warmopt._groups.state import States
from warmopt._keys import UPDATES, Group, are_same
from warmopt._optimizers.couplings import check_coupling, has_stepped
from warmopt._optimizers.second_moments import check_has_second_moment
from warmopt._tell import tell
from warmopt._tools.svg import curve
from warmopt._update.compiling import stay_untraced
from warmopt._update.plain import UNUSUAL
from warmopt._update.planner import Planner
from warmopt._update.update import momentum_key
from warmopt._words import ATTRIBUTES, explains_arguments
from warmopt.adaptive import check_criterion
from warmopt.criteria import Criterion
from warmopt.joined import Joined
from warmopt.trace import Trace

__all__ = ["ModeLike", "ModeName", "Warmed"]

P = ParamSpec("P")
Q = ParamSpec("Q")
W = TypeVar("W")


def _delegated(name: str) -> Any:
    """An attribute of the wrapped optimizer, for reading, setting and deleting.

    It is looked up at each use, since `load_state_dict` and frameworks replace it.
    """
    return property(
        lambda self: getattr(self.wrapped, name),
        lambda self, value: setattr(self.wrapped, name, value),
        lambda self: delattr(self.wrapped, name),
    )


class Warmed(Optimizer):
    r"""Warms up the learning rate of any optimizer.

    While it warms, every `step()` runs the wrapped optimizer with the LR of each
    param group multiplied by a factor, and then puts the LR back:

    .. math:: \text{effective LR}_t = \text{base LR}_t \cdot f(t)

    So schedulers, loggers, scalers and checkpoints work as if it were not there. You
    can give them either object, in any order. Everything but the step is that of the
    wrapped optimizer. When the warmup is over, `step()` only calls the wrapped step (or
    goes on multiplying, if the factor is held below 1).

    Each param group counts its updates. Every step is an update, whether or not there
    are gradients. There are three exceptions: a step that `torch.amp.GradScaler` skips,
    a step at base LR 0, and a step of a frozen group, in which no parameter requires
    grad. If a group is frozen during its warmup, up to 8 more updates may be counted
    before that is noticed. A group added later starts its own warmup.

    Args:
        optimizer: The optimizer to wrap, or a list of several, which are then one (see
            `Joined`). Only the state of the warmup is added to the param groups
            (`warmup_updates`, `warmup_done`, `warmup_mode`, `warmup_length`), and it is
            saved and loaded with them. If that state is already there, from a
            checkpoint, the warmup goes on from it.
        steps: Length in updates: the factor of update t, counted from 1, is t / steps
            for the linear shape. So the first update is not wasted, and update `steps`
            runs at the full LR. A float in (0, 1) is that share of `total_steps`.
            0 means no warmup. Leave it out for the modes that take it from beta2.
        mode: Name of a shape (see `warmopt.shapes`), or a pure function
            (update, steps) -> factor, called for update = 1 to steps. Or "adaptive"
            (or an `Adaptive`): this warmup ends early once the second moment of Adam,
            RMSprop and the like hardly changes, and `steps` is the most it may take. Or
            "aligned" (or an `Aligned`): it climbs as long as new gradients agree with
            the last step, and may hold below the full LR for good.
        start: Factor at update 0, dimensionless. Above 1 the LR falls to its full
            value. By default that of the shape: 0; 0.01 for exponential; 1/3 for
            constant.
        offset: Number of updates at the beginning that run at `start`, before the ramp.
        total_steps: Updates of the whole run. Only needed for a ratio.
        momentum_start: Factor of the momentum at update 0, in [0, 1]. If given, the
            momentum (`momentum`, or the first of `betas`) warms like the LR.
        watch: Criteria (`warmopt.criteria`) that are only recorded, in any mode, on an
            optimizer with a second moment. In a fixed mode their window is not saved:
            in a resumed run it fills again.
        trace: A new `Trace` for the readings of an adaptive or watched warmup. If
            tensors are sharded, all ranks take a reading together, so all need one.

    Attributes:
        wrapped: The optimizer that is wrapped. If you step it alone, nothing warms.
        trace: The record of the readings; None if none was asked for.

    A param group may have its own `warmup_steps` and `warmup_start`. If the wrapped
    optimizer has an option of that name, use `warmopt_steps` and `warmopt_start`.

    Raises:
        TypeError: An argument is of the wrong type, or `steps` is missing.
        ValueError: A value is not allowed, a group has no LR, or an untuned mode
            finds no beta2. The optimizer is unchanged then.

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
    # For a fused optimizer, GradScaler sets this and found_inf on the object that it
    # steps, and deletes both after the step. The wrapped optimizer reads them.
    grad_scale = _delegated("grad_scale")

    @property
    def found_inf(self) -> Any:
        """Set by GradScaler: not 0 if the fused step must skip the update."""
        return getattr(self.wrapped, "found_inf")  # noqa: B009

    @found_inf.setter
    def found_inf(self, value: Any) -> None:
        setattr(self.wrapped, "found_inf", value)  # noqa: B010
        self._planner.found_inf = value
        self._planner.plain = None  # such a step is counted in another way

    @found_inf.deleter
    def found_inf(self) -> None:
        delattr(self.wrapped, "found_inf")
        self._planner.found_inf = None

    # Optimizer.__init__ is not called: it would make groups, state and hooks of our
    # own, and wrap `step` in torch's hooks a second time. Hooks that users register
    # here reach the wrapped optimizer by __getattr__.
    @explains_arguments
    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        steps: float | None = None,
        mode: ModeLike = "linear",
        *,
        start: float | None = None,
        offset: int = 0,
        total_steps: int | None = None,
        momentum_start: float | None = None,
        watch: Sequence[Criterion] = (),
        trace: Trace | None = None,
    ) -> None:
        if _is_several(optimizer):
            optimizer = Joined(optimizer)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "optimizer must be a torch.optim.Optimizer, got "
                f"{type(optimizer).__name__}. Build it first, then wrap it: "
                "Warmed(torch.optim.AdamW(model.parameters()), steps=1000)."
            )
        if isinstance(optimizer, Warmed):
            raise ValueError(
                "optimizer must not be Warmed already, got a Warmed around "
                f"{type(optimizer.wrapped).__name__}. Call its rewarm() to warm again, "
                "or wrap optimizer.wrapped to use other arguments."
            )
        schedule = Schedule(mode, steps, start, offset, total_steps)
        if momentum_start is not None:
            momentum_start = _checked_momentum(momentum_start, schedule, optimizer)
        watch = _checked_watch(watch)
        if not isinstance(trace, Trace | None):
            raise TypeError(f"trace must be a Trace, got {trace!r}. Use trace=Trace().")
        sampling = schedule.pace.sampling
        compares = sampling is not None and sampling.signal is not None
        if isinstance(optimizer, Joined) and (
            watch or sampling is not None or trace is not None
        ):
            raise ValueError(
                "optimizer must be a single one if its state is read (mode="
                f"{schedule.mode!r}, watch, trace), got {len(optimizer.optimizers)} "
                "joined. Use a fixed mode, or wrap each of them."
            )
        if watch or (not compares and (sampling is not None or trace is not None)):
            moment = sampling.second_moment if sampling is not None else None
            check_has_second_moment(optimizer, moment)
        ramps = Ramps(schedule, optimizer)
        states = States(ramps, optimizer)
        groups = optimizer.param_groups
        if any(map(states.may_warm, groups)):
            check_coupling(optimizer)
        for index, group in enumerate(groups):
            states.check_new(group, f"param group {index}")

        is_again = any(Hooks.found_on(optimizer))
        self.wrapped: Optimizer = optimizer
        self.trace = Trace() if trace is None and watch else trace
        self._ramps, self._states = ramps, states
        self._momentum_start, self._watch = momentum_start, watch
        self._start()
        if is_again and any(group.get(UPDATES) for group in groups):
            where = "; ".join(dict.fromkeys(map(ramps.describe, self._groups())))
            tell(
                f"{type(optimizer).__name__} was wrapped before, and its warmup goes "
                f"on: {where}. Call rewarm() to begin again."
            )

    @classmethod
    def of(
        cls: Callable[Concatenate[Optimizer, Q], W],
        optimizer: Callable[P, Optimizer | Sequence[Optimizer]],
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> Callable[P, W]:
        """A class that builds an optimizer and wraps it, to use in place of its class.

        Use it where other code takes a class and builds the optimizer itself: a config,
        the Trainer of transformers, an optimizer in the backward pass. It takes the
        arguments of the optimizer's class, and returns a `Warmed`. It can be pickled if
        the optimizer's class and the arguments below can be.

        Args:
            optimizer: The class of the optimizer, or a function that returns one.
            args: The arguments of `Warmed` after the optimizer.
            kwargs: Its keyword arguments.

        Raises:
            TypeError: `optimizer` cannot be called, or `Warmed` has no such argument.

        Example:
            >>> WarmedSGD = Warmed.of(torch.optim.SGD, steps=4)
            >>> optimizer = WarmedSGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
            >>> optimizer.get_last_lr()
            [0.25]
        """
        made: Callable[P, W] = factory(cls, optimizer, args, kwargs)
        return made

    def _start(self) -> None:
        self.__class__ = _named_after(_called(self), type(self.wrapped).__name__)
        stay_untraced()
        # In one object, since frameworks copy our attributes into others.
        self._planner = Planner(
            self._states,
            self._momentum_start,
            self._watch,
            self.trace,
            is_fresh=not has_stepped(self.wrapped),
        )
        self._planner.renew(self.wrapped)
        self._planner.guard = Hooks(self).register(self.wrapped)

    # --- the step -----------------------------------------------------------------

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the wrapped optimizer's `step`, at the effective LR during the warmup.

        Arguments, return value and grad mode are those of the wrapped optimizer. A
        closure sees the base LR. After an exception, the LR and the count are what they
        were before. But if a hook fails after the step was done, the update counts.
        """
        planner = self._planner
        # First the usual case. It returns UNUSUAL if it could not run the step.
        if planner.plain is not None and not (args or kwargs):
            result = planner.plain(planner, self.wrapped)
            if result is not UNUSUAL:
                return result
        # Then: is there nothing left to do? (As `are_same`, without a call.)
        wrapped = self.wrapped
        try:
            is_over = planner.passes_on == wrapped.param_groups
        except (RuntimeError, ValueError):
            is_over = False
        if is_over:
            if planner.is_asked:
                planner.note_lrs(wrapped.param_groups)
            return wrapped.step(*args, **kwargs) if args or kwargs else wrapped.step()
        self._opt_called = True  # torch's schedulers ask whether a step came first
        return planner.run(wrapped, args, kwargs)

    # torch wraps the `step` of each class in its hooks and its profiler, unless it is
    # marked as hooked. The wrapped step has both already.
    step.hooked = True  # type: ignore[attr-defined]
    # Schedulers patch `step` to see whether it was called, unless it is marked like
    # this. We set `_opt_called` ourselves instead.
    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    # --- groups -------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Adds a group to the wrapped optimizer. Its warmup starts at its first update.

        Raises:
            TypeError: A value of the warmup in the group is of the wrong type.
            ValueError: Such a value is not allowed. The group is not added then.
        """
        if isinstance(param_group, dict):
            index = len(self.wrapped.param_groups)
            whole = {**self.wrapped.defaults, **param_group}
            if self._states.may_warm(whole):
                self._check_before_the_first_warmup()
            self._states.check_new(whole, f"param group {index}")
        self._planner.catch_up(self.wrapped)  # the last step did not have the group
        self.wrapped.add_param_group(param_group)
        self._planner.renew(self.wrapped)

    def rewarm(
        self, steps: float | None = None, groups: Sequence[int] | None = None
    ) -> None:
        """Warms up again, from the next update on.

        Use it after a loss spike, a reset of the optimizer state, an unfreeze, or at
        the start of a continued pretraining. The LR itself is not touched.

        Args:
            steps: Length in updates, or a ratio of `total_steps`. It is saved with the
                groups. By default the length of the last warmup.
            groups: Indices into `param_groups`. By default all.

        Raises:
            TypeError: `steps` is of the wrong type.
            ValueError: `steps` is not allowed.
            IndexError: There is no such group. After an error nothing has changed.
        """
        live = self.wrapped.param_groups
        chosen = dict(enumerate(live))
        if groups is not None:
            groups = list(groups)
            allowed = range(-len(live), len(live))
            if wrong := [index for index in groups if index not in allowed]:
                raise IndexError(
                    f"groups must be indices of the {len(live)} param groups, got "
                    f"{wrong[0]!r}."
                )
            chosen = {index: live[index] for index in groups}
        states, planner = self._states, self._planner
        if steps is not None:
            steps = self._ramps.schedule.checked_steps("steps", steps)
        if steps:
            self._check_before_the_first_warmup()
        for index, group in chosen.items():
            states.check(group, f"param group {index}")
            states.rehearse_restart(group, steps, f"param group {index}")
        planner.catch_up(self.wrapped)  # the last update belongs to the warmup before
        for group in chosen.values():
            states.restart(group, steps)
        planner.forget()
        planner.renew(self.wrapped)

    def _check_before_the_first_warmup(self) -> None:
        """Asks whether a warmup does harm, if nothing has warmed (`steps=0`) so far."""
        if not any(UPDATES in group for group in self.wrapped.param_groups):
            check_coupling(self.wrapped)

    # --- what users ask -----------------------------------------------------------

    def _groups(self) -> list[Group]:
        """The param groups; of one that has not begun, a copy that has."""
        # Counts the last update, if the host has not waited for the GPU.
        self._planner.catch_up(self.wrapped)
        return list(map(self._states.begun, self.wrapped.param_groups))

    @property
    def done(self) -> bool:
        """Whether the warmup of every group is over.

        The warmup of a group that stays frozen, or at LR 0, never ends.
        """
        planner, groups = self._planner, self.wrapped.param_groups
        # Loops ask this at every update, so it does not ask every group if it can.
        if are_same(planner.warming, groups):
            return False
        if are_same(planner.passes_on, groups):
            return True
        return all(map(self._ramps.is_done, self._groups()))

    @property
    def done_reason(self) -> str | None:
        """Why the warmup ended: "settled" (early) or "cap". None while it goes on.

        In aligned mode it is "full", "held" or "ramped".
        """
        return self._ramps.done_reason(self._groups()) if self.done else None

    @property
    def factors(self) -> list[float]:
        """Factor of each group's next update, dimensionless; 1 when it is over."""
        return list(map(self._ramps.factor, self._groups()))

    def get_last_lr(self) -> list[Any]:
        """Effective LR of each group: what the wrapped optimizer used in the last step.

        Before the first step it is the LR that this step will use. A tensor LR gives a
        new tensor. After the warmup, a step remembers its LRs only if this was called
        before. So a first call at that time gives `group["lr"]` as it is.
        """
        planner, groups = self._planner, self.wrapped.param_groups
        planner.is_asked = True
        used = {id(group): lr for group, lr in planner.last_lrs()}
        if not all(id(group) in used for group in groups):
            for group, factor in zip(groups, self.factors, strict=True):
                used.setdefault(id(group), group["lr"] * factor)
        return [used[id(group)] for group in groups]

    def __repr__(self) -> str:
        lines = "\n    ".join(self._status())
        # What the lines say need not be printed a second time with the groups.
        wrapped = _without(self.wrapped, self._states.keys)
        return f"{_called(self).__name__} (\n    {lines}\n) {wrapped}"

    def _repr_html_(self) -> str:
        """Where the warmup stands, for notebooks: in words, and as a picture."""
        words = html.escape("\n".join([_called(self).__name__, *self._status()]))
        picture = ""
        for group in filter(self._ramps.is_warming, self._groups()):
            ramp = self._ramps.ramp(group)
            values = [ramp.factor(ramp.last * n / 60) for n in range(61)]
            picture = curve(values, min(int(group[UPDATES]) / ramp.last, 1.0))
            break  # the first group that warms
        return f"<pre>{words}</pre>{picture}"

    def _status(self) -> list[str]:
        """The mode, where each group stands, and what is watched."""
        states = list(map(self._ramps.describe, self._groups()))
        if len(set(states)) > 1:
            states = [f"group {index}: {state}" for index, state in enumerate(states)]
        else:
            states = states[:1]
        watchers = self._planner.watchers
        watched = [text for watcher in watchers if (text := watcher.describe())]
        return [f"mode: {self._ramps.schedule.mode}", *states, *watched]

    # --- all else is the wrapped optimizer's --------------------------------------

    def __getattr__(self, name: str) -> Any:
        # What we do not have is the wrapped optimizer's: `train` of a schedule-free
        # one, or the hooks. `wrapped` itself is missing while we are unpickled.
        if name == "wrapped" or name.startswith("__"):
            raise AttributeError(name)
        if hasattr(type(self), name):  # a property of ours has failed: show its error
            return object.__getattribute__(self, name)
        try:
            return getattr(self.wrapped, name)
        except AttributeError:
            if name not in ATTRIBUTES:
                raise
        wrapped = type(self.wrapped).__name__
        raise AttributeError(
            f"Warmed and {wrapped} have no {name!r}. Use {ATTRIBUTES[name]}.",
            name=name,
            obj=self,
        )

    def zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Resets the gradients of the wrapped optimizer's parameters."""
        self.wrapped.zero_grad(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The wrapped optimizer's state dict; its param groups hold the warmup.

        It may be taken at any time. In the middle of a step, for example by a signal
        handler, it has the base LR, and the count before the step.
        """
        self._before_save()  # hooks do the same, but not every class runs them
        state_dict = self.wrapped.state_dict(*args, **kwargs)
        return (
            state_dict
            if self._planner.in_flight is None
            else self._after_save(state_dict)
        )

    def load_state_dict(
        self, state_dict: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Loads a state dict of a warmed or a bare optimizer, and goes on from there.

        Loading never starts a warmup again: see `rewarm`. The state of a bare optimizer
        leaves the warmup where it was, with a warning. A length that you gave to
        `Warmed` stays. One in a param group, or from `rewarm`, is loaded with the
        group.

        Raises:
            TypeError: A value of the warmup is of the wrong type.
            ValueError: A value of the warmup is not allowed, or an unfinished warmup
                was begun with another mode. Nothing has been loaded then.
        """
        # The hooks on the wrapped optimizer do the same, and then there is nothing left
        # to do. But not every class runs them.
        loaded = self._before_load(state_dict)
        try:
            self.wrapped.load_state_dict(loaded, *args, **kwargs)
            self._after_load()
        finally:
            self._planner.loading = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (_called(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        # Not saved: a `step` that somebody has patched in, and what follows from the
        # groups.
        lost = ("step", "_planner")
        self._before_save()
        kept = {key: value for key, value in vars(self).items() if key not in lost}
        # In the middle of a step, the wrapped optimizer is saved as it is then.
        return {**kept, "_at_rest": self._planner.at_rest(self.wrapped.param_groups)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        entries = vars(self).pop("_at_rest")
        for group, own in zip(self.wrapped.param_groups, entries, strict=True):
            group.update(own)
        self._start()

    # --- what the hooks on the wrapped optimizer ask: see loading.Hooks -------------

    def _before_step_alone(self) -> bool:
        """Warns if the wrapped optimizer is stepped though it should warm up."""
        # torch.distributed.checkpoint makes a step at LR 0.
        if self.done or not any(group["lr"] for group in self.wrapped.param_groups):
            return False
        name = type(self.wrapped).__name__
        tell(
            f"{name} is stepped by itself, at its full LR. It only warms up in the "
            "step of the Warmed around it. Step that one, or build it with steps=0."
        )
        return True

    def _before_save(self) -> None:
        self._planner.catch_up(self.wrapped)

    def _after_save(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        entries = self._planner.at_rest(self.wrapped.param_groups)
        return with_entries(state_dict, entries)

    def _before_load(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        planner = self._planner
        if is_same_load(planner.loading, state_dict):
            return state_dict  # whichever object loads, it is checked once
        planner.catch_up(self.wrapped)
        live = self.wrapped.param_groups
        checked = checked_and_completed(state_dict, live, self._states)
        planner.loading = checked
        return checked

    def _after_load(self) -> None:
        if self._planner.loading is None:
            return  # the hook has done it
        self._planner.loading = None
        self._planner.forget()
        self._planner.renew(self.wrapped)


@functools.cache
def _named_after(cls: Any, name: str) -> Any:
    """A subclass of a `Warmed` that has the name of the wrapped optimizer's class.

    Loggers name an optimizer by its class, as Lightning does (`lr-SGD`), and those
    names should not change when it is wrapped.
    """
    content = {"__module__": cls.__module__, "__doc__": cls.__doc__, "_called": cls}
    return type(name, (cls,), content)


def _without(optimizer: Optimizer, keys: Sequence[str]) -> str:
    """The repr of an optimizer, without some entries of its param groups."""
    cls = type(optimizer)
    if cls.__repr__ is not Optimizer.__repr__:
        return repr(optimizer)
    groups = [
        {key: value for key, value in group.items() if key not in keys}
        for group in optimizer.param_groups
    ]
    shown: Any = type(cls.__name__, (), {"param_groups": groups})()
    return Optimizer.__repr__(shown)


def _blank(cls: Any) -> Any:
    """A new object of a class, for pickle to fill. It is called by its name there."""
    return cls.__new__(cls)


def _called(warmed: Warmed) -> type:
    """The class that the user has called."""
    cls = type(warmed)
    called: type = vars(cls).get("_called", cls)
    return called


def _is_several(
    optimizer: Optimizer | Sequence[Optimizer],
) -> TypeGuard[Sequence[Optimizer]]:
    """Whether these are optimizers, and not, say, parameters."""
    return isinstance(optimizer, (list, tuple)) and any(
        isinstance(each, Optimizer) for each in optimizer
    )


def _checked_watch(watch: Sequence[Criterion]) -> tuple[Criterion, ...]:
    if not isinstance(watch, (list, tuple)):
        raise TypeError(
            f"watch must be a list of criteria, got {watch!r}. Use watch=[Drift()]."
        )
    for criterion in watch:
        check_criterion("watch", criterion)
    return tuple(watch)


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
