"""Configs name a class, or nest what builds the optimizer: Hydra and LightningCLI."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW

from tests.support.features import needs
from tests.support.reference import effective
from warmopt import Warmed

WarmedAdamW = Warmed.of(AdamW, steps=4)

NAMED = """
_target_: tests.frameworks.test_configs.WarmedAdamW
_partial_: true
lr: 0.1
"""
NESTED = """
_target_: warmopt.Warmed.of
optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 0.1}
steps: 4
"""


@needs(find_spec("hydra"), "Hydra is not installed")
@pytest.mark.parametrize("config", [NAMED, NESTED], ids=["named", "nested"])
def test_hydra_builds_and_wraps(config: str) -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    build: Any = instantiate(OmegaConf.create(config))
    warmed = build(nn.Linear(2, 1).parameters())
    assert isinstance(warmed, Warmed)
    assert isinstance(warmed.wrapped, AdamW)
    assert effective(warmed, 5) == [0.025, 0.05, 0.1 * 0.75, 0.1, 0.1]


class Model(LightningModule):
    """As small as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 1)
        self.used: list[float] = []

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        loss: Tensor = self.net(batch).square().mean()
        return loss

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.randn(8, 2), batch_size=2)

    def on_train_batch_end(self, *_: Any) -> None:
        optimizer: Any = self.optimizers()
        self.used += optimizer.get_last_lr()


@needs(find_spec("jsonargparse"), "jsonargparse is not installed")
@pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)` is depr",
    "ignore:The 'train_dataloader' does not have many",
)
def test_lightning_cli_builds_and_wraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.cli import LightningCLI

    config = tmp_path / "config.yaml"
    config.write_text(f"""
optimizer:
  class_path: {__name__}.WarmedAdamW
  init_args: {{lr: 0.1, weight_decay: 0.01}}
trainer:
  max_epochs: 2
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
""")
    # Lightning calls it in an old way.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    monkeypatch.setattr("sys.argv", ["train", "fit", "--config", str(config)])
    cli = LightningCLI(Model, seed_everything_default=0, save_config_callback=None)
    assert cli.model.used == [0.025, 0.05, 0.1 * 0.75, 0.1, *[0.1] * 4]
    warmed: Any = cli.trainer.optimizers[0]
    assert warmed.param_groups[0]["weight_decay"] == 0.01
