"""The real Trainer and Fabric of Lightning around a warmed optimizer."""

from __future__ import annotations

import csv
import functools
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.support import twins
from tests.support.reference import watch
from tests.support.twins import LR, STEPS, decay, factor, used_lrs
from warmopt import AfterWarmup, Warmed

pytestmark = [
    pytest.mark.xdist_group("lightning"),
    # Lightning's own call into torch, and its advice to load data in processes.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is depr"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many"),
]

BATCHES = 8


@functools.cache
def module_class() -> type:
    """Lightning takes seconds to import, so we import it only when it is used."""
    from lightning.pytorch import LightningModule

    class Net(LightningModule):
        """Notes the LR that a training step sees, which runs inside the closure."""

        def __init__(self, by_hand: bool = False, manual: bool = False) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(3, 1)
            self.by_hand = by_hand
            self.automatic_optimization = not manual
            self.seen: list[float] = []

        def configure_optimizers(self) -> Any:
            optimizer, scheduler, self.used = twins.build(
                self.parameters(), self.by_hand
            )
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            self.seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            loss = self.layer(batch).square().mean()
            if not self.automatic_optimization:
                self.optimizers().zero_grad()
                self.manual_backward(loss)
                self.optimizers().step()
                self.lr_schedulers().step()
            return loss

    return Net


def fit(net: Any, resume: Path | None = None, **options: Any) -> Any:
    from lightning.pytorch import Trainer

    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(accelerator="cpu", **{**quiet, "max_epochs": 1, **options})
    batches = DataLoader(twins.samples(2 * BATCHES), batch_size=2)
    # Lightning 2.6 asks how the file is to be read; before, torch decides.
    asked = "weights_only" in inspect.signature(trainer.fit).parameters
    safely = {"weights_only": True} if asked else {}
    trainer.fit(net, batches, ckpt_path=resume, **safely)
    return trainer


def fit_and_save(net: Any, folder: Path, resume: Path | None, batches: int) -> Any:
    """Two epochs with a checkpoint after each, or what is left of them; the net."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    saving = ModelCheckpoint(folder, save_top_k=-1)
    epochs = {"limit_train_batches": batches, "max_epochs": 2}
    fit(net, resume, enable_checkpointing=True, callbacks=[saving], **epochs)
    return net


@pytest.mark.parametrize(
    ("net", "options", "updates"),
    [
        pytest.param({}, {}, 8, id="automatic"),
        pytest.param({"manual": True}, {}, 8, id="manual"),
        pytest.param({}, {"accumulate_grad_batches": 2}, 4, id="accumulation"),
        pytest.param({}, {"accumulate_grad_batches": 3}, 3, id="accumulation_and_rest"),
        pytest.param({}, {"gradient_clip_val": 0.01}, 8, id="clipping"),
        pytest.param({}, {"precision": "bf16-mixed"}, 8, id="bf16"),
    ],
)
def test_trainer_warms_by_real_updates_as_a_schedule_by_hand(
    net: dict[str, bool], options: dict[str, Any], updates: int
) -> None:
    warmed, by_hand = (module_class()(by_hand, **net) for by_hand in (False, True))
    trainer = fit(warmed, **options)
    fit(by_hand, **options)
    assert warmed.used == used_lrs(updates) == by_hand.used
    assert trainer.global_step == updates
    assert trainer.optimizers[0].done == (updates >= STEPS)
    torch.testing.assert_close(
        warmed.state_dict(), by_hand.state_dict(), rtol=0.0, atol=0.0
    )


def test_training_step_sees_the_base_lr() -> None:
    """The training step runs inside the closure, so inside the optimizer's step."""
    fit(net := module_class()())
    assert net.seen == [LR * decay(update) for update in range(BATCHES)]


