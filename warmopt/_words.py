"""Names that other libraries use, and what to write here instead."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

__all__ = ["ATTRIBUTES", "check_names", "did_you_mean", "explains_arguments"]

P = ParamSpec("P")
T = TypeVar("T")

_STEPS = "The length is steps, in updates: steps=1000."
_EPOCHS = "The length is steps, in updates: epochs * len(loader) // accumulation."
_RATIO = "A share is steps too: steps=0.1, total_steps=10_000."
_TOTAL = "The length of the whole run is total_steps."
_START = "The factor at update 0 is start."
_START_LR = "start is a factor: pass start=first_lr / lr."
_SHAPE = "The shape is mode: mode='cosine'."
_ADAPTIVE = "It belongs to Adaptive: mode=Adaptive(...)."

# Arguments of other warmups, and what to write instead.
_ARGUMENTS = {
    **dict.fromkeys(
        ("warmup_steps", "num_warmup_steps", "warmup_iters", "num_steps", "warmup"),
        _STEPS,
    ),
    **dict.fromkeys(("epochs", "warmup_epochs", "num_epochs"), _EPOCHS),
    **dict.fromkeys(("ratio", "warmup_ratio"), _RATIO),
    **dict.fromkeys(("num_training_steps", "total_iters", "max_steps"), _TOTAL),
    **dict.fromkeys(("start_factor", "warmup_factor", "warmup_start"), _START),
    **dict.fromkeys(("start_lr", "init_lr", "warmup_init_lr"), _START_LR),
    **dict.fromkeys(("shape", "warmup_type", "strategy", "schedule"), _SHAPE),
    **dict.fromkeys(
        ("fast", "criterion", "on_settled", "every", "window", "per_group"), _ADAPTIVE
    ),
    "power": "It belongs to a shape: mode=partial(warmopt.shapes.polynomial, power=3).",
    "lr": "The LR is that of the optimizer: Warmed(SGD(params, lr=0.1), steps=1000).",
}

# Attributes that people ask for, and ours.
ATTRIBUTES = {
    "factor": "factors",
    "warmup_factor": "factors",
    "effective_lr": "get_last_lr()",
    "last_lr": "get_last_lr()",
    "get_lr": "get_last_lr()",
    "lr": "get_last_lr(), or the base LR in param_groups",
    "is_done": "done",
    "finished": "done",
    "reset": "rewarm()",
    "restart": "rewarm()",
    "unwrap": "wrapped",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to put behind an error, if a known word is much like the one given."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_names(given: Iterable[str], names: list[str]) -> None:
    """Raises an error for an argument that does not exist, and says which one does."""
    for name in given:
        if name not in names:
            hint = _ARGUMENTS.get(name) or did_you_mean(name, names).strip()
            if hint:
                raise TypeError(f"{name} is not an argument of Warmed. {hint}")


def explains_arguments(init: Callable[P, T]) -> Callable[P, T]:
    """Lets a call check the names of its arguments first."""
    names = list(inspect.signature(init).parameters)

    @functools.wraps(init)
    def explained(*args: P.args, **kwargs: P.kwargs) -> T:
        check_names(kwargs, names)
        return init(*args, **kwargs)

    return explained
