"""Which step begins a new update of a param group, if its parameters come in parts.

DeepSpeed's ZeRO 3 makes one update of a group in several steps: for each it puts a part
of the parameters into `group["params"]`, and then it empties the list again. The other
groups are empty meanwhile. So the count of a group is how often each of its parameters
was updated. A part is known by its first parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

from warmopt._keys import Group

__all__ = ["Parts"]


class Parts:
    """Remembers which parts of each group were stepped since its update began."""

    def __init__(self) -> None:
        self._stepped: dict[int, set[int]] = {}  # by the `id` of the group
        self._whole: set[int] = set()

    def expect(self, groups: Sequence[Group]) -> None:
        """Notes which groups have parameters. Others may have theirs on another rank.

        What is known of groups that are not among these is forgotten.
        """
        ids = {id(group): bool(group["params"]) for group in groups}
        known = self._stepped
        self._stepped = {i: known.get(i, set()) for i in ids if ids[i] or i in known}
        self._whole &= set(ids)

    def begins(self, group: Group) -> bool:
        """Whether a step, which comes now, begins a new update of this group."""
        params, key = group["params"], id(group)
        self._whole.discard(key)
        if not params:
            return key not in self._stepped
        stepped, part = self._stepped.setdefault(key, set()), id(params[0])
        if part in stepped:
            if len(stepped) == 1:
                self._whole.add(key)
            stepped.clear()
        stepped.add(part)
        return len(stepped) == 1

    def are_whole(self, groups: Sequence[Group]) -> bool:
        """Whether each of the last two steps has updated all parameters."""
        return all(id(group) in self._whole for group in groups)
