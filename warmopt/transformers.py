"""Logs what the Trainer of transformers cannot see: the effective LR."""

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
    """Adds `effective_learning_rate` to the logs, beside `learning_rate`.

    What the Trainer logs is the base LR of the first param group, `group["lr"]`. This
    is the LR that the same update of the same group really used. Nothing is added
    where the optimizer is not `Warmed`.

    The Trainer calls the loggers named in `report_to` before any callback of yours. So
    that they see it too, pass them as callbacks, after this one.

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
        """Notes the LR of the update just made, before the scheduler moves on."""
        warmed = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        if isinstance(warmed, Warmed):
            self._last = warmed.get_last_lr()[0] * 1.0  # a tensor would be written to

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Adds it to the training logs and to the history; not to those of others."""
        if self._last is not None and logs and "learning_rate" in logs:
            added = {"effective_learning_rate": float(self._last)}
            logs.update(added)
            state.log_history[-1].update(added)
