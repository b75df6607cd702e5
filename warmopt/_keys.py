"""The keys under which a param group keeps its warmup, and what a param group is.

They hold plain values, so that every way of saving an optimizer saves them too, a bare
optimizer ignores them, and there is no second file to forget.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BEFORE",
    "BEST",
    "CLIMB",
    "DONE",
    "EVERY",
    "FACTOR",
    "FAST",
    "LATEST",
    "LENGTH",
    "LOGS",
    "MODE",
    "PHASE",
    "RAMP_FROM",
    "RING",
    "SEEN",
    "SETTLED",
    "SIGNAL",
    "SINCE",
    "STATE",
    "UPDATES",
    "WINDOW",
    "Group",
    "are_same",
]

Group = dict[str, Any]

# Every warmup has these. The first two are tensors where the LR is one.
UPDATES = "warmup_updates"  # int: updates done
DONE = "warmup_done"  # bool: the warmup of the group is over, for good
MODE = "warmup_mode"  # str: name of the mode
LENGTH = "warmup_length"  # number of updates, from beta2 or rewarm(); 0 if from neither
STATE = (UPDATES, DONE, MODE, LENGTH)
# Adaptive mode has these too.
FAST = "warmup_fast"  # int: of the updates done, those at the fast pace
SETTLED = "warmup_settled"  # bool: whether the next update is at the fast pace
# Aligned mode has these: see `_climb.Climb`. They are tensors where the LR is one.
PHASE = "warmup_phase"  # int: what the climb is doing
FACTOR = "warmup_factor"  # float: of the next update
BEST = "warmup_best"  # float: the highest factor since the climb began
SINCE = "warmup_since"  # int: updates since that rose
LOGS = "warmup_logs"  # float: sum of the logarithms of the factor over those updates
SEEN = "warmup_seen"  # int: readings in the search for a signal
SIGNAL = "warmup_signal"  # float: their sum
RAMP_FROM = "warmup_ramp_from"  # int: updates done when the plain ramp began
CLIMB = (PHASE, FACTOR, BEST, SINCE, LOGS, SEEN, SIGNAL, RAMP_FROM)
# And so have all paces that read, but not with a `process_group`.
RING = "warmup_ring"  # float tensor: the window of samples, see `Window`
LATEST = "warmup_latest"  # float tensor [3 + tensors]: the last reading, see `Window`
EVERY = "warmup_every"  # int: updates between the samples in the window
BEFORE = "warmup_before"  # float tensor: the last two samples, see `Comparison`
WINDOW = (RING, LATEST, EVERY, BEFORE)


def are_same(known: list[Group] | None, live: list[Group]) -> bool:
    """Whether the param groups are those that are known, or equal to them.

    Lists compare their entries by identity first, in a few nanoseconds. Only if a group
    was replaced are its values compared, and tensors cannot always be.
    """
    try:
        return known == live
    except (RuntimeError, ValueError):
        return False
