"""What watches param groups: one reading, one verdict and one pace for a few of them.

Groups that began together and warm alike have one watcher, so that the ratio of their
learning rates stays what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from warmopt._climb import plain
from warmopt._device import HostCopy
from warmopt._groups.ramps import Ramps
from warmopt._keys import (
    BEFORE,
    CLIMB,
    EVERY,
    FAST,
    LATEST,
    PHASE,
    RING,
    SETTLED,
    UPDATES,
    Group,
)
from warmopt._measure.climbs import DeviceClimb
from warmopt._measure.comparison import Comparison
from warmopt._measure.window import Window
from warmopt._optimizers.second_moments import is_without
from warmopt._pace import Sampling
from warmopt.criteria import Criterion, Reading
from warmopt.trace import Recorded, Trace, verdicts_of

__all__ = ["Watcher", "climbs_of", "watchers_of"]

NOTHING = Reading(0, 0, 0, 5, None, None, math.nan, math.nan, math.nan, (), ())


class Watcher:
    """Takes readings for some param groups, and passes them to the pace.

    What the pace decides is kept in the groups, and so is the window of each group. So
    a resumed run goes on as if it had not stopped. With a `process_group` the window is
    not kept, and fills again.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        groups: list[Group],
        ramps: Ramps,
        watch: Sequence[Criterion],
        trace: Trace | None,
    ) -> None:
        self.groups = groups
        self._optimizer, self._ramps, self._pace = optimizer, ramps, ramps.pace
        self._watch, self._trace = watch, trace
        self._sampling = self._pace.sampling or Sampling()
        self._update = int(groups[0][UPDATES])
        self._comparison = None
        if self._sampling.signal is not None:
            self._comparison = self._new_comparison()
        self._window: Window | None = None
        is_recorded = trace is not None or bool(watch)
        if self._comparison is None or (is_recorded and not is_without(optimizer)):
            self._window = self._new_window(self._update)
        self._known = NOTHING  # the last reading of the second moment
        # What the comparison before a step gave.
        self._sums: list[float] | HostCopy | None = None
        # Where the groups stand once the step is done, and the reading that says so.
        self._ahead: tuple[Group, Reading] | None = None
        if trace is not None:
            self._begin_record(trace)

    def _begin_record(self, trace: Trace) -> None:
        first, update, every = self.groups[0], self._update, self._sampling.every
        groups = enumerate(self._optimizer.param_groups)
        self._index = next(index for index, group in groups if group is first)
        ramp, due = self._ramps.ramp(first), update - update % every + every
        new = Recorded(
            steps=ramp.steps,
            last=ramp.last,
            every=every,
            updates=update,
            fast_done=first.get(FAST, 0),
            settled=first.get(SETTLED, False),
            first_verdict=due if self._has_samples else due + every,
            first_row=len(trace.rows),
            climb=[*map(first.get, CLIMB)] if PHASE in first else None,
            **self._pace.recorded(),
        )
        trace.record(self._index, new)

    @property
    def _has_samples(self) -> bool:
        return (self._comparison or self._window).has_samples  # type: ignore[union-attr]

    def _new_window(self, update: int) -> Window:
        """A window that goes on from those that the groups had after `update`."""
        sampling = self._sampling if self._comparison is None else Sampling()
        window = Window(
            self._optimizer,
            self.groups,
            sampling.every,
            sampling.window,
            sampling.second_moment,
            self._sampling.process_group,
            in_full=self._trace is not None or sampling.in_full,
            with_momentum=self._trace is not None or sampling.with_momentum,
        )
        if self._pace.sampling != sampling or sampling.process_group is not None:
            return window
        paces = [group.get(EVERY) for group in self.groups]
        if all((type(pace), pace) == (int, sampling.every) for pace in paces):
            saved = [(group.get(RING), group.get(LATEST)) for group in self.groups]
            window.restore(saved, update)
        # Their shapes must not depend on the number of ranks, nor on which groups have
        # one watcher: otherwise other runs could not load them.
        for group, (ring, latest) in zip(self.groups, window.windows, strict=True):
            group[RING], group[LATEST] = ring, latest
            group[EVERY] = sampling.every
        return window

    def _new_comparison(self) -> Comparison:
        """A comparison that goes on from the samples that the groups have."""
        sampling = self._sampling
        comparison = Comparison(
            self._optimizer,
            self.groups,
            sampling.signal,
            sampling.every,
            sampling.process_group,
        )
        if not comparison.is_shared:  # else every rank has samples of its own
            comparison.restore([group.get(BEFORE) for group in self.groups])
            for group, before in zip(self.groups, comparison.before, strict=True):
                group[BEFORE] = before
        return comparison

    @property
    def is_collective(self) -> bool:
        """Whether all ranks must do together what is due after a step."""
        return self._window is not None and self._window.is_collective

    @property
    def compares(self) -> bool:
        """Whether `before_update` has anything to do."""
        return self._comparison is not None

    @property
    def is_waiting(self) -> bool:
        """Whether a comparison is on its way from the device to the host."""
        return isinstance(self._sums, HostCopy)

    def due_in(self) -> int:
        """Steps until `before_update` or `after_update` has something to do.

        Between readings they have not, unless the pace must hear of each update.
        """
        first = self.groups[0]
        done, dues = int(first[UPDATES]), []
        if self._comparison is not None:
            dues.append(self._comparison.due_in(done))
        if self._window is not None:
            if not self._window.sources.found:
                return 1
            dues.append(self._window.every - done % self._window.every)
        return 1 if self._pace.needs_every_update(first) else min(dues)

    def before_update(self, update: int) -> Callable[[int], float] | None:
        """Compares, before a step, which may be done or not.

        Returns:
            The function from the update to its factor, if the comparison is used at
            once; else None.
        """
        self._ahead = self._sums = None
        comparison: Any = self._comparison
        if not comparison.is_of(self.groups):
            self._comparison = comparison = self._new_comparison()
        sums = comparison.take(update)
        if sums is None:
            return None
        # On a CPU they are read at once, while they are in its cache.
        self._sums = HostCopy(sums) if sums.is_cuda else sums.tolist()
        if self._sampling.lag:
            return None
        first = self.groups[0]
        ahead = {key: first[key] for key in self._pace.keys}
        ahead[UPDATES] = update - 1
        reading = self._compared(update)
        self._pace.judge([ahead], reading)
        self._ahead = ahead, reading
        return self._pace.follow(ahead, self._ramps.ramp(first))

    def after_update(self) -> bool:
        """Does what is due after a step. Returns whether the plan must be made again.

        That is so if the warmup of the groups is over, or if one of them missed the
        update and goes its own way from now on.
        """
        updates = [int(group[UPDATES]) for group in self.groups]
        if updates.count(self._update) == len(updates):  # the step was skipped
            return False
        for group, update in zip(self.groups, updates, strict=True):
            if update != self._update:
                self._pace.counted(group)
        self._update, update = updates[0], max(updates)
        if self._window is not None:
            self._read_window(self._window, update)
        if self._comparison is not None:
            self._use_comparison(self._comparison)
        first = self.groups[0]
        is_over = self._ramps.is_over(first) or not self._pace.reads(first)
        return is_over or min(updates) < update

    def _read_window(self, window: Window, update: int) -> None:
        if window.is_due(update) and not window.is_of(self._params()):
            # A framework has sharded the parameters, say.
            self._window = window = self._new_window(update - 1)
        reading = window.after(update)
        if reading is None:
            return
        self._known = reading
        if self._comparison is None:
            self._record(reading, self._pace.judge(self.groups, reading))

    def _use_comparison(self, comparison: Comparison) -> None:
        """Judges what was compared before the step, which is done by now."""
        comparison.keep(self._update)
        if self._ahead is not None:
            ahead, reading = self._ahead
            for group in self.groups:
                group.update({key: ahead[key] for key in self._pace.keys})
        elif self._sums is not None:
            reading = self._compared(self._update)
            self._pace.judge(self.groups, reading)
        else:
            return
        self._sums = self._ahead = None
        if not math.isnan(reading.alignment):
            self._record(reading, None)

    def _compared(self, update: int) -> Reading:
        """The reading of the comparison. Waits if it has not arrived yet."""
        comparison: Any = self._comparison
        sums: Any = self._sums
        numbers = sums.numbers() if isinstance(sums, HostCopy) else sums
        known, value = self._known, comparison.alignment(numbers, update)
        if self._window is None:
            known = Reading(update, *NOTHING[1:])
        return Reading(*known[:-1], value)

    def _record(self, reading: Reading, settled: bool | None) -> None:
        if self._trace is None:
            return
        lr = self.groups[0]["lr"]
        row = {
            "pool": self._index,
            "judged_after": self._update,
            "lr": None if isinstance(lr, Tensor) else float(lr),
            "factor": self._ramps.factor(self.groups[0]),
            "settled": settled,
            "watched": verdicts_of(self._watch, reading),
        }
        self._trace.add({**row, **reading._asdict()})

    def _params(self) -> list[Any]:
        return [param for group in self.groups for param in group["params"]]

    def describe(self) -> str:
        """What share of the parameters is watched, in words; empty before a reading."""
        if self._window is None or self._comparison is not None:
            return ""
        share = self._window.sources.watched
        return f"watching {share:.0%} of the parameters" if share else ""


