"""Loading a state dict: checked before anything changes, completed from what is live.

Whichever of the two objects saves or loads, the hooks on the wrapped optimizer do it.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any, Protocol

from torch.optim import Optimizer

from warmopt._groups.clock import Clock
from warmopt._keys import PACE_STATE, STATE, UPDATES, Group

__all__ = ["Hooks", "checked_and_completed"]


class Hooked(Protocol):
    """What the hooks ask of the wrapper."""

    def _before_save(self) -> None: ...
    def _before_load(self, state_dict: dict[str, Any]) -> dict[str, Any]: ...
    def _after_load(self) -> None: ...


class Hooks:
    """The hooks on the wrapped optimizer, which may be pickled with it.

    They hold the wrapper weakly: an abandoned or copied one must not act.
    """

    def __init__(self, warmed: Hooked | None = None) -> None:
        self._warmed = (lambda: None) if warmed is None else weakref.ref(warmed)

    def __reduce__(self) -> tuple[type[Hooks], tuple[()]]:
        return Hooks, ()

    def register(self, wrapped: Optimizer) -> None:
        """Hooks its saving and loading, if it is of a class that has hooks."""
        if hasattr(wrapped, "_optimizer_load_state_dict_pre_hooks"):
            wrapped.register_state_dict_pre_hook(self._before_save)
            wrapped.register_load_state_dict_pre_hook(self._before_load)
            wrapped.register_load_state_dict_post_hook(self._after_load)

    def _before_save(self, _: Optimizer) -> None:
        if (warmed := self._warmed()) is not None:
            warmed._before_save()

    def _before_load(
        self, _: Optimizer, state_dict: dict[str, Any]
    ) -> dict[str, Any] | None:
        warmed = self._warmed()
        return None if warmed is None else warmed._before_load(state_dict)

    def _after_load(self, _: Optimizer) -> None:
        if (warmed := self._warmed()) is not None:
            warmed._after_load()


def checked_and_completed(
    state_dict: dict[str, Any], live: list[Group], clock: Clock
) -> dict[str, Any]:
    """Checks what is ours in the state; takes what it lacks from the live groups."""
    if "param_groups" not in state_dict:
        return state_dict  # of a class with a form of its own
    saved = list(state_dict["param_groups"])
    if not all(isinstance(group, dict) for group in saved):
        return state_dict  # torch will refuse it
    for index, group in enumerate(saved):
        clock.check(group, f"param group {index} of the loaded state")
    bare = False
    # Where there are more of the one than of the other, torch will refuse.
    for index, (old, new) in enumerate(zip(live, saved, strict=False)):
        ours = [clock.steps_key, clock.start_key]
        if UPDATES not in new:  # else what it lacks follows from its own count
            ours += (*STATE, *PACE_STATE)
        kept = {key: old[key] for key in ours if key in old and key not in new}
        saved[index] = {**new, **kept}
        clock.check_new(saved[index], f"param group {index} of the loaded state")
        bare = bare or UPDATES in kept
    if bare:
        warnings.warn(
            "The loaded state is of an optimizer without warmup: the warmup goes on "
            "from where it was. Call rewarm() to begin it anew.",
            stacklevel=4,
        )
    return {**state_dict, "param_groups": saved}
