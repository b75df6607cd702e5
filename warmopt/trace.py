"""What an adaptive warmup saw and decided, to be saved, plotted and replayed."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from warmopt._climb import RAMPING, Climb
from warmopt._keys import CLIMB, FAST, SETTLED, UPDATES
from warmopt._pace import Ramp
from warmopt.adaptive import Adaptive, OnSettled, verdict
from warmopt.aligned import Aligned
from warmopt.criteria import Criterion, Reading, name_of
from warmopt.shapes import linear

__all__ = ["Recorded", "Replay", "Trace", "replay", "verdicts_of"]


class Recorded(NamedTuple):
    """The warmup that a pool of param groups was in, and where its record begins.

    Attributes:
        steps: Length of the ramp in updates.
        last: Update after which it is over without a fast pace.
        criterion: Name of the criterion that acts; None if none does.
        on_settled: As in `Adaptive`, and so are `fast` and `every`.
        fast: Updates; None for the default.
        every: Updates between readings.
        updates: Updates that were done before the record.
        fast_done: How many of these were at the fast pace.
        settled: Whether the last verdict before the record was "settled".
        first_verdict: Update after which the record may have its first verdict.
        first_row: How many rows the trace had before.
        climb: Where the climb stood then, in aligned mode; else None.
    """

    steps: float
    last: int
    criterion: str | None
    on_settled: OnSettled
    fast: int | None
    every: int
    updates: int
    fast_done: int
    settled: bool
    first_verdict: int
    first_row: int
    climb: list[Any] | None = None


_SETTINGS = Recorded._fields.index("updates")  # the entries before are settings


class Trace:
    """A record of every reading. Give a new one to each `Warmed`.

    Attributes:
        pools: What was `Recorded`, for each pool of param groups that decide together,
            by the index of its first group.
        rows: One dict per reading, in order: `pool`; `update`, after which the sample
            was taken, and `judged_after`, after which it was judged (both count from
            1); `lr`, the base LR of the first group then (None if it is a tensor);
            `factor` of the update after that; `settled`, the verdict (None if no
            criterion acts); `watched`, the verdict of each watching criterion by its
            name; and all entries of the `Reading`. Made for `pandas.DataFrame(rows)`.

    Example:
        >>> from warmopt import Warmed
        >>> from warmopt.criteria import InverseRootVariance
        >>> trace, weight = Trace(), torch.nn.Parameter(torch.zeros(1))
        >>> warmed = Warmed(torch.optim.Adam([weight]), steps=60, trace=trace)
        >>> for _ in range(60):
        ...     weight.grad = torch.ones(1)
        ...     warmed.step()
        >>> [row["update"] for row in trace][:3]
        [5, 10, 15]
        >>> replay(trace, InverseRootVariance())[:2]
        (40, 'settled')
    """

    def __init__(self) -> None:
        self.pools: dict[int, Recorded] = {}
        self.rows: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        if not self.rows:
            return "Trace(no readings)"
        first, last = self.rows[0]["update"], self.rows[-1]["update"]
        pools = f"pools {sorted(self.pools)}"
        return f"Trace({len(self)} readings, updates {first} to {last}, {pools})"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def record(self, pool: int, new: Recorded) -> None:
        """Notes where the record of a pool begins, unless the old one goes on."""
        old = self.pools.get(pool)
        if old is not None and new.updates >= old.updates and new.updates:
            judged = [row["judged_after"] for row in self._rows_of(pool)]
            is_whole = new.updates < old.first_verdict
            if judged:
                due = new.updates - new.updates % new.every
                is_whole = due <= judged[-1] <= new.updates
            if is_whole and new[:_SETTINGS] == old[:_SETTINGS]:
                return
        self.pools[pool] = new

    def readings(self, pool: int = 0) -> list[Reading]:
        """The readings of one pool in its last warmup, in order.

        Raises:
            ValueError: There is no such pool.
        """
        return list(map(_reading, self._rows_of(pool)))

    def _rows_of(self, pool: int) -> list[dict[str, Any]]:
        """The rows of one pool, from where it was last warmed again."""
        if pool not in self.pools:
            raise ValueError(
                f"pool must be one of the trace, {sorted(self.pools)}, got {pool!r}."
            )
        known, rows = self.pools[pool], list[dict[str, Any]]()
        judged_after = 0
        for number, row in enumerate(self.rows):
            if row["pool"] == pool:
                if row["judged_after"] <= judged_after:
                    rows = []
                rows.append(row)
                judged_after, last_row = row["judged_after"], number
        if rows and last_row < known.first_row and judged_after > known.updates:
            return []  # it was warmed again, and not read since
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON lines: first the pools, then a line for each reading."""
        with open(path, "w", encoding="utf-8") as file:
            pools = {pool: known._asdict() for pool, known in self.pools.items()}
            for line in ({"pools": pools}, *self.rows):
                file.write(json.dumps(line) + "\n")

    def plot(self, path: str | os.PathLike[str], pool: int = 0) -> None:
        """Saves a picture of one pool: factor, readings, verdicts. Needs matplotlib.

        Args:
            path: File to write; its suffix says the format.
            pool: Index of the first param group of the pool.

        Raises:
            ValueError: There is no such pool.
        """
        from warmopt._tools.plots import save_trace

        rows, known = self._rows_of(pool), self.pools[pool]
        most = "at most " if known.criterion or known.climb else ""
        title = f"Warmup of {most}{known.last} updates, read every {known.every}"
        save_trace(path, rows, known.criterion, title)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Reads what `save` has written.

        Raises:
            ValueError: It is not a trace, or a line is broken.
        """
        trace, number = cls(), 1
        with open(path, encoding="utf-8") as file:
            try:
                for pool, known in json.loads(next(file, ""))["pools"].items():
                    trace.pools[int(pool)] = Recorded(**known)
                for line in file:
                    number += 1
                    trace.rows.append(_checked_row(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{os.fspath(path)} must be a trace in JSON lines, as Trace.save "
                    f"writes it; line {number} is not ({error!r})."
                ) from None
        return trace


class Replay(NamedTuple):
    """What a criterion would have done.

    Attributes:
        end: Update, counted from 1, that would have been the last of the warmup. None
            if the trace ends earlier.
        reason: "settled" if it would have ended early, "cap" if not, or a reason of
            `Aligned`; None while it has not ended.
        verdicts: Of each reading, in order; empty for `Aligned`.
        factors: For `Aligned`, the factor after each reading; else empty.
    """

    end: int | None
    reason: str | None
    verdicts: list[bool]
    factors: list[float] = []  # noqa: RUF012 (it is never changed)

    def __repr__(self) -> str:
        settled = f"settled in {sum(self.verdicts)} of {len(self.verdicts)} readings"
        return f"Replay(end={self.end}, reason={self.reason!r}, {settled})"


def replay(
    trace: Trace,
    criterion: Criterion | Aligned,
    *,
    pool: int = 0,
    on_settled: OnSettled | None = None,
    fast: int | None = None,
) -> Replay:
    """Runs a recorded warmup again under another criterion, without training.

    The readings stay those of the run that was recorded. With other decisions the run
    would have had another LR, and so other readings: a replay cannot know those.

    Args:
        trace: Of a warmup that was adaptive or watched.
        criterion: Says from a `Reading` whether the second moment has settled. Or an
            `Aligned` with other constants, for the trace of an aligned warmup.
        pool: Index of the first param group of the pool.
        on_settled: As in `Adaptive`; by default as it was recorded.
        fast: Updates, as in `Adaptive`; by default as it was recorded.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A value is not allowed, or there is no such pool.
    """
    rows = trace._rows_of(pool)
    known = trace.pools[pool]
    if isinstance(criterion, Aligned):
        return _replayed_climb(rows, known, criterion)
    adaptive = Adaptive(
        criterion,
        on_settled=known.on_settled if on_settled is None else on_settled,
        fast=known.fast if fast is None else fast,
    )
    verdicts = [verdict(criterion, _reading(row)) for row in rows]
    judged = dict(zip((row["judged_after"] for row in rows), verdicts, strict=True))
    # After this update there may be verdicts that the record does not know.
    through = max([known.first_verdict, *(row + known.every for row in judged)])
    group = {FAST: known.fast_done, SETTLED: known.settled}
    # The shape does not matter: only the end of the ramp is asked for.
    ramp = Ramp(linear, known.steps, 0.0, 0, known.last)
    for update in range(known.updates + 1, through + 1):
        group[UPDATES] = update
        adaptive.counted(group)
        if adaptive.is_over(group, ramp):
            return Replay(update, adaptive.done_reason(group, ramp), verdicts)
        group[SETTLED] = judged.get(update, group[SETTLED])
    return Replay(None, None, verdicts)


def _replayed_climb(
    rows: list[dict[str, Any]], known: Recorded, aligned: Aligned
) -> Replay:
    """A recorded climb with other constants."""
    if known.climb is None:
        raise ValueError(
            "trace must be of an aligned warmup to be replayed with an Aligned, got "
            f"one of a warmup whose criterion is {known.criterion}."
        )
    begun = Climb.begun(aligned.start)
    now = Climb(*known.climb) if known.updates else begun
    ramp, ended = Ramp(linear, known.steps, 0.0, 0, known.last), None
    factors = []
    for row in rows:
        now = now.after(row["alignment"], row["judged_after"], aligned.limits)
        factors.append(now.factor)
        group = {**dict(zip(CLIMB, now, strict=True)), UPDATES: row["judged_after"]}
        if ended is None and aligned.is_over(group, ramp):
            ended = row["judged_after"], aligned.done_reason(group, ramp)
    if ended is None and now.phase == RAMPING:
        ended = known.last, "ramped"
    end, reason = ended or (None, None)
    return Replay(end, reason, [], factors)


def _checked_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was before it was saved. Raises a KeyError if an entry is missing."""
    row = {**row, "drifts": tuple(row["drifts"]), "sizes": tuple(row["sizes"])}
    row.setdefault("alignment", math.nan)  # older traces do not have it
    for name in ("pool", "judged_after", "factor", "settled", *Reading._fields):
        row[name]
    return row


def _reading(row: dict[str, Any]) -> Reading:
    return Reading(*(row[name] for name in Reading._fields))


def verdicts_of(criteria: Sequence[Criterion], reading: Reading) -> dict[str, bool]:
    """Verdict of each criterion by its name; the second of a name gets "(2)"."""
    seen, verdicts = Counter[str](), {}
    for criterion in criteria:
        name = name_of(criterion)
        seen[name] += 1
        number = f" ({seen[name]})" if seen[name] > 1 else ""
        verdicts[name + number] = verdict(criterion, reading)
    return verdicts
