"""Groups that began together and warm alike: one probe, one verdict, one pace."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from warmopt._groups.clock import Clock
from warmopt._keys import EVERY, FAST, LATEST, RING, SETTLED, UPDATES, Group
from warmopt._measure.window import Window
from warmopt.adaptive import Adaptive
from warmopt.criteria import Criterion, InverseRootVariance, Reading
from warmopt.trace import Recorded, Trace, name_of, verdicts_of

__all__ = ["Watcher"]


class Watcher:
    """Takes readings for some groups, and sets their pace if the mode is adaptive.

    What decides is kept in the groups (`warmup_fast`, `warmup_settled`, the window of
    each), so that a resumed run goes on as if it had not stopped. With a
    `process_group` the window is not kept, and fills anew.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        groups: list[Group],
        clock: Clock,
        watch: Sequence[Criterion],
        trace: Trace | None,
    ) -> None:
        self.groups = groups
        self._clock, self._watch, self._trace = clock, watch, trace
        self._acting = acting = clock.schedule.adaptive
        self._optimizer, self._reads = optimizer, acting or Adaptive()
        first, reads = groups[0], self._reads
        self._update = update = int(first[UPDATES])
        self._probe = self._new_probe(update)
        if trace is not None:
            all_groups = enumerate(optimizer.param_groups)
            self._index = next(i for i, group in all_groups if group is first)
            steps, last = clock.length(first)
            due = update - update % reads.every + reads.every
            new = Recorded(
                steps=steps,
                last=last,
                criterion=name_of(acting.criterion) if acting else None,
                on_settled=reads.on_settled,
                fast=reads.fast,
                every=reads.every,
                updates=update,
                fast_done=first.get(FAST, 0),
                settled=first.get(SETTLED, False),
                first_verdict=due if self._probe.has_window else due + reads.every,
                first_row=len(trace.rows),
            )
            trace.record(self._index, new)

    def _new_probe(self, update: int) -> Window:
        """One that goes on from the windows in the groups, as after `update`."""
        reads = self._reads
        probe = Window(
            self._optimizer,
            self.groups,
            reads.every,
            reads.window,
            reads.second_moment,
            reads.process_group,
            # Not for a subclass: it may look at more.
            in_full=self._trace is not None
            or type(reads.criterion) is not InverseRootVariance,
        )
        if self._acting is not None and reads.process_group is None:
            paces = [group.get(EVERY) for group in self.groups]
            if all((type(pace), pace) == (int, reads.every) for pace in paces):
                windows = [(g.get(RING), g.get(LATEST)) for g in self.groups]
                probe.restore(windows, update)
            # Their shape must not depend on the number of ranks, nor on who pools with
            # whom, lest others cannot load them.
            for group, (ring, latest) in zip(self.groups, probe.windows, strict=True):
                group[RING], group[LATEST], group[EVERY] = ring, latest, reads.every
        return probe

    @property
    def is_collective(self) -> bool:
        """Whether all ranks must take a reading together."""
        return self._probe.is_collective

    def looks_in(self) -> int:
        """How many steps from now `after_update` has something to do, at the soonest.

        Between readings it has not, but at the fast pace, where each update counts.
        """
        first = self.groups[0]
        if first.get(FAST) or first.get(SETTLED) or not self._probe.samples.found:
            return 1
        return self._probe.every - int(first[UPDATES]) % self._probe.every

    def after_update(self) -> bool:
        """To be called after a step. Says whether the groups part, or are done."""
        first, acting = self.groups[0], self._acting
        updates = [int(group[UPDATES]) for group in self.groups]
        if all(update == self._update for update in updates):  # skipped
            return False
        if acting is not None and (
            fast := acting.next_fast(first[FAST], first[SETTLED])
        ):
            for group, update in zip(self.groups, updates, strict=True):
                if update != self._update:
                    group[FAST] = fast
        self._update, update = updates[0], max(updates)
        if self._probe.is_due(update):
            params = [param for group in self.groups for param in group["params"]]
            if not self._probe.is_of(params):  # a framework has sharded them, say
                self._probe = self._new_probe(update - 1)
        reading = self._probe.after(update)
        if reading is not None:
            self._judge(reading)
        # At the slow pace the plan knows the end.
        is_over = acting and first[FAST] and self._clock.is_over(first)
        return bool(is_over) or min(updates) < update

    def _judge(self, reading: Reading) -> None:
        settled = None
        if self._acting is not None:
            settled = bool(self._acting.criterion(reading))
            for group in self.groups:
                group[SETTLED] = settled
        if self._trace is not None:
            lr = self.groups[0]["lr"]
            row = {
                "pool": self._index,
                "judged_after": self._update,
                "lr": None if isinstance(lr, Tensor) else float(lr),
                "factor": self._clock.factor(self.groups[0]),
                "settled": settled,
                "watched": verdicts_of(self._watch, reading),
            }
            self._trace.rows.append({**row, **reading._asdict()})

    def describe(self) -> str:
        """What share of the parameters is watched, in words; empty before a reading."""
        share = self._probe.samples.watched
        return f"watching {share:.0%} of the parameters" if share else ""
