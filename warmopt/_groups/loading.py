"""Saving and loading a state dict.

What is saved is what the groups hold between two steps, whenever somebody asks. What is
loaded is checked before anything changes, and then completed.

The hooks on the wrapped optimizer run whether you load through `Warmed` or through it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from warmopt._groups.state import States
from warmopt._keys import UPDATES, Group
from warmopt._tell import tell

__all__ = ["Hooks", "checked_and_completed", "is_same_load", "with_entries"]


_HOOKS = (
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
    "_optimizer_step_pre_hooks",
)


class Hooked(Protocol):
    """What the hooks ask of the wrapper."""

    def _before_save(self) -> None: ...
    def _after_save(self, state_dict: dict[str, Any]) -> dict[str, Any]: ...
    def _before_load(self, state_dict: dict[str, Any]) -> dict[str, Any]: ...
    def _after_load(self) -> None: ...
    def _before_step_alone(self) -> bool: ...


class Hooks:
    """The hooks on the wrapped optimizer. They may be pickled with it.

    They hold the wrapper weakly, since a wrapper that is no longer used must not act.
    """

    def __init__(self, warmed: Hooked | None = None) -> None:
        self._warmed = (lambda: None) if warmed is None else weakref.ref(warmed)
        self._told = False

    def __reduce__(self) -> tuple[type[Hooks], tuple[()]]:
        return Hooks, ()

    @staticmethod
    def found_on(wrapped: Optimizer) -> Iterator[tuple[dict[int, Any], int, Hooks]]:
        """The hooks of all its wrappers: where each one is, its key, and its owner."""
        for hooks in [vars(wrapped).get(name, {}) for name in _HOOKS]:
            for key, hook in list(hooks.items()):
                owner = getattr(hook, "__self__", None)
                if isinstance(owner, Hooks):
                    yield hooks, key, owner

    def register(self, wrapped: Optimizer) -> RemovableHandle | None:
        """Hooks saving and loading, if the class of the optimizer has such hooks.

        Returns the handle of a hook before the step, which is to be removed when the
        wrapper is stepped: until then, somebody may step the wrapped optimizer alone.
        """
        for hooks, key, owner in self.found_on(wrapped):
            if owner._warmed() is None:
                del hooks[key]  # of a wrapper that is no longer used
        if hasattr(wrapped, "_optimizer_load_state_dict_pre_hooks"):
            wrapped.register_state_dict_pre_hook(self._before_save)
            # First, so that hooks of users see what is saved.
            wrapped.register_state_dict_post_hook(self._after_save, prepend=True)
            wrapped.register_load_state_dict_pre_hook(self._before_load)
            wrapped.register_load_state_dict_post_hook(self._after_load)
        if not hasattr(wrapped, "_optimizer_step_pre_hooks"):
            return None
        return wrapped.register_step_pre_hook(self._before_step)

    def _before_step(self, *_: Any) -> None:
        # It may not be removed from here, since torch is walking through the hooks.
        if not self._told and (warmed := self._warmed()) is not None:
            self._told = warmed._before_step_alone()

    def _before_save(self, _: Optimizer) -> None:
        if (warmed := self._warmed()) is not None:
            warmed._before_save()

    def _after_save(
        self, _: Optimizer, state_dict: dict[str, Any]
    ) -> dict[str, Any] | None:
        warmed = self._warmed()
        return None if warmed is None else warmed._after_save(state_dict)

    def _before_load(
        self, _: Optimizer, state_dict: dict[str, Any]
    ) -> dict[str, Any] | None:
        warmed = self._warmed()
        return None if warmed is None else warmed._before_load(state_dict)

    def _after_load(self, _: Optimizer) -> None:
        if (warmed := self._warmed()) is not None:
            warmed._after_load()


def with_entries(
    state_dict: dict[str, Any], entries: list[dict[str, Any]]
) -> dict[str, Any]:
    """A state dict whose param groups have other values of some of their entries."""
    saved = state_dict.get("param_groups")
    if not isinstance(saved, list) or len(saved) != len(entries):
        return state_dict  # a class with a form of its own
    groups = [
        {**group, **{key: new[key] for key in new if key in group}}
        for group, new in zip(saved, entries, strict=True)
    ]
    return {**state_dict, "param_groups": groups}


def checked_and_completed(
    state_dict: dict[str, Any], live: list[Group], states: States
) -> dict[str, Any]:
    """Checks what is ours in a state dict, and adds what it lacks from the live groups.

    Raises:
        TypeError: A value of the warmup is of the wrong type.
        ValueError: A value of the warmup is not allowed.
    """
    saved = state_dict.get("param_groups")
    if saved is None:
        return state_dict  # a class with a form of its own; or torch will refuse it
    if not isinstance(saved, Iterable):
        raise TypeError(
            f"param_groups of the loaded state must be a list of dicts, got {saved!r}. "
            "Load what state_dict() has returned."
        )
    if not all(isinstance(group, dict) for group in saved):
        return state_dict  # likewise
    completed, is_bare = list(saved), False
    # If one has more groups than the other, torch will refuse the state.
    for index, (old, new) in enumerate(zip(live, saved, strict=False)):
        name = f"param group {index} of the loaded state"
        states.check(new, name)
        missing: tuple[str, ...] = (states.ramps.steps_key, states.ramps.start_key)
        if UPDATES not in new:  # else what it lacks follows from its own count
            missing += states.keys
        kept = {key: old[key] for key in missing if key in old and key not in new}
        completed[index] = {**new, **kept}
        states.rehearse(completed[index], name)
        is_bare = is_bare or UPDATES in kept
    if is_bare:
        tell(
            "The loaded state is of an optimizer without warmup: the warmup goes on "
            "from where it was. Call rewarm() to start it again."
        )
    return {**state_dict, "param_groups": completed}


def is_same_load(checked: dict[str, Any] | None, state_dict: dict[str, Any]) -> bool:
    """Whether a state dict is the one that was checked, or torch's copy of it."""
    key = "param_groups"
    return checked is not None and (
        state_dict is checked
        or (key in checked and state_dict.get(key) is checked[key])
    )