def test_update_that_16_mixed_skips_is_not_counted() -> None:
    """On a CPU, Lightning allows this only with a plugin that you pass."""
    from lightning.pytorch.plugins import MixedPrecision

    class Net(module_class()):
        def configure_optimizers(self) -> Any:
            inner = torch.optim.SGD(self.parameters(), lr=LR)
            self.used = watch(inner, lambda _: inner.param_groups[0]["lr"])
            return Warmed(inner, steps=STEPS)

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return super().training_step(batch, index) * (
                torch.inf if index == 1 else 1
            )

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    fit(net := Net(), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert net.used == [LR * factor(update) for update in range(BATCHES - 1)]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_run_resumed_in_mid_warmup_goes_on_bit_equal(tmp_path: Path) -> None:
    def run(resume: Path | None = None) -> Any:
        return fit_and_save(module_class()(), tmp_path, resume, batches=3)

    whole = run()
    resumed = run(tmp_path / "epoch=0-step=3.ckpt")
    assert whole.used[3:] == resumed.used == used_lrs(6)[3:]
    torch.testing.assert_close(
        whole.state_dict(), resumed.state_dict(), rtol=0.0, atol=0.0
    )


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("cut", [3, 4, 5])
def test_a_schedule_that_waits_is_saved_and_resumed(cut: int, tmp_path: Path) -> None:
    class Net(module_class()):
        def configure_optimizers(self) -> Any:
            inner = torch.optim.AdamW(self.parameters(), LR)
            self.used = watch(inner, lambda _: inner.param_groups[0]["lr"])
            optimizer = Warmed(inner, steps=STEPS)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, decay)
            waiting = {"scheduler": AfterWarmup(scheduler), "interval": "step"}
            return [optimizer], [waiting]

    def run(resume: Path | None = None) -> list[float]:
        return fit_and_save(Net(), tmp_path, resume, batches=cut).used

    expected = [LR * factor(update) for update in range(STEPS)]
    expected += [LR * decay(update) for update in range(2 * cut - STEPS)]
    assert run() == expected
    assert run(tmp_path / f"epoch=0-step={cut}.ckpt") == expected[cut:]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_several_optimizers_in_one_are_saved_and_resumed(tmp_path: Path) -> None:
    """In automatic optimization, where Lightning itself takes only one."""

    class Net(module_class()):
        def configure_optimizers(self) -> Any:
            weight, bias = self.parameters()
            parts = [torch.optim.SGD([weight], LR), torch.optim.AdamW([bias], LR)]
            self.used = watch(parts[1], lambda _: parts[1].param_groups[0]["lr"])
            optimizer = Warmed(parts, steps=STEPS)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, decay)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def run(resume: Path | None = None) -> Any:
        return fit_and_save(Net(), tmp_path, resume, batches=3)

    whole = run()
    resumed = run(tmp_path / "epoch=0-step=3.ckpt")
    assert whole.used[3:] == resumed.used == used_lrs(6)[3:]
    torch.testing.assert_close(
        whole.state_dict(), resumed.state_dict(), rtol=0.0, atol=0.0
    )


# --- what is logged -------------------------------------------------------------------


def logged(folder: Path, net: Any, *monitors: Any, every: int) -> dict[str, list]:
    """The columns of the file that Lightning's CSVLogger writes."""
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(folder)
    fit(net, logger=logger, callbacks=[*monitors], log_every_n_steps=every)
    with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows if row[key]] for key in rows[0]}


def test_effective_lr_is_logged_beside_the_base_lr(tmp_path: Path) -> None:
    """At the steps of Lightning's own monitor, which uses the name of the wrapper."""
    from lightning.pytorch.callbacks import LearningRateMonitor

    from warmopt.lightning import EffectiveLRMonitor

    net = module_class()()
    columns = logged(
        tmp_path, net, LearningRateMonitor(), EffectiveLRMonitor(), every=2
    )
    updates = range(1, BATCHES, 2)
    assert columns == {
        "step": [update for update in updates for _ in range(2)],
        "lr-AdamW": [LR * decay(update) for update in updates],
        "lr-AdamW-effective": net.used[1::2],
        "lr-AdamW-factor": [factor(update) for update in updates],
    }


