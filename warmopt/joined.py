"""Several optimizers in one: Muon for the matrices and AdamW for the rest.

It holds nothing but the optimizers. Its param groups are theirs, the same dicts. So a
learning rate that is set here is set there too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from itertools import chain
from typing import Any, NoReturn

import torch
from torch.optim import Optimizer

from warmopt._keys import Group

__all__ = ["Joined", "owner", "parts_of"]

GROUPS, STATE = "param_groups", "state"


class Joined(Optimizer):
    """Several optimizers that are stepped, saved and scheduled as one.

    `Warmed([muon, adamw], steps=1000)` makes one of these. It works wherever an
    optimizer does, with or without a warmup: schedulers, GradScaler, checkpoints.

    A closure is called once, then all take their step. The state dict is that of one
    optimizer with the param groups of all, in order. `GradScaler` skips the step of all
    if any gradient is infinite. A hook on one of the optimizers runs in the middle of
    the step, so it sees the effective LR. A hook on `Joined` or `Warmed` does not.

    Do not use it for optimizers that are stepped at different times, like those of a
    GAN: wrap each in its own `Warmed`.

    Args:
        optimizers: Two or more. No parameter may be in two of them.

    Attributes:
        optimizers: The optimizers. To add a param group, add it to one of them.

    Raises:
        TypeError: `optimizers` is not a list of optimizers.
        ValueError: It is empty, or two of them share a parameter.

    Example:
        >>> matrix, bias = torch.nn.Parameter(torch.zeros(2, 2)), torch.zeros(2)
        >>> sgd, adamw = torch.optim.SGD([matrix], 0.5), torch.optim.AdamW([bias], 0.1)
        >>> joined = Joined([sgd, adamw])
        >>> [group["lr"] for group in joined.param_groups]
        [0.5, 0.1]
    """

    # Optimizer.__init__ is not called: it would make groups and a state of our own.
    # What else it does, hooks around `step`, __setstate__ does too.
    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        if not isinstance(optimizers, (list, tuple)) or not all(
            isinstance(each, Optimizer) for each in optimizers
        ):
            raise TypeError(
                f"optimizers must be a list of optimizers, got {optimizers!r}. Build "
                "them first: Joined([muon, adamw])."
            )
        if not optimizers:
            raise ValueError(
                "optimizers must not be empty, got []. Pass [muon, adamw]."
            )
        seen: dict[int, int] = {}
        for number, optimizer in enumerate(optimizers):
            for param in params_of(optimizer.param_groups):
                if seen.setdefault(id(param), number) != number:
                    raise ValueError(
                        "optimizers must not share a parameter, got one of shape "
                        f"{tuple(param.shape)} in optimizers {seen[id(param)]} and "
                        f"{number}. Give each parameter to one of them."
                    )
        self.__setstate__({"optimizers": list(optimizers)})

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.optimizers: list[Optimizer] = state["optimizers"]
        super().__setstate__({})

    # --- read through -------------------------------------------------------------

    @property
    def param_groups(self) -> list[Group]:
        """The groups of all, in order. The list is new, the dicts are theirs."""
        return [group for each in self.optimizers for group in each.param_groups]

    @param_groups.setter
    def param_groups(self, groups: list[Group]) -> None:
        for each, own in zip(self.optimizers, self._split(groups), strict=True):
            each.param_groups = own

    @property
    def state(self) -> State:  # type: ignore[override]
        """The state of all. What is put in for a parameter goes to its optimizer."""
        return State(self.optimizers)

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The options that all of them have, with the values of the first one."""
        first, *others = [each.defaults for each in self.optimizers]
        return {k: first[k] for k in first if all(k in other for other in others)}

    def __repr__(self) -> str:
        return f"Joined({self.optimizers!r})"

    # --- what an optimizer does ---------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Calls the closure if there is one, then steps all. Returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for each in self.optimizers:
            each.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Resets the gradients of all."""
        for each in self.optimizers:
            each.zero_grad(set_to_none)

    def add_param_group(self, param_group: Group) -> NoReturn:
        """Raises an error, since it is not clear which of them is meant."""
        raise ValueError(
            "param_group must be added to one of the optimizers, got one for "
            "Joined. Use its optimizers[0].add_param_group(...), and so on."
        )

    # --- saving and loading -------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state dicts of all as one, with their parameters numbered in one row.

        An entry that belongs to no parameter is kept under (optimizer, key).
        """
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        whole: dict[Any, Any] = {STATE: {}, GROUPS: []}
        first = 0
        for number, each in enumerate(self.optimizers):
            saved = dict(each.state_dict())
            groups = saved.pop(GROUPS)
            moved = {p: first + i for i, p in enumerate(params_of(groups))}
            first += len(moved)
            for key, value in saved.pop(STATE).items():
                whole[STATE][moved.get(key, (number, key))] = value
            for key in saved:
                whole[number, key] = saved[key]
            for group in groups:
                own = [moved[param] for param in group["params"]]
                whole[GROUPS].append({**group, "params": own})
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, whole)
            whole = whole if changed is None else changed
        return whole

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` has returned. Each optimizer loads its own part.

        Raises:
            ValueError: The number of param groups, or of their parameters, is
                different. Nothing has been loaded then.
        """
        state_dict = {**state_dict}
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        rest, parts = {**state_dict}, self._split(state_dict[GROUPS])
        states = rest.pop(STATE)
        del rest[GROUPS]
        for number, (each, groups) in enumerate(
            zip(self.optimizers, parts, strict=True)
        ):
            known = set(params_of(groups))
            own = {key: states[key] for key in states if key in known}
            own |= _of_number(number, states)
            part = {STATE: own, GROUPS: groups, **_of_number(number, rest)}
            each.load_state_dict(part)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _split(self, groups: list[Group]) -> list[list[Group]]:
        """Groups of the whole, as a list for each optimizer."""
        saved = [len(group["params"]) for group in groups]
        live = [len(group["params"]) for group in self.param_groups]
        if saved != live:
            raise ValueError(
                f"param_groups must hold {live} parameters, as the optimizers do, got "
                f"{saved}. Build the same optimizers as when they were saved."
            )
        rest = iter(groups)
        return [[next(rest) for _ in each.param_groups] for each in self.optimizers]


class State(MutableMapping[Any, Any]):
    """The states of several optimizers, read and written as one."""

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self._optimizers = optimizers

    def __getitem__(self, key: Any) -> Any:
        for each in self._optimizers:
            if key in each.state:  # a defaultdict: [key] would add an entry
                return each.state[key]
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        for each in self._optimizers:
            params = params_of(each.param_groups)
            if key in each.state or any(key is param for param in params):
                each.state[key] = value
                return
        raise KeyError(key)

    def __delitem__(self, key: Any) -> None:
        for each in self._optimizers:
            if key in each.state:
                del each.state[key]
                return
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(each.state for each in self._optimizers)

    def __len__(self) -> int:
        return sum(len(each.state) for each in self._optimizers)


def parts_of(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizers that one was joined from; of any other, itself."""
    return optimizer.optimizers if isinstance(optimizer, Joined) else [optimizer]


def owner(optimizer: Optimizer, group: Group) -> Optimizer:
    """The one of its parts that a group, or a copy of the group, belongs to."""
    for part in parts_of(optimizer):
        if any(own["params"] is group["params"] for own in part.param_groups):
            return part
    return optimizer


def params_of(groups: list[Group]) -> list[Any]:
    """The parameters in groups, or in a state dict their numbers, in order."""
    return [param for group in groups for param in group["params"]]


def _of_number(number: int, entries: dict[Any, Any]) -> dict[Any, Any]:
    """The entries that were kept under (number, key), by their key."""
    return {
        key[1]: value
        for key, value in entries.items()
        if isinstance(key, tuple) and key[0] == number
    }
