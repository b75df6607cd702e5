"""What an adaptive warmup saw and decided, to be saved, plotted and replayed."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from warmopt._climb import RAMPING, Climb
from warmopt._keys import CLIMB, FAST, SETTLED, UPDATES
from warmopt._pace import Ramp
from warmopt.adaptive import Adaptive, OnSettled, verdict
from warmopt.aligned import Aligned
from warmopt.criteria import Criterion, Reading, name_of
from warmopt.shapes import linear

__all__ = ["Losses", "Recorded", "Replay", "Trace", "overlay", "replay", "verdicts_of"]

Losses = Sequence[float] | Mapping[int, float]
"""The loss of each update, the first of them first; or of some updates, by update."""


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

    in_doubt = False  # whether the rows may be those of another run

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

    # --- what `Warmed` calls ----------------------------------------------------------

    def record(self, pool: int, new: Recorded) -> None:
        """Notes where the record of a pool begins, unless the old one goes on."""
        if self.in_doubt:
            return  # it may be that a state is loaded next
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

    def add(self, row: dict[str, Any]) -> None:
        """Adds a reading.

        Raises:
            ValueError: There are readings of another run already.
        """
        if self.in_doubt:
            raise ValueError(
                f"trace must be new for a new run, got {self!r} of another run. Give "
                "each run its own: Warmed(..., trace=Trace()). To go on with the run "
                "that is recorded, load its state with load_state_dict first."
            )
        self.rows.append(row)

    # --- what users ask ---------------------------------------------------------------

    def readings(self, pool: int = 0) -> list[Reading]:
        """The readings of one pool in its last warmup, in order.

        Raises:
            ValueError: There is no such pool.
        """
        return list(map(_reading, self._rows_of(pool)))

    def _of_pool(self, pool: int) -> Recorded:
        if pool not in self.pools:
            raise ValueError(
                f"pool must be one of the trace, {sorted(self.pools)}, got {pool!r}."
            )
        return self.pools[pool]

    def _rows_of(self, pool: int) -> list[dict[str, Any]]:
        """The rows of one pool, from where it was last warmed again."""
        known, rows = self._of_pool(pool), list[dict[str, Any]]()
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

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        pool: int = 0,
        *,
        quantities: Sequence[Callable[[Reading], float]] = (),
        losses: Losses = (),
        replays: Mapping[str, Replay] | None = None,
    ) -> Any:
        """Draws one pool: factor, LR, readings, verdicts. Needs matplotlib.

        Args:
            path: File to write; its suffix says the format. A notebook shows what is
                returned, without a file.
            pool: Index of the first param group of the pool.
            quantities: What is drawn of the readings: criteria, whose own number is
                drawn with its limit, or functions from a `Reading` to a number. By
                default what the default criterion looks at.
            losses: The loss of each update from the first one on, or of some updates,
                by update.
            replays: What `replay` has given, by name; drawn beside what was recorded.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: There is no matplotlib.
            TypeError: A quantity cannot be called.
            ValueError: There is no such pool.
        """
        known = self._of_pool(pool)
        most = "at most " if known.criterion or known.climb else ""
        title = f"Warmup of {most}{known.last} updates, read every {known.every}"
        runs = {"run": (self, losses)}
        return _drawn(runs, title, path, pool, quantities, replays)

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


def overlay(
    runs: Mapping[str, Trace],
    path: str | os.PathLike[str] | None = None,
    pool: int = 0,
    *,
    quantities: Sequence[Callable[[Reading], float]] = (),
    losses: Mapping[str, Losses] | None = None,
) -> Any:
    """Draws several runs over each other, in one colour each. Needs matplotlib.

    Args:
        runs: Their traces, by the names that the legend shows.
        path: As in `Trace.plot`, and so are `pool` and `quantities`.
        pool: Index of the first param group of the pool, in each of them.
        quantities: What is drawn of the readings.
        losses: Those of some runs or all, by name; each as in `Trace.plot`.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: There is no matplotlib.
        TypeError: A run is no trace, or a quantity cannot be called.
        ValueError: There is no run, a name of `losses` is unknown, or a trace has no
            such pool.
    """
    losses = losses or {}
    if not runs:
        raise ValueError("runs must have a trace at least, got none.")
    for name, trace in runs.items():
        if not isinstance(trace, Trace):
            raise TypeError(f"runs must be traces by name, got {trace!r} for {name!r}.")
    if unknown := [name for name in losses if name not in runs]:
        raise ValueError(
            f"losses must be of runs, {', '.join(runs)}, got one of {unknown[0]!r}."
        )
    both = {name: (trace, losses.get(name, ())) for name, trace in runs.items()}
    return _drawn(both, "Warmups", path, pool, quantities, None)


def _drawn(
    runs: Mapping[str, tuple[Trace, Losses]],
    title: str,
    path: str | os.PathLike[str] | None,
    pool: int,
    quantities: Sequence[Callable[[Reading], float]],
    replays: Mapping[str, Replay] | None,
) -> Any:
    """The picture of these traces and their losses; also saved if there is a path."""
    try:
        from warmopt._tools.traces import Quantity, Replayed, Run, draw
    except ModuleNotFoundError as error:
        raise ImportError(
            "a picture needs matplotlib, which pip install 'warmopt[cli]' brings "
            f"({error})."
        ) from error

    found = {}
    for name, (trace, losses) in runs.items():
        rows, known = trace._rows_of(pool), trace.pools[pool]
        readings = list(map(_reading, rows))
        by_update = (
            losses if isinstance(losses, Mapping) else dict(enumerate(losses, 1))
        )
        found[name] = Run(
            rows,
            known.criterion,
            [Quantity(*_measured(each, readings)) for each in quantities],
            {update: float(loss) for update, loss in by_update.items()},
        )
    replayed = {
        name: Replayed(each.end, each.verdicts, each.factors)
        for name, each in (replays or {}).items()
    }
    picture = draw(found, title, replayed)
    if path is not None:
        picture.savefig(path, dpi=120)
    return picture


def _measured(
    of: Any, readings: list[Reading]
) -> tuple[str, float | None, list[float]]:
    """The name, the limit and the values of what a criterion or a function measures."""
    if not callable(of):
        raise TypeError(
            "quantities must be criteria, or functions of a Reading, such as lambda "
            f"reading: reading.update_rms, got {of!r}."
        )
    measure = getattr(of, "quantity", of)
    values = [float(measure(reading)) for reading in readings]
    return name_of(of), getattr(of, "limit", None), values


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
