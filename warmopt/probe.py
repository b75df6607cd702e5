"""Readings of the second moment of a few groups: a small sample, taken now and then.

One gather, a few operators on the device, and no host sync: what a reading says is
asked for at the next one. Where tensors are sharded, the samples are summed over the
ranks, so that all of them decide alike.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from warmopt.criteria import Reading
from warmopt.group_lr import Group
from warmopt.on_device import HostCopy, to_device
from warmopt.readings import statistics
from warmopt.sampling import COORDINATES, Row, gathered, is_counted_here, mesh_of, row
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
        ring: The samples, float32 of shape [window, tensors, 64]; nan where none is.
        latest: What the last of them gave, float32; nan where there is none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        groups: list[Group],
        every: int,
        window: int,
        second_moment: str | Callable[..., Any] | None = None,
        process_group: Any = None,
        with_momentum: bool = False,
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
        self._found: dict[Parameter, Moment] = {}
        # Ranks sum alike, also where only one of them keeps a trace.
        is_sharded = self._mesh is not None or process_group is not None
        self._rows: list[list[Row]] = [
            [] for _ in range(1 + (with_momentum or is_sharded))
        ]
        shape = (window, len(sizes), COORDINATES)
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
            self._pending = HostCopy(self.latest), update - update % self._every

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
        if update % self._every or not self._params:
            return None
        before = None if self._pending is None else self._read(*self._pending)
        self._take(update)
        return before

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
            drifts=tuple(drifts),
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
        for rows, kind in zip(self._rows, ("values", "momentum"), strict=False):
            rows.clear()
            for param, _ in self._params:
                moment = self._found.get(param)
                if moment is not None and stalls(moment):
                    moment = None  # it stands still, but has not settled
                values = getattr(moment, kind, None)
                if self._mesh is not None and not is_counted_here(values, self._mesh):
                    values = None
                rows.append(row(values, self._device))

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
        state = self._optimizer.state
        if callable(self._second_moment) or len(self._found) < len(self._params):
            return False
        for param, moment in self._found.items():
            now = state.get(param) or {}
            # An age that is a number is never the same again.
            if now.get(moment.kind) is not moment.values:
                return False
            if now.get("step") is not moment.age:
                return False
        return True

    def _take(self, update: int) -> None:
        if not self._is_found_still():
            self._find()
        samples = torch.stack([gathered(rows, self._device) for rows in self._rows])
        samples /= self._corrections(update).unsqueeze(-1)
        sample, *momentum = self._summed(samples.transpose(0, 1)).unbind(1)
        newest = (update // self._every - 1) % len(self.ring)
        self.ring[newest].copy_(sample)
        self._samples = min(self._samples + 1, len(self.ring))
        in_order = self.ring.roll(-1 - newest, 0)[-self._samples :]
        self.latest.copy_(statistics(in_order, *momentum, window=len(self.ring)))
        self._pending = HostCopy(self.latest), update

    def _corrections(self, update: int) -> Tensor:
        """1 - beta**age of each row, where an average began at 0; else 1."""
        ages: list[Any] = []
        decays: list[list[float]] = [[] for _ in self._rows]
        for param, group in self._params:
            moment = self._found.get(param)
            age = None if moment is None else moment.age
            ages.append(update if age is None else age)
            betas = (group.get("betas") or (0.0,))[0], moment and moment.beta2
            for row_decays, beta in zip(decays, reversed(betas), strict=False):
                began_at_0 = moment is not None and moment.debias
                row_decays.append(float(beta or 0.0) if began_at_0 else 0.0)
        beta = torch.tensor(decays, dtype=torch.float64)
        if any(isinstance(age, Tensor) and age.is_cuda for age in ages):
            age = torch.stack([self.ring.new_zeros(()) + age for age in ages])
            beta = to_device(beta, self._device)
        else:
            age = torch.tensor([float(age) for age in ages], dtype=torch.float64)
        # An average that has not begun is 0, and must not become nan.
        return to_device((1.0 - beta ** age.clamp(min=1)).float(), self._device)

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
