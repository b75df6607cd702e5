"""The keys under which a param group keeps its warmup, and what a param group is.

They hold plain values, so that every way of saving an optimizer saves them too, a bare
optimizer ignores them, and there is no second file to forget.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "DONE",
    "EVERY",
    "FAST",
    "LATEST",
    "LENGTH",
    "MODE",
    "RING",
    "SETTLED",
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
# And so have all paces that read the second moment, but not with a `process_group`.
RING = "warmup_ring"  # float tensor: the window of samples, see `Window`
LATEST = "warmup_latest"  # float tensor [3 + tensors]: the last reading, see `Window`
EVERY = "warmup_every"  # int: updates between the samples in the window
WINDOW = (RING, LATEST, EVERY)


def are_same(known: list[Group] | None, live: list[Group]) -> bool:
    """Whether the param groups are those that are known, or equal to them.

    Lists compare their entries by identity first, in a few nanoseconds. Only if a group
    was replaced are its values compared, and tensors cannot always be.
    """
    try:
        return known == live
    except (RuntimeError, ValueError):
        return False
