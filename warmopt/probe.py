"""Readings of the second moment of a few groups: a small sample, taken now and then.

One gather, a few operators on the device, and no host sync: what a reading says is
asked for at the next one. Where tensors are sharded, the samples are summed over the
ranks, so that all of them decide alike.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from itertools import repeat
from operator import is_
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from warmopt.criteria import Reading
from warmopt.group_lr import Group
from warmopt.on_device import HostCopy, to_device
from warmopt.readings import median_variance, statistics
from warmopt.sampling import coordinates, is_counted_here, mesh_of, sampler
from warmopt.second_moments import (
    Moment,
    beta2,
    find_moment,
    no_second_moment,
    stalls,
    warn_if_one_stalls,
)

__all__ = ["Probe"]


class Probe:
    """Samples the second moment of some param groups, and keeps a window of samples.

    Attributes:
        ring: The samples, float32 of shape [window, tensors, coordinates], of these at
            most 64; nan where none is.
        latest: What the last of them gave, float32; nan where there is none. Like the
            ring it is written to in place.
        is_collective: Whether all ranks must take a reading together.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        groups: list[Group],
        every: int,
        window: int,
        second_moment: str | Callable[..., Any] | None = None,
        process_group: Any = None,
        in_full: bool = True,
    ) -> None:
        self._optimizer, self._every = optimizer, every
        self._second_moment, self._process_group = second_moment, process_group
        self._groups = groups
        self._params = [(param, group) for group in groups for param in group["params"]]
        meshes = [m for p, _ in self._params if (m := mesh_of(p)) is not None]
        # The largest, where others are a part of it; the first of equal ones.
        self._mesh = max(meshes, key=lambda mesh: int(mesh.size()), default=None)
        self._device = next((p.device for p, _ in self._params), torch.device("cpu"))
        sizes, self._first_row = [param.numel() for param, _ in self._params], 0
        if process_group is not None:
            of_ranks: Any = [None] * dist.get_world_size(process_group)
            dist.all_gather_object(of_ranks, sizes, process_group)
            self._first_row = sum(map(len, of_ranks[: dist.get_rank(process_group)]))
            sizes = [size for each in of_ranks for size in each]
        self._sizes = tuple(sizes)
        self._unknown = (math.nan,) * len(sizes)
        self._found: dict[Parameter, Moment] = {}
        # What the last look-up has seen: if it is so still, it holds.
        self._state: Any = None
        self._entries: list[dict[str, Any]] = []
        self._length = 0
        self._expected: tuple[list[Any], ...] = ([], [], [], [])
        self._ages: list[Any] = []
        # Ranks sum alike, also where only one of them keeps a trace.
        self.is_collective = self._mesh is not None or process_group is not None
        two = in_full or self.is_collective
        self._in_full = in_full
        self._kinds = ("values", "momentum") if two else ("values",)
        self._samplers: list[Callable[[], Tensor]] = []
        self._log_decays = torch.empty(0)
        self._sample_of = coordinates(len(sizes)), self._device
        shape = (window, len(sizes), self._sample_of[0])
        nan = torch.tensor(math.nan, dtype=torch.float32, device=self._device)
        self.ring = nan.expand(shape).clone()
        self.latest = nan.expand(3 + len(sizes)).clone()
        self._samples = 0
        self._pending: tuple[HostCopy, int] | None = None

    def restore(self, ring: Any, latest: Any, update: int) -> None:
        """Goes on from a window saved after some update, if it is of such tensors."""
        for mine, saved in ((self.ring, ring), (self.latest, latest)):
            if not isinstance(saved, Tensor) or saved.numel() != mine.numel():
                return
        self.ring.copy_(ring.view_as(self.ring))
        self.latest.copy_(latest)
        self._samples = int((~self.ring.isnan()).flatten(1).any(1).sum())
        if self._samples:
            self._pending = self._copied(), update - update % self._every

    @property
    def watched(self) -> float:
        """Share of the parameters that have a second moment, dimensionless."""
        total = sum(param.numel() for param, _ in self._params)
        return sum(param.numel() for param in self._found) / total if total else 0.0

    def after(self, update: int) -> Reading | None:
        """Takes a reading after an update, if it is time; returns the one before.

        Raises:
            ValueError: The optimizer keeps no second moment.
        """
        if not self._found:
            self._find()
        if update % self._every or not self._sizes:
            return None
        before = None if self._pending is None else self._read(*self._pending)
        self._take(update)
        return before

    def _copied(self) -> HostCopy:
        return HostCopy(self.latest if self._in_full else self.latest[:3])

    def _read(self, latest: HostCopy, update: int) -> Reading:
        variance, norm_ratio, update_rms, *drifts = latest.numbers()
        betas = self._groups[0].get("betas") or (None,)
        return Reading(
            update=update,
            span=(self._samples - 1) * self._every,
            samples=self._samples,
            window=len(self.ring),
            beta1=None if betas[0] is None else float(betas[0]),
            beta2=self._beta2(),
            inverse_root_variance=variance,
            norm_ratio=norm_ratio,
            update_rms=update_rms or math.nan,  # 0: no rank has a momentum
            drifts=tuple(drifts) or self._unknown,
            sizes=self._sizes,
        )

    def _beta2(self) -> float | None:
        """The decay in the first group that has one."""
        if self._process_group is None:
            return next((moment.beta2 for moment in self._found.values()), None)
        for group in self._groups:  # alike on all ranks, whatever each of them holds
            with contextlib.suppress(ValueError):
                return beta2(self._optimizer, group)
        return None

    def _find(self) -> None:
        """Looks up every second moment, and where in it the sample lies."""
        is_first_time, self._found = not self._found, {}
        for param, group in self._params:
            moment = find_moment(self._optimizer, param, group, self._second_moment)
            if moment is not None:
                self._found[param] = moment
        if not self._found and self._process_group is None and self._none_anywhere():
            raise no_second_moment(self._optimizer, self._second_moment)
        if is_first_time:
            warn_if_one_stalls(self._optimizer, self._found.values())
        moments = [self._found.get(param) for param, _ in self._params]
        self._samplers = [
            sampler([self._read_here(m, kind) for m in moments], *self._sample_of)
            for kind in self._kinds
        ]
        self._note_what_is_found(moments)

    def _read_here(self, moment: Moment | None, kind: str) -> Tensor | None:
        """The tensor of a moment that is read on this rank."""
        values: Tensor | None = getattr(moment, kind, None)
        if moment is not None and stalls(moment):
            return None  # it stands still, but has not settled
        if self._mesh is not None and not is_counted_here(values, self._mesh):
            return None
        return values

    def _note_what_is_found(self, moments: list[Moment | None]) -> None:
        self._state = state = self._optimizer.state
        found = self._found.items()
        self._entries = [state.get(param) or {} for param, _ in self._params]
        self._length = len(state) + sum(map(len, self._entries))
        self._expected = (
            [state.get(param) or {} for param, _ in found],
            [moment.kind for _, moment in found],
            [moment.values for _, moment in found],
            [moment.age for _, moment in found],
        )
        self._ages = [None if moment is None else moment.age for moment in moments]
        self._age_views: list[Tensor] = []
        if all(isinstance(age, Tensor) for age in self._ages):
            self._age_views = [age.detach().reshape(1) for age in self._ages]
        # Where an average began at 0, it is divided by 1 - beta**age; else by 1.
        logs: list[list[float]] = [[] for _ in self._kinds]
        for moment, (_, group) in zip(moments, self._params, strict=True):
            began_at_0 = moment is not None and moment.debias
            betas = moment and moment.beta2, (group.get("betas") or (0.0,))[0]
            for each, beta in zip(logs, betas, strict=False):
                each.append(math.log(beta) if began_at_0 and beta else -math.inf)
        self._log_decays = torch.tensor(logs, dtype=torch.float32)
        if any(isinstance(age, Tensor) and age.is_cuda for age in self._ages):
            self._log_decays = to_device(self._log_decays, self._device)

    def _none_anywhere(self) -> bool:
        """Whether the optimizer, though stepped, has none in other groups either."""
        optimizer, override = self._optimizer, self._second_moment
        return bool(optimizer.state) and not any(
            find_moment(optimizer, param, group, override)
            for group in optimizer.param_groups
            for param in group["params"]
        )

    def _is_found_still(self) -> bool:
        """Whether the tensors are those that the optimizer has now, and their ages."""
        entries, kinds, values, ages = self._expected
        return (
            self._optimizer.state is self._state
            and not callable(self._second_moment)
            and len(self._state) + sum(map(len, self._entries)) == self._length
            and all(map(is_, map(dict.get, entries, kinds), values))
            # An age that is a number is never the same again.
            and all(map(is_, map(dict.get, entries, repeat("step")), ages))
        )

    def _take(self, update: int) -> None:
        if not self._is_found_still():
            self._find()
        samples = [sample() for sample in self._samplers]
        for sample, correction in zip(samples, self._corrections(update), strict=True):
            sample /= correction.unsqueeze(-1)
        if self.is_collective:
            samples = list(self._summed(torch.stack(samples, dim=1)).unbind(1))
        window, ring = len(self.ring), self.ring
        newest = (update // self._every - 1) % window
        ring[newest].copy_(samples[0])
        self._samples = min(self._samples + 1, window)
        is_full = self._samples == window
        if self._in_full:
            if not is_full:
                ring, newest = ring.roll(-1 - newest, 0)[-self._samples :], -1
            told = statistics(ring, *samples[1:], window=window, newest=newest)
            self.latest.copy_(told)
        elif is_full:
            self.latest[0].copy_(median_variance(ring))
        self._pending = self._copied(), update

    def _corrections(self, update: int) -> Tensor:
        """What each row of the samples is to be divided by."""
        if self._age_views:
            age = torch.cat(self._age_views)
        else:
            ages: list[Any] = [update if age is None else age for age in self._ages]
            if self._log_decays.is_cuda:
                age = torch.stack([self.ring.new_zeros(()) + age for age in ages])
            else:
                age = torch.tensor([float(age) for age in ages])
        # An average that has not begun is 0, and must not become nan.
        corrections = (self._log_decays * age.clamp_(min=1)).expm1_().neg_()
        return to_device(corrections, self._device)

    def _summed(self, own: Tensor) -> Tensor:
        """What all ranks see: of shards with a mesh the sum, of others all in turn."""
        if self._process_group is not None:
            rows = own.new_zeros(len(self._sizes), *own.shape[1:])
            rows[self._first_row :][: len(own)] = own
            dist.all_reduce(rows, group=self._process_group)
            return rows
        if self._mesh is not None:
            own = own.contiguous()
            for dim in range(self._mesh.ndim):
                dist.all_reduce(own, group=self._mesh.get_group(dim))
        return own