def _alike(optimizer: Optimizer, ramps: Ramps, on_device: bool) -> list[list[Group]]:
    """The groups that warm alike, of those that are watched on the host or there."""
    pace = ramps.pace
    is_alone = pace.sampling is not None and pace.sampling.per_group
    alike: dict[Any, list[Group]] = {}
    for group in optimizer.param_groups:
        is_there = pace.on_device and not pace.has_table
        is_there = is_there and isinstance(group["lr"], Tensor)
        if is_there is on_device and ramps.is_warming(group) and pace.reads(group):
            ramp = ramps.ramp(group)
            stands = int(group[UPDATES]), *(plain(group.get(k)) for k in pace.keys)
            key = id(group) if is_alone else (ramp.steps, ramp.last, *stands)
            alike.setdefault(key, []).append(group)
    return list(alike.values())


def climbs_of(
    optimizer: Optimizer, ramps: Ramps, known: Sequence[DeviceClimb]
) -> list[DeviceClimb]:
    """A climb for all groups with a tensor LR that warm alike, if the pace has one."""
    by_groups = {tuple(map(id, climb.groups)): climb for climb in known}
    return [
        by_groups.get(tuple(map(id, groups))) or DeviceClimb(optimizer, groups, ramps)
        for groups in _alike(optimizer, ramps, on_device=True)
    ]


def watchers_of(
    optimizer: Optimizer,
    ramps: Ramps,
    watch: Sequence[Criterion],
    trace: Trace | None,
    known: Sequence[Watcher],
) -> list[Watcher]:
    """A watcher for all groups that warm alike, if their second moment is to be read.

    Args:
        optimizer: The wrapped optimizer; its warmup has begun in every group.
        ramps: Where the groups stand.
        watch: Criteria that are only recorded.
        trace: The record of the readings.
        known: Watchers from before, which are kept for the same groups.
    """
    sampling = ramps.pace.sampling
    if sampling is None and trace is None:
        return []
    by_groups = {tuple(map(id, watcher.groups)): watcher for watcher in known}
    return [
        by_groups.get(tuple(map(id, groups)))
        or Watcher(optimizer, groups, ramps, watch, trace)
        for groups in _alike(optimizer, ramps, on_device=False)
    ]
