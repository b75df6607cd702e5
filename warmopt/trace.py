"""What an adaptive warmup saw and decided, to be saved, plotted and replayed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from warmopt.adaptive import Adaptive, Criterion
from warmopt.criteria import Reading

__all__ = ["Replay", "Trace", "replay"]


class Trace:
    """A record of every reading; give a new one to `Warmed`.

    Attributes:
        pools: For each pool of param groups, by the index of its first group, what a
            replay must know: `steps` and `last` (updates), `on_settled`, `fast`,
            `every`, and from which state the record goes on: `updates`, `fast_done`,
            `settled`. And `criterion`, in words, if one acts.
        rows: One dict per reading, in order: `pool`; `update`, after which the sample
            was taken, and `judged_after`, after which it was judged (both count from
            1); `lr`, the base LR of the first group then (None where it is a tensor);
            `factor` of the update after that; `settled`, the verdict (None where
            nothing acts); `watched`, the verdict of each watching criterion by its
            name; and the `Reading`, entry by entry. Made for `pandas.DataFrame(rows)`.
    """

    def __init__(self) -> None:
        self.pools: dict[int, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def readings(self, pool: int = 0) -> list[Reading]:
        """The readings of one pool, in order."""
        rows = [row for row in self.rows if row["pool"] == pool]
        return [Reading(*(row[name] for name in Reading._fields)) for row in rows]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON lines: first the pools, then a line for each reading."""
        with open(path, "w", encoding="utf-8") as file:
            for line in ({"pools": self.pools}, *self.rows):
                file.write(json.dumps(line) + "\n")

    def plot(self, path: str | os.PathLike[str], pool: int = 0) -> None:
        """Saves a picture of one pool: factor, readings, verdicts. Needs matplotlib."""
        from warmopt.plots import save_trace

        rows = [row for row in self.rows if row["pool"] == pool]
        save_trace(path, rows, self.pools.get(pool, {}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Reads what `save` has written.

        Raises:
            ValueError: It is no trace, or a line is broken.
        """
        trace = cls()
        with open(path, encoding="utf-8") as file:
            try:
                first, *rows = map(json.loads, file)
                pools = first["pools"].items()
                trace.pools = {int(pool): known for pool, known in pools}
                for row in rows:
                    row["drifts"], row["sizes"] = map(
                        tuple, (row["drifts"], row["sizes"])
                    )
                    Reading(*(row[name] for name in Reading._fields))
                    trace.rows.append(row)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{os.fspath(path)} must be a trace in JSON lines, as Trace.save "
                    f"writes it; line {len(trace.rows) + 2} is not ({error!r})."
                ) from None
        return trace


class Replay(NamedTuple):
    """What a criterion would have done.

    Attributes:
        end: Update, counted from 1, that would have been the last of the warmup; None
            if the trace ends before.
        reason: "settled" if it would have gone faster at some time, "cap" if not;
            None while it has not ended.
        verdicts: Of each reading, in order.
    """

    end: int | None
    reason: str | None
    verdicts: list[bool]


def replay(
    trace: Trace, criterion: Criterion, *, pool: int = 0, **changes: Any
) -> Replay:
    """Runs a recorded warmup again under another criterion, without training.

    The readings stay those of the run that was recorded: that its own LR would have
    been another from the first different decision on is what a replay cannot know.

    Args:
        trace: Of a warmup that was adaptive or watched.
        criterion: Says from a `Reading` whether the second moment has settled.
        pool: Index of the first param group of the pool.
        **changes: Other arguments of `Adaptive`: `on_settled`, `fast`.

    Raises:
        ValueError: There is no such pool.
    """
    if pool not in trace.pools:
        raise ValueError(
            f"pool must be one of the trace, {sorted(trace.pools)}, got {pool!r}."
        )
    known = trace.pools[pool]
    options = {"on_settled": known["on_settled"], "fast": known["fast"], **changes}
    adaptive = Adaptive(criterion=criterion, **options)
    rows = [row for row in trace.rows if row["pool"] == pool]
    readings = trace.readings(pool)
    verdicts = [bool(criterion(reading)) for reading in readings]
    judged = dict(zip((row["judged_after"] for row in rows), verdicts, strict=True))
    every, begun = known["every"], known["updates"]
    # No verdict till then; the first sample is judged at the second.
    through = max(judged, default=begun - begun % every or every) + every
    fast: int = known["fast_done"]
    settled: bool = known["settled"]
    for update in range(begun + 1, through + 1):
        fast = adaptive.next_fast(fast, settled)
        position = adaptive.position(update, fast, known["steps"], known["last"])
        if position >= known["last"]:
            return Replay(update, "settled" if fast else "cap", verdicts)
        settled = judged.get(update, settled)
    return Replay(None, None, verdicts)


def verdicts_of(criteria: Sequence[Criterion], reading: Reading) -> dict[str, bool]:
    """Verdict of each criterion by its name: that of its class or function."""
    return {_name(criterion): bool(criterion(reading)) for criterion in criteria}


def _name(criterion: Criterion) -> str:
    return getattr(criterion, "__name__", None) or repr(criterion)