def test_every_group_of_every_warmed_optimizer_is_logged(tmp_path: Path) -> None:
    from warmopt.lightning import EffectiveLRMonitor

    class Net(module_class()):
        def configure_optimizers(self) -> Any:
            weight, bias = self.parameters()
            groups = [{"params": [weight]}, {"params": [bias], "warmup_steps": 2}]
            named = [{"params": [weight], "name": "head"}]
            return [
                Warmed(torch.optim.SGD(groups, lr=1.0), steps=4),
                torch.optim.SGD(self.parameters(), lr=1.0),
                Warmed(torch.optim.SGD(named, lr=torch.tensor(2.0)), steps=4),
            ]

        def training_step(self, batch: Tensor, index: int) -> None:
            for optimizer in self.optimizers():
                optimizer.step()

    columns = logged(tmp_path, Net(manual=True), EffectiveLRMonitor(), every=1)
    assert {name: column[:3] for name, column in columns.items()} == {
        "step": [0, 1, 2],
        "lr-SGD/pg1-effective": [0.25, 0.5, 0.75],
        "lr-SGD/pg2-effective": [0.5, 1.0, 1.0],
        "lr-SGD-2/head-effective": [0.5, 1.0, 1.5],
        "lr-SGD/pg1-factor": [0.25, 0.5, 0.75],
        "lr-SGD/pg2-factor": [0.5, 1.0, 1.0],
        "lr-SGD-2/head-factor": [0.25, 0.5, 0.75],
    }


def test_wrapping_changes_no_name_in_the_logs(tmp_path: Path) -> None:
    """So that what was told to look at `lr-SGD` still finds it."""
    from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

    def names(wrap: bool) -> list[str]:
        class Net(module_class()):
            def configure_optimizers(self) -> Any:
                params = list(self.parameters())
                inner = [torch.optim.SGD(params, 0.1), torch.optim.Adam(params)]
                inner.append(torch.optim.SGD(params, 0.2))
                return [Warmed(each, steps=4) if wrap else each for each in inner]

            def training_step(self, batch: Tensor, index: int) -> None:
                for optimizer in self.optimizers():
                    optimizer.step()

        monitor = LearningRateMonitor()
        stop = EarlyStopping("lr-SGD", check_on_train_epoch_end=True)
        logger = CSVLogger(tmp_path / str(wrap))
        options = {"logger": logger, "log_every_n_steps": 1}
        fit(Net(manual=True), callbacks=[monitor, stop], **options)
        return list(monitor.lrs)

    assert names(wrap=True) == names(wrap=False) == ["lr-SGD", "lr-Adam", "lr-SGD-1"]


@pytest.mark.parametrize("prog_bar", [False, True])
def test_effective_lr_is_shown_in_the_progress_bar_if_asked(prog_bar: bool) -> None:
    from lightning.pytorch import Callback

    from warmopt.lightning import EffectiveLRMonitor

    shown = []

    class Bar(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if "effective_lr" in trainer.progress_bar_metrics:
                shown.append(trainer.progress_bar_metrics["effective_lr"])

    net = module_class()()
    fit(net, callbacks=[EffectiveLRMonitor(prog_bar), Bar()], log_every_n_steps=4)
    assert shown == (net.used if prog_bar else [])


# --- Fabric ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric_run_saved_and_loaded_goes_on_bit_equal(
    precision: str, tmp_path: Path
) -> None:
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", precision=precision)

    def begin(by_hand: bool = False) -> tuple[Any, ...]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer, scheduler, used = twins.build(model.parameters(), by_hand)
        return *fabric.setup(model, optimizer), scheduler, used

    def run(model: Any, optimizer: Any, scheduler: Any, data: Tensor) -> Any:
        for batch in data:
            optimizer.zero_grad()
            fabric.backward(model(batch).square().mean())
            optimizer.step()
            scheduler.step()

    data = twins.samples(BATCHES)
    *by_hand, used = begin(by_hand=True)
    run(*by_hand, data)
    assert used == used_lrs(BATCHES)

    *first, used_first = begin()
    run(*first, data[:3])
    names = ("model", "optimizer", "scheduler")
    fabric.save(tmp_path / "saved", dict(zip(names, first, strict=True)))
    *second, used_second = begin()
    fabric.load(tmp_path / "saved", dict(zip(names, second, strict=True)))
    assert second[1].get_last_lr() == [LR * decay(3) * factor(3)]
    run(*second, data[3:])
    assert used_first + used_second == used_lrs(BATCHES)
    torch.testing.assert_close(
        second[0].state_dict(), by_hand[0].state_dict(), rtol=0.0, atol=0.0
    )
