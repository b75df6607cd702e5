"""Samples the second moments of some parameters, as their optimizer has them now.

Where they are is looked up once. It is looked up again if the optimizer has other state
or another decay, or if a parameter was frozen or unfrozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from warmopt._device import to_device
from warmopt._keys import Group
from warmopt._measure.coordinates import is_counted_here, sampler
from warmopt._optimizers.second_moments import (
    Moment,
    decay_key,
    decay_of,
    find_moment,
    has_none,
    inner,
    no_second_moment,
    stalls,
    warn_if_one_stalls,
)

__all__ = ["Sources"]


class Sources:
    """Finds and samples second moments, and also the momentum if asked.

    Args:
        optimizer: The optimizer that keeps them, or a wrapper around it.
        params: Each parameter with its param group.
        second_moment: Where to find it, as in `Adaptive`.
        with_momentum: Whether to sample the momentum too.
        count: Coordinates in the sample of one tensor.
        device: Where the samples shall be.
        mesh: The mesh that all DTensors lie on; None if there are none.
        may_be_none: Whether it is allowed that no second moment is found at all, since
            this rank may hold no shard.

    Attributes:
        params: All given parameters, also those without a second moment.
        found: The second moment of each parameter that has one; empty before the first
            look-up.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        params: list[tuple[Parameter, Group]],
        second_moment: str | Callable[..., Any] | None,
        *,
        with_momentum: bool,
        count: int,
        device: torch.device,
        mesh: Any,
        may_be_none: bool,
    ) -> None:
        self._optimizer, self._params = inner(optimizer), params
        self._decay_key = decay_key(self._optimizer)
        self.params = [param for param, _ in params]
        self._groups = list({id(group): group for _, group in params}.values())
        self._second_moment, self._may_be_none = second_moment, may_be_none
        self._kinds = ("values", "momentum") if with_momentum else ("values",)
        self._count, self._device, self._mesh = count, device, mesh
        self.found: dict[Parameter, Moment] = {}
        self._samplers: list[Callable[[], Tensor]] = []
        self._log_decays = torch.empty(0)
        self._ages: list[Any] = []
        self._age_views: list[Tensor] = []
        # What the last look-up saw. While this stays the same, no new one is needed.
        self._state: Any = None
        self._all_entries: list[Any] = []
        self._entries: list[dict[str, Any]] = []
        self._length = 0
        self._trainable: list[bool] = []
        self._expected: tuple[tuple[Any, ...], ...] = ((), (), ())
        self._options: list[Any] = []
        self._decays: list[float | None] = []

    @property
    def watched(self) -> float:
        """Share of all parameter elements whose second moment is read, in [0, 1]."""
        read = (p for p, moment in self.found.items() if _is_read(p, moment))
        total = sum(param.numel() for param in self.params)
        return sum(param.numel() for param in read) / total if total else 0.0

    def refresh(self) -> None:
        """Looks up what has changed since the last time. Call it before `take`.

        Raises:
            ValueError: The optimizer keeps no second moment any more.
        """
        if self._is_found_still():
            if all(map(is_, self._options_now(), self._options)):
                return
            # For example, a scheduler moved beta1. The tensors are still the same, so
            # only the bias correction changes.
            if self._decays_now() == self._decays:
                self._note_decays()
                return
        self.look_up()

    def take(self, update: int) -> list[Tensor]:
        """Takes new samples after an update, with the bias corrected.

        Returns:
            One float32 tensor of shape [parameters, count] for the second moments, and
            a second one for the momentum, if asked. An average that started at 0 is
            divided by 1 - beta**age.
        """
        samples = [sample() for sample in self._samplers]
        for sample, correction in zip(samples, self._corrections(update), strict=True):
            sample /= correction
        return samples

    def look_up(self) -> None:
        """Finds every second moment, and where to sample in it.

        Raises:
            ValueError: The optimizer keeps no second moment.
        """
        is_first_time, self.found = not self.found, {}
        for param, group in self._params:
            moment = find_moment(self._optimizer, param, group, self._second_moment)
            if moment is not None:
                self.found[param] = moment
        may_be_none = self._may_be_none or bool(self.found)
        if not may_be_none and has_none(self._optimizer, self._second_moment):
            raise no_second_moment(self._optimizer, self._second_moment)
        if is_first_time:
            warn_if_one_stalls(self._optimizer, self.found.values())
        read = [[self._read_here(p, kind) for p in self.params] for kind in self._kinds]
        self._samplers = [sampler(each, self._count, self._device) for each in read]
        self._note_ages()
        self._note_decays()
        self._note_what_is_found()

    def _read_here(self, param: Parameter, kind: str) -> Tensor | None:
        """The tensor to sample on this rank; None if this rank reads none.

        Args:
            param: The parameter.
            kind: Which tensor: a field of `Moment`, "values" or "momentum".
        """
        moment = self.found.get(param)
        if moment is None or not _is_read(param, moment):
            return None
        values: Tensor | None = getattr(moment, kind)
        if self._mesh is not None and not is_counted_here(values, self._mesh):
            return None
        return values

    def _note_what_is_found(self) -> None:
        """Keeps what `_is_found_still` compares with."""
        self._state = state = self._optimizer.state
        # A list that is compared by position: to hash every parameter takes longer.
        self._all_entries = list(state.values())
        self._entries = [state.get(param) or {} for param in self.params]
        self._length = sum(map(len, self._entries))
        self._trainable = [param.requires_grad for param in self.params]
        expected: list[tuple[dict[str, Any], str, Any]] = []
        for param, moment in self.found.items():
            seen = [(moment.kind, moment.values), ("step", moment.age)]
            if moment.momentum is not None and "momentum" in self._kinds:
                seen.append(("exp_avg", moment.momentum))
            entry = state.get(param) or {}
            expected += ((entry, key, value) for key, value in seen)
        self._expected = tuple(zip(*expected, strict=True)) or ((), (), ())

    def _note_ages(self) -> None:
        """Keeps the age of each average, as views if all ages are tensors.

        The optimizer counts such a tensor in place, so a view of it stays up to date.
        """
        moments = map(self.found.get, self.params)
        self._ages = [None if moment is None else moment.age for moment in moments]
        all_tensors = all(isinstance(age, Tensor) for age in self._ages)
        views = (age.detach().reshape(1, 1) for age in self._ages)
        self._age_views = list(views) if all_tensors else []

    def _note_decays(self) -> None:
        """Keeps the logarithm of each decay, for the bias correction."""
        self._options, self._decays = self._options_now(), self._decays_now()
        # An average that started at 0 is divided by 1 - beta**age. For any other one
        # the logarithm is -inf, so that beta**age is 0 and it is divided by 1.
        logs: list[list[float]] = [[] for _ in self._kinds]
        for param, group in self._params:
            moment = self.found.get(param)
            began_at_0 = moment is not None and moment.debias
            betas = moment and moment.beta2, (group.get("betas") or (0.0,))[0]
            for each, beta in zip(logs, betas, strict=False):
                each.append(math.log(beta) if began_at_0 and beta else -math.inf)
        self._log_decays = torch.tensor(logs, dtype=torch.float32).unsqueeze(-1)
        # Ages on the GPU stay there: to read them to the host would be a sync.
        if any(isinstance(age, Tensor) and age.is_cuda for age in self._ages):
            self._log_decays = to_device(self._log_decays, self._device)

    def _options_now(self) -> list[Any]:
        """The options of the param groups that the decays depend on."""
        return [
            option
            for group in self._groups
            for option in (*(group.get("betas") or ()), group.get(self._decay_key))
        ]

    def _decays_now(self) -> list[float | None]:
        """The decay of the second moment in each param group."""
        return [decay_of(self._optimizer, group) for group in self._groups]

    def _is_found_still(self) -> bool:
        """Whether the optimizer still has the tensors and ages of the last look-up."""
        entries, keys, values = self._expected
        return (
            self._optimizer.state is self._state
            # A function of the user may return a new tensor each time.
            and not callable(self._second_moment)
            and len(self._state) == len(self._all_entries)
            and all(map(is_, self._state.values(), self._all_entries))
            and sum(map(len, self._entries)) == self._length
            and [param.requires_grad for param in self.params] == self._trainable
            # An age that is a plain number is another object after each update. Then
            # a new look-up follows, which reads the new age.
            and all(map(is_, map(dict.get, entries, keys), values))
        )

    def _corrections(self, update: int) -> Tensor:
        """What to divide each row of the samples by: shape [kinds, parameters, 1]."""
        if self._age_views:
            age = torch.cat(self._age_views)
        else:
            ages: list[Any] = [update if age is None else age for age in self._ages]
            if self._log_decays.is_cuda:
                # Some ages are on the GPU. Adding 0 there makes tensors of all of them
                # without a host sync.
                zero = torch.zeros((), device=self._device)
                age = torch.stack([zero + age for age in ages])
            else:
                age = torch.tensor([float(age) for age in ages])
            age = age.unsqueeze(-1)
        # An average that has not started yet is 0. At age 0 it would be 0 / 0 = nan.
        corrections = (self._log_decays * age.clamp_(min=1)).expm1_().neg_()
        return to_device(corrections, self._device)


def _is_read(param: Parameter, moment: Moment) -> bool:
    """Whether a second moment is read.

    It is not read if rounding stops it, or if its parameter is frozen. Then it does not
    move, and would look settled although it is not.
    """
    return param.requires_grad and not stalls(moment)
