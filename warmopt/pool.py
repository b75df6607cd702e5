"""Groups that began together and warm alike: one probe, one verdict, one pace."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from warmopt.adaptive import Adaptive, Criterion
from warmopt.clock import FAST, LATEST, RING, SETTLED, UPDATES, Clock
from warmopt.criteria import InverseRootVariance, Reading
from warmopt.group_lr import Group
from warmopt.probe import Probe
from warmopt.trace import Trace, verdicts_of

__all__ = ["Pool"]


class Pool:
    """Takes readings for some groups, and sets their pace if the mode is adaptive.

    What decides is kept in the groups (`warmup_fast`, `warmup_settled`; the window in
    the first), so that a resumed run goes on as if it had not stopped. With a
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
        first, reads = groups[0], acting or Adaptive()
        self._update = int(first[UPDATES])
        self._probe = Probe(
            optimizer,
            groups,
            reads.every,
            reads.window,
            reads.second_moment,
            reads.process_group,
            in_full=trace is not None
            or not isinstance(reads.criterion, InverseRootVariance),
        )
        if acting is not None and acting.process_group is None:
            self._probe.restore(first.get(RING), first.get(LATEST), self._update)
        self._keep_window()
        if trace is not None:
            all_groups = enumerate(optimizer.param_groups)
            self._index = next(i for i, group in all_groups if group is first)
            steps, last = clock.length(first)
            trace.pools[self._index] = {
                "steps": steps,
                "last": last,
                "on_settled": reads.on_settled,
                "fast": reads.fast,
                "every": reads.every,
                "updates": self._update,
                "fast_done": first.get(FAST, 0),
                "settled": first.get(SETTLED, False),
            }

    @property
    def is_collective(self) -> bool:
        """Whether all ranks must take a reading together."""
        return self._probe.is_collective

    def after_update(self) -> bool:
        """To be called after every step. Says whether the groups part, or are done."""
        first = self.groups[0]
        moved = [group for group in self.groups if int(group[UPDATES]) != self._update]
        if not moved:  # skipped
            return False
        if self._acting is not None:
            fast = self._acting.next_fast(first[FAST], first[SETTLED])
            for group in moved:
                group[FAST] = fast
        self._update = update = int(first[UPDATES])
        if any(int(group[UPDATES]) != update for group in self.groups):
            return True
        reading = self._probe.after(update)
        if self._probe.latest is not self._kept:
            self._keep_window()
        if reading is not None:
            self._judge(reading)
        return self._acting is not None and self._clock.is_over(first)

    def _keep_window(self) -> None:
        """In the group, to be saved."""
        self._kept = self._probe.latest
        # Its shape must not depend on the number of ranks, lest others cannot load it.
        if self._acting is not None and self._acting.process_group is None:
            self.groups[0][RING] = self._probe.ring.view(-1)  # it prints on one line
            self.groups[0][LATEST] = self._probe.latest

    def _judge(self, reading: Reading) -> None:
        settled = None
        if self._acting is not None:
            settled = bool(self._acting.criterion(reading))
            for group in self.groups:
                group[SETTLED] = settled
        if self._trace is not None:
            row = {
                "pool": self._index,
                "judged_after": self._update,
                "factor": self._clock.factor(self.groups[0]),
                "settled": settled,
                "watched": verdicts_of(self._watch, reading),
            }
            self._trace.rows.append({**row, **reading._asdict()})

    def describe(self) -> str:
        """What share of the parameters is watched, in words; empty before a reading."""
        share = self._probe.watched
        return f"watching {share:.0%} of the parameters" if share else ""
