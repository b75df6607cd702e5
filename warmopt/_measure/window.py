"""Reads the second moment of some param groups every few updates.

A reading takes a small sample. It costs one gather and a few operators on the device,
and no host sync: its numbers are copied to the host in the background, and are used at
the next reading. If tensors are sharded, the samples are summed over the ranks, so that
all ranks decide the same.
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
from warmopt._torch import copy_all
from warmopt.criteria import Reading

__all__ = ["Window"]


class Window:
    """Samples the second moment of some param groups, and keeps the last samples.

    Args:
        optimizer: The optimizer that keeps the second moment.
        groups: The param groups to read.
        every: Updates between two readings.
        window: How many samples are kept.
        second_moment: Where to find it, as in `Adaptive`.
        process_group: The ranks that hold the shards, as in `Adaptive`.
        in_full: Whether to compute all numbers of a `Reading`, and not only
            `inverse_root_variance`.
        with_momentum: Whether `update_rms` is one of them.

    Attributes:
        ring: The samples, float32, of shape [window, tensors, coordinates], with at
            most 64 coordinates per tensor. A free place holds nan.
        latest: The numbers from the newest reading, float32, of shape [3 + tensors],
            in the order of `statistics`. A number that is not known is nan.
        windows: For each group, the parts of `ring` and of `latest` that belong to its
            tensors. These are saved with the group. The ring is flat here, so that a
            long one prints on one line. All of them are updated in place.
        is_collective: Whether all ranks must take a reading together.
        sources: The `Sources` that the samples come from.
        every: Updates between two readings.
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
        with_momentum: bool = True,
    ) -> None:
        self._optimizer, self.every = optimizer, every
        self._groups, self._process_group = groups, process_group
        params = [(param, group) for group in groups for param in group["params"]]
        self._mesh = whole_mesh([param for param, _ in params])
        device = next((param.device for param, _ in params), torch.device("cpu"))
        sizes, self._first_row = [param.numel() for param, _ in params], 0
        if process_group is not None:
            sizes, self._first_row = _gathered(sizes, process_group)
            total = len(sizes)
        else:
            # Counts the tensors of all groups, also of those that are not read here.
            # So the number of coordinates, and with it the shape of what is saved, does
            # not depend on which groups share a window.
            total = sum(len(group["params"]) for group in optimizer.param_groups)
        self._sizes = tuple(sizes)
        self._unknown = (math.nan,) * len(sizes)
        self.is_collective = self._mesh is not None or process_group is not None
        self._in_full = in_full
        self.sources = Sources(
            optimizer,
            params,
            second_moment,
            # All ranks must sum tensors of the same shape. One rank may keep a trace,
            # which needs the momentum, so all of them sample it.
            with_momentum=(in_full and with_momentum) or self.is_collective,
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
        """Gives each group its own windows.

        They are copies, since a part of `ring` has no flat view. `_share` updates them.
        """
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
        """Continues from saved windows, or does nothing if they do not fit.

        Args:
            windows: As the attribute of this name; any values are allowed.
            update: The number of updates that were done when they were saved.
        """
        if not self._fit(windows):
            return
        found = [latest.reshape(-1) for _, latest in windows]
        window, _, count = self.ring.shape
        rings = [r.reshape(window, -1, count) for r, _ in windows if r.numel()]
        if not rings:
            return
        self.ring.copy_(torch.cat(rings, dim=1))
        self.latest.copy_(torch.cat([found[0][:3], *(latest[3:] for latest in found)]))
        if not self._in_full:
            # Only the first number is kept up to date; the others would be old.
            self.latest[1:] = math.nan
        self._share()
        # A place in the ring is taken if any number in it is not nan.
        self._taken = int((~self.ring.isnan()).flatten(1).any(1).sum())
        if self._taken:
            self._pending = self._copied(), update - update % self.every

    def _fit(self, windows: list[tuple[Any, Any]]) -> bool:
        """Whether saved windows have the sizes of ours, and are parts of one window."""
        for saved, mine in zip(windows, self.windows, strict=True):
            for one, own in zip(saved, mine, strict=True):
                if not isinstance(one, Tensor) or one.numel() != own.numel():
                    return False
        # The first three numbers are about all tensors of a window. If they differ, the
        # groups did not share one. They are compared as text, since nan != nan.
        of_all = {str(latest.reshape(-1)[:3].tolist()) for _, latest in windows}
        return len(of_all) <= 1

    @property
    def has_samples(self) -> bool:
        """Whether there is a sample, a new one or a restored one."""
        return self._taken > 0

    def is_of(self, params: list[Parameter]) -> bool:
        """Whether it still reads exactly these parameters, in this order."""
        mine = self.sources.params
        return len(params) == len(mine) and all(map(is_, params, mine))

    def is_due(self, update: int) -> bool:
        """Whether `after` has something to do after this update."""
        return update % self.every == 0 or not self.sources.found

    def after(self, update: int) -> Reading | None:
        """Takes a reading after an update, if it is time for one.

        Returns:
            The reading before this one, whose numbers should be on the host by now.
            None if it is not time for a reading, or if this is the first one.

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
        """Starts the copy of the latest numbers to the host."""
        return HostCopy(self.latest if self._in_full else self.latest[:3])

    def _read(self, latest: HostCopy, update: int) -> Reading:
        """Makes a `Reading` of the numbers that were copied to the host."""
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
            update_rms=update_rms or math.nan,  # it is 0 if no rank has a momentum
            drifts=tuple(drifts) or self._unknown,
            sizes=self._sizes,
        )

    def _beta2(self) -> float | None:
        """The decay of the second moment, from the first group that has one."""
        if self._process_group is None:
            return next((moment.beta2 for moment in self.sources.found.values()), None)
        # Ranks hold different parameters. They have the same groups, though, and must
        # all get the same number.
        for group in self._groups:
            with contextlib.suppress(ValueError):
                return beta2(self._optimizer, group)
        return None

    def _take(self, update: int) -> None:
        """Takes a sample, and updates `ring`, `latest` and `windows`."""
        samples = self.sources.take(update)
        if self.is_collective:
            samples = list(self._summed(torch.stack(samples, dim=1)).unbind(1))
        window, ring = len(self.ring), self.ring
        # The place depends on the update alone, so a resumed run goes on with the next.
        newest = (update // self.every - 1) % window
        ring[newest].copy_(samples[0])
        self._taken = min(self._taken + 1, window)
        is_full = self._taken == window
        if self._in_full:
            if not is_full:
                # Sorts the samples, oldest first, and leaves out the free places.
                ring, newest = ring.roll(-1 - newest, 0)[-self._taken :], -1
            found = statistics(ring, *samples[1:], window=window, newest=newest)
            self.latest.copy_(found)
        elif is_full:
            self.latest[0].copy_(median_variance(ring))
        self._share()
        self._pending = self._copied(), update

    def _share(self) -> None:
        """Copies the samples and numbers into the windows of each group."""
        if self._copies[0]:
            copy_all(*self._copies)

    def _summed(self, own: Tensor) -> Tensor:
        """Combines the samples of all ranks; every rank gets the same result.

        With a mesh, that is the sum: each rank sampled its part of the same tensors.
        With a process group, it has the rows of all ranks, one rank after the other.
        """
        if self._process_group is not None:
            # Each rank fills its own rows and leaves 0 in the others, so a sum is
            # enough to collect them.
            rows = own.new_zeros(len(self._sizes), *own.shape[1:])
            rows[self._first_row :][: len(own)] = own
            dist.all_reduce(rows, group=self._process_group)
            return rows
        if self._mesh is not None:
            own = own.contiguous()
            for dim in range(self._mesh.ndim):
                dist.all_reduce(own, group=self._mesh.get_group(dim))
        return own


def _gathered(sizes: list[int], process_group: Any) -> tuple[list[int], int]:
    """The sizes of the tensors of all ranks, and the place of the first one from here.

    Every rank holds other shards. So the window has the rows of all ranks, one rank
    after the other.
    """
    of_ranks: Any = [None] * dist.get_world_size(process_group)
    dist.all_gather_object(of_ranks, sizes, process_group)
    first_row = sum(map(len, of_ranks[: dist.get_rank(process_group)]))
    return [size for each in of_ranks for size in each], first_row
