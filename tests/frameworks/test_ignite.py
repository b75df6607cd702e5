"""The real trainer and checkpoints of ignite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support import twins
from tests.support.twins import used_lrs

pytestmark = [
    pytest.mark.xdist_group("transformers"),
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\..* is deprecated"),  # by ignite
]

BATCHES = 3  # per epoch


def begin(by_hand: bool = False, accumulation: int = 1) -> tuple[dict[str, Any], list]:
    """What a checkpoint of the run would hold, and the LRs that the inner step sees."""
    from ignite.engine import Events, create_supervised_trainer

    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer, scheduler, used = twins.build(model.parameters(), by_hand)
    trainer = create_supervised_trainer(
        model,
        optimizer,
        nn.functional.mse_loss,
        gradient_accumulation_steps=accumulation,
    )
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(every=accumulation), lambda: scheduler.step()
    )
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    return {"trainer": trainer, **parts}, used


def run(trainer: Any, epochs: int) -> None:
    batches = [(sample, torch.zeros(1)) for sample in twins.samples(BATCHES)]
    trainer.run(batches, max_epochs=epochs)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_trainer_warms_by_real_updates_as_a_schedule_by_hand(accumulation: int) -> None:
    warmed, used = begin(accumulation=accumulation)
    by_hand, used_by_hand = begin(by_hand=True, accumulation=accumulation)
    for parts in (warmed, by_hand):
        run(parts["trainer"], epochs=6)
    updates = 6 * BATCHES // accumulation
    assert used == used_lrs(updates) == used_by_hand
    states = [parts["model"].state_dict() for parts in (warmed, by_hand)]
    torch.testing.assert_close(*states, rtol=0.0, atol=0.0)


def test_checkpoint_of_mid_warmup_goes_on_bit_equal(tmp_path: Path) -> None:
    from ignite.handlers import Checkpoint, DiskSaver

    whole, used = begin()
    run(whole["trainer"], epochs=2)
    first, _ = begin()
    saver = Checkpoint(first, DiskSaver(tmp_path))
    run(first["trainer"], epochs=1)
    saver(first["trainer"])
    second, used_second = begin()
    [path] = tmp_path.iterdir()
    Checkpoint.load_objects(second, torch.load(path, weights_only=True))
    run(second["trainer"], epochs=2)
    assert used == used_lrs(2 * BATCHES)
    assert used_second == used[BATCHES:]
    states = [parts["model"].state_dict() for parts in (whole, second)]
    torch.testing.assert_close(*states, rtol=0.0, atol=0.0)
