"""Readings of the second moment of a few groups: a small sample, taken now and then.

One gather, a few operators on the device, and no host sync: what a reading says is
asked for at the next one. Where tensors are sharded, the samples are summed over the
ranks, so that all of them decide alike.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from operator import is_
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from warmopt._device import HostCopy
from warmopt._keys import Group
from warmopt._measure.coordinates import coordinates, whole_mesh
from warmopt._measure.sources import Sources
from warmopt._measure.statistics import median_variance, statistics
from warmopt._optimizers.second_moments import beta2
from warmopt.criteria import Reading

__all__ = ["Window"]


class Window:
    """Sources the second moment of some param groups, and keeps a window of samples.

    Attributes:
        ring: The samples, float32 of shape [window, tensors, coordinates], of these at
            most 64; nan where none is.
        latest: What the last of them gave, float32; nan where there is none.
        windows: Ring (flat, so that a long one prints on one line) and latest of each
            group, of its own tensors; like these, they are written to in place.
        is_collective: Whether all ranks must take a reading together.
        sources: Where they come from.
        every: Updates between readings.
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
        self._optimizer, self.every = optimizer, every
        self._groups, self._process_group = groups, process_group
        params = [(param, group) for group in groups for param in group["params"]]
        self._mesh = whole_mesh([param for param, _ in params])
        device = next((param.device for param, _ in params), torch.device("cpu"))
        sizes, self._first_row = [param.numel() for param, _ in params], 0
        if process_group is not None:
            of_ranks: Any = [None] * dist.get_world_size(process_group)
            dist.all_gather_object(of_ranks, sizes, process_group)
            self._first_row = sum(map(len, of_ranks[: dist.get_rank(process_group)]))
            sizes = [size for each in of_ranks for size in each]
            total = len(sizes)
        else:  # whoever pools with whom, a group has as many
            total = sum(len(group["params"]) for group in optimizer.param_groups)
        self._sizes = tuple(sizes)
        self._unknown = (math.nan,) * len(sizes)
        # Ranks sum alike, also where only one of them keeps a trace.
        self.is_collective = self._mesh is not None or process_group is not None
        self._in_full = in_full
        self.sources = Sources(
            optimizer,
            params,
            second_moment,
            with_momentum=in_full or self.is_collective,
            count=(count := coordinates(total)),
            device=device,
            mesh=self._mesh,
            may_be_none=process_group is not None,
        )
        shape = (window, len(sizes), count)
        nan = torch.tensor(math.nan, dtype=torch.float32, device=device)
        self.ring = nan.expand(shape).clone()
        self.latest = nan.expand(3 + len(sizes)).clone()
        self.windows = [(self.ring.view(-1), self.latest)]
        self._copies: tuple[list[Tensor], list[Tensor]] = ([], [])
        if process_group is None and len(groups) != 1:
            self._split()
        self._taken = 0
        self._pending: tuple[HostCopy, int] | None = None

    def _split(self) -> None:
        """Windows of each group, which then are copies."""
        into, of = self._copies
        begin, self.windows = 0, []
        for group in self._groups:
            end = begin + len(group["params"])
            ring, latest = self.ring[:, begin:end], self.latest[3 + begin : 3 + end]
            own = ring.clone(), self.latest[: 3 + end - begin].clone()
            self.windows.append((own[0].view(-1), own[1]))
            into += own[1][:3], own[0], own[1][3:]
            of += self.latest[:3], ring, latest
            begin = end

    def restore(self, windows: list[tuple[Any, Any]], update: int) -> None:
        """Goes on from windows saved after some update, if they are of such tensors."""
        for saved, mine in zip(windows, self.windows, strict=True):
            for one, own in zip(saved, mine, strict=True):
                if not isinstance(one, Tensor) or one.numel() != own.numel():
                    return
        found = [latest.reshape(-1) for _, latest in windows]
        if len({str(latest[:3].tolist()) for latest in found}) > 1:
            return  # they were not judged together
        window, _, count = self.ring.shape
        rings = [r.reshape(window, -1, count) for r, _ in windows if r.numel()]
        if not rings:
            return
        self.ring.copy_(torch.cat(rings, dim=1))
        self.latest.copy_(torch.cat([found[0][:3], *(latest[3:] for latest in found)]))
        if not self._in_full:  # only the first is kept up to date
            self.latest[1:] = math.nan
        self._share()
        self._taken = int((~self.ring.isnan()).flatten(1).any(1).sum())
        if self._taken:
            self._pending = self._copied(), update - update % self.every

    @property
    def has_samples(self) -> bool:
        """Whether a sample was taken, or restored."""
        return self._taken > 0

    def is_of(self, params: list[Parameter]) -> bool:
        """Whether it is of these parameters still, one by one."""
        mine = self.sources.params
        return len(params) == len(mine) and all(map(is_, params, mine))

    def is_due(self, update: int) -> bool:
        """Whether there is something to do after an update."""
        return update % self.every == 0 or not self.sources.found

    def after(self, update: int) -> Reading | None:
        """Takes a reading after an update, if it is time; returns the one before.

        Raises:
            ValueError: The optimizer keeps no second moment.
        """
        takes_one = update % self.every == 0 and bool(self._sizes)
        if not self.sources.found:
            self.sources.look_up()
        elif takes_one:
            self.sources.refresh()
        if not takes_one:
            return None
        before = None if self._pending is None else self._read(*self._pending)
        self._take(update)
        return before

    def _copied(self) -> HostCopy:
        return HostCopy(self.latest if self._in_full else self.latest[:3])

    def _read(self, latest: HostCopy, update: int) -> Reading:
        variance, norm_ratio, update_rms, *drifts = latest.numbers()
        every = (group.get("betas") for group in self._groups)
        beta1, *_ = next(filter(None, every), (None,))
        return Reading(
            update=update,
            span=(self._taken - 1) * self.every,
            samples=self._taken,
            window=len(self.ring),
            beta1=None if beta1 is None else float(beta1),
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
            return next((moment.beta2 for moment in self.sources.found.values()), None)
        for group in self._groups:  # alike on all ranks, whatever each of them holds
            with contextlib.suppress(ValueError):
                return beta2(self._optimizer, group)
        return None

    def _take(self, update: int) -> None:
        samples = self.sources.take(update)
        if self.is_collective:
            samples = list(self._summed(torch.stack(samples, dim=1)).unbind(1))
        window, ring = len(self.ring), self.ring
        newest = (update // self.every - 1) % window
        ring[newest].copy_(samples[0])
        self._taken = min(self._taken + 1, window)
        is_full = self._taken == window
        if self._in_full:
            if not is_full:
                ring, newest = ring.roll(-1 - newest, 0)[-self._taken :], -1
            told = statistics(ring, *samples[1:], window=window, newest=newest)
            self.latest.copy_(told)
        elif is_full:
            self.latest[0].copy_(median_variance(ring))
        self._share()
        self._pending = self._copied(), update

    def _share(self) -> None:
        if self._copies[0]:
            torch._foreach_copy_(*self._copies)

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
