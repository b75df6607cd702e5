"""A callback for Lightning that logs the effective LR.

Lightning's own LearningRateMonitor cannot see it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from warmopt.warmed import Warmed

__all__ = ["EffectiveLRMonitor"]


class EffectiveLRMonitor(Callback):
    """Logs the effective LR and the factor of the update that a batch is part of.

    Lightning's `LearningRateMonitor` logs the base LR, which is `group["lr"]`. This
    callback logs `effective_lr/AdamW` and `warmup_factor/AdamW` at the same steps, for
    every optimizer that is a `Warmed`, with the class name of the wrapped optimizer.
    The names follow those of Lightning: the second optimizer of a class is `AdamW-1`.
    If there are several param groups, they are `AdamW/pg1` and so on, or have their own
    `name`.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(logger=False, callbacks=[EffectiveLRMonitor()])
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Logs to all loggers, every `log_every_n_steps`."""
        # LearningRateMonitor uses the same two private attributes. The public method
        # self.log() would take far longer, at each batch.
        if trainer._logger_connector.should_update_logs:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            metrics = dict(_metrics(trainer))
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step)


def _metrics(trainer: Trainer) -> Iterator[tuple[str, float]]:
    """Yields the name and the value of each number to log."""
    seen: Counter[str] = Counter()
    for warmed in trainer.optimizers:
        name = type(getattr(warmed, "wrapped", warmed)).__name__
        count, seen[name] = seen[name], seen[name] + 1
        if isinstance(warmed, Warmed):
            name += f"-{count}" if count else ""
            groups, factors = warmed.param_groups, warmed.factors
            for number, (group, factor) in enumerate(zip(groups, factors, strict=True)):
                part = group.get("name") or (len(groups) > 1 and f"pg{number + 1}")
                where = f"{name}/{part}" if part else name
                yield f"effective_lr/{where}", float(group["lr"] * factor)
                yield f"warmup_factor/{where}", factor
