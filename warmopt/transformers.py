"""A callback for the Trainer of transformers that logs the effective LR.

The Trainer itself cannot see it.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from warmopt.warmed import Warmed

__all__ = ["EffectiveLRCallback"]


class EffectiveLRCallback(TrainerCallback):
    """Adds `effective_learning_rate` to the logs, next to `learning_rate`.

    The Trainer logs the base LR of the first param group, `group["lr"]`. This callback
    adds the LR that the same update of the same group really used. It adds nothing if
    the optimizer is not a `Warmed`.

    The Trainer calls the loggers named in `report_to` before your own callbacks, so
    they do not see what is added. To let them see it, pass them as callbacks yourself,
    after this one.

    Example:
        >>> callbacks = [EffectiveLRCallback()]  # and then, say, TensorBoardCallback()
    """

    def __init__(self) -> None:
        self._last: Any = None

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Optimizer | None = None,
        **_: Any,
    ) -> None:
        """Remembers the LR of this update, before the scheduler changes it."""
        warmed = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        if isinstance(warmed, Warmed):
            # A product is a copy: a tensor LR may change in place until it is logged.
            self._last = warmed.get_last_lr()[0] * 1.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Adds it to the training logs and to the history, but not to other logs."""
        # Only the logs of training have a learning rate; those of evaluation have none.
        if self._last is not None and logs and "learning_rate" in logs:
            added = {"effective_learning_rate": float(self._last)}
            logs.update(added)
            state.log_history[-1].update(added)
