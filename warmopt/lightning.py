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

    Lightning's `LearningRateMonitor` logs the base LR, which is `group["lr"]`, as
    `lr-AdamW`. This callback logs `lr-AdamW-effective` and `lr-AdamW-factor` at the
    same steps, for every optimizer that is a `Warmed`, with the class name of the
    wrapped optimizer. The names follow those of Lightning, so they stand beside them:
    the second optimizer of a class is `lr-AdamW-1`. If there are several param groups,
    they are `lr-AdamW/pg1` and so on, or have their own `name`.

    Args:
        prog_bar: Whether the effective LR of the first group of the first `Warmed` is
            shown in the progress bar too, as `effective_lr`.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> monitor = EffectiveLRMonitor(prog_bar=True)
        >>> trainer = Trainer(logger=False, callbacks=[monitor])
    """

    def __init__(self, prog_bar: bool = False) -> None:
        self._prog_bar = prog_bar

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Logs to all loggers, every `log_every_n_steps`; shows it at each batch."""
        # LearningRateMonitor uses the same two private attributes. The public method
        # self.log() would take far longer, at each batch.
        is_due = trainer._logger_connector.should_update_logs
        if not (is_due or self._prog_bar):
            return
        metrics = dict(_metrics(trainer))
        if is_due:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step)
        if self._prog_bar and metrics:
            first = next(iter(metrics.values()))
            pl_module.log(
                "effective_lr", first, prog_bar=True, logger=False, batch_size=1
            )


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
                where = f"lr-{name}/{part}" if part else f"lr-{name}"
                yield f"{where}-effective", float(group["lr"] * factor)
                yield f"{where}-factor", factor
