"""The real Trainer of transformers, with a tiny model of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from tests.support import twins
from tests.support.reference import watch
from tests.support.twins import LR, STEPS, decay, factor, used_lrs
from warmopt import AfterWarmup, Warmed

pytestmark = pytest.mark.xdist_group("transformers")

UPDATES = 6


def trainer(
    folder: Path, by_hand: bool = False, callbacks: Any = (), **options: Any
) -> tuple[Any, list[float]]:
    """The Trainer of a new model, and the LRs that the inner step sees."""
    model = new_model()
    optimizer, scheduler, used = twins.build(model.parameters(), by_hand)
    given = {"callbacks": [*callbacks], "optimizers": (optimizer, scheduler)}
    return trainer_of(model, folder, given, **options), used


def new_model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tiny = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 4, "vocab_size": 7}
    return GPT2LMHeadModel(GPT2Config(**tiny))


def trainer_of(model: Any, folder: Path, given: dict[str, Any], **options: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        folder,
        max_steps=UPDATES,
        per_device_train_batch_size=2,
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"logging_steps": 1, "save_strategy": "no", **options},
    )
    tokens = torch.randint(7, (32, 4), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": row} for row in tokens]
    return Trainer(model, arguments, train_dataset=data, **given)


def logged(trainer: Any, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=str
)
def test_trainer_warms_by_real_updates_as_a_schedule_by_hand(
    options: dict[str, Any], tmp_path: Path
) -> None:
    warmed, used = trainer(tmp_path, **options)
    warmed.train()
    by_hand, used_by_hand = trainer(tmp_path, by_hand=True, **options)
    by_hand.train()
    assert used == used_lrs(UPDATES) == used_by_hand
    assert logged(warmed, "learning_rate") == [LR * decay(t) for t in range(UPDATES)]
    torch.testing.assert_close(
        warmed.model.state_dict(), by_hand.model.state_dict(), rtol=0.0, atol=0.0
    )


def test_run_resumed_in_mid_warmup_goes_on_bit_equal(tmp_path: Path) -> None:
    """optimizer.pt is read with weights_only=True."""
    from transformers.utils import import_utils

    try:
        import_utils.check_torch_load_is_safe()
    except ValueError:
        pytest.skip("transformers loads no checkpoint with this torch")
    whole, _ = trainer(tmp_path, save_strategy="steps", save_steps=3)
    whole.train()
    resumed, used = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert used == used_lrs(UPDATES)[3:]
    torch.testing.assert_close(
        whole.model.state_dict(), resumed.model.state_dict(), rtol=0.0, atol=0.0
    )


@pytest.mark.parametrize("by_hand", [False, True], ids=["warmed", "bare"])
def test_effective_lr_is_logged_beside_the_base_lr(
    by_hand: bool, tmp_path: Path
) -> None:
    """In the history, and in every logger that comes after the callback."""
    from transformers import TrainerCallback

    from warmopt.transformers import EffectiveLRCallback

    seen = []

    class Logger(TrainerCallback):
        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            seen.append(logs)

    callbacks = [EffectiveLRCallback(), Logger()]
    run, used = trainer(tmp_path, by_hand, callbacks, logging_steps=2)
    run.train()
    key = "effective_learning_rate"
    expected = [] if by_hand else used[1::2]
    assert logged(run, key) == expected
    assert [logs[key] for logs in seen if key in logs] == expected


def test_trainer_builds_the_optimizer_and_the_scheduler_itself(tmp_path: Path) -> None:
    """By a class that wraps; the Trainer's own scheduler is made for the wrapper."""
    made = Warmed.of(AdamW, steps=STEPS)
    options = {"lr_scheduler_type": "linear", "learning_rate": LR}

    def run(wrap: bool) -> Any:
        given = {"optimizer_cls_and_kwargs": (made if wrap else AdamW, {"lr": LR})}
        done = trainer_of(new_model(), tmp_path, given, **options)
        done.create_optimizer_and_scheduler(UPDATES)
        inner = done.optimizer.wrapped if wrap else done.optimizer
        used = watch(inner, lambda _: [group["lr"] for group in inner.param_groups])
        done.train()
        return done, used

    (warmed, used), (bare, used_bare) = run(wrap=True), run(wrap=False)
    assert warmed.optimizer.optimizer.done
    assert used == [
        [lr * factor(update) for lr in lrs] for update, lrs in enumerate(used_bare)
    ]
    assert logged(warmed, "learning_rate") == logged(bare, "learning_rate")


def test_a_schedule_that_waits_in_the_trainer(tmp_path: Path) -> None:
    model = new_model()
    optimizer, scheduler, used = twins.build(model.parameters())
    given = {"optimizers": (optimizer, AfterWarmup(scheduler))}
    trainer_of(model, tmp_path, given, gradient_accumulation_steps=2).train()
    expected = [LR * factor(update) for update in range(STEPS)]
    expected += [LR * decay(update) for update in range(UPDATES - STEPS)]
    assert used == expected


@pytest.mark.parametrize("again", [False, True], ids=["goes_on", "rewarmed"])
def test_a_second_training_warms_only_if_asked(again: bool, tmp_path: Path) -> None:
    model = new_model()
    optimizer = Warmed(AdamW(model.parameters(), lr=LR), steps=STEPS)
    constant = LambdaLR(optimizer, lambda _: 1.0)
    used = watch(optimizer.wrapped, lambda inner: inner.param_groups[0]["lr"])
    run = trainer_of(model, tmp_path, {"optimizers": (optimizer, constant)})
    run.train()
    if again:
        optimizer.rewarm()
    run.train()
    first = [LR * factor(update) for update in range(UPDATES)]
    assert used == first + (first if again else [LR] * UPDATES)
