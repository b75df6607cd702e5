"""What watches param groups: one window, one verdict and one pace for a few of them.

Groups that began together and warm alike have one watcher, so that the ratio of their
learning rates stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from warmopt._groups.ramps import Ramps
from warmopt._keys import EVERY, FAST, LATEST, RING, SETTLED, UPDATES, Group
from warmopt._measure.window import Window
from warmopt._pace import Sampling
from warmopt.criteria import Criterion, Reading
from warmopt.trace import Recorded, Trace, verdicts_of

__all__ = ["Watcher", "watchers_of"]


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
        self._window = self._new_window(self._update)
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
            first_verdict=due if self._window.has_samples else due + every,
            first_row=len(trace.rows),
            **self._pace.recorded(),
        )
        trace.record(self._index, new)

    def _new_window(self, update: int) -> Window:
        """A window that goes on from those that the groups had after `update`."""
        sampling = self._sampling
        window = Window(
            self._optimizer,
            self.groups,
            sampling.every,
            sampling.window,
            sampling.second_moment,
            sampling.process_group,
            in_full=self._trace is not None or sampling.in_full,
        )
        if self._pace.sampling is None or sampling.process_group is not None:
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

    @property
    def is_collective(self) -> bool:
        """Whether all ranks must take a reading together."""
        return self._window.is_collective

    def due_in(self) -> int:
        """Steps until `after_update` has something to do, at the soonest.

        Between readings it has not, unless the pace must be told of each update.
        """
        first = self.groups[0]
        if self._pace.needs_every_update(first) or not self._window.sources.found:
            return 1
        return self._window.every - int(first[UPDATES]) % self._window.every

    def after_update(self) -> bool:
        """Does what is due after a step. Returns whether the plan must be made again.

        That is so if the warmup of the groups is over, or if one of them missed the
        update and goes its own way from now on.
        """
        updates = [int(group[UPDATES]) for group in self.groups]
        if all(update == self._update for update in updates):  # the step was skipped
            return False
        for group, update in zip(self.groups, updates, strict=True):
            if update != self._update:
                self._pace.counted(group)
        self._update, update = updates[0], max(updates)
        if self._window.is_due(update):
            params = [param for group in self.groups for param in group["params"]]
            if not self._window.is_of(params):  # a framework has sharded them, say
                self._window = self._new_window(update - 1)
        reading = self._window.after(update)
        if reading is not None:
            self._judge(reading)
        return self._ramps.is_over(self.groups[0]) or min(updates) < update

    def _judge(self, reading: Reading) -> None:
        settled = self._pace.judge(self.groups, reading)
        if self._trace is not None:
            lr = self.groups[0]["lr"]
            row = {
                "pool": self._index,
                "judged_after": self._update,
                "lr": None if isinstance(lr, Tensor) else float(lr),
                "factor": self._ramps.factor(self.groups[0]),
                "settled": settled,
                "watched": verdicts_of(self._watch, reading),
            }
            self._trace.rows.append({**row, **reading._asdict()})

    def describe(self) -> str:
        """What share of the parameters is watched, in words; empty before a reading."""
        share = self._window.sources.watched
        return f"watching {share:.0%} of the parameters" if share else ""


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
    is_alone = sampling is not None and sampling.per_group
    alike: dict[Any, list[Group]] = {}
    for group in optimizer.param_groups:
        if ramps.is_warming(group):
            ramp = ramps.ramp(group)
            stands = int(group[UPDATES]), *map(group.get, ramps.pace.keys)
            key = id(group) if is_alone else (ramp.steps, ramp.last, *stands)
            alike.setdefault(key, []).append(group)
    by_groups = {tuple(map(id, watcher.groups)): watcher for watcher in known}
    return [
        by_groups.get(tuple(map(id, groups)))
        or Watcher(optimizer, groups, ramps, watch, trace)
        for groups in alike.values()
    ]
