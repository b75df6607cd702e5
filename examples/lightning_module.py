# %% [markdown]
"""# Lightning: the effective learning rate in the log.

`configure_optimizers` returns the `Warmed`, and the scheduler is made of it.
Lightning's own `LearningRateMonitor` reads the base learning rate and shows no warmup.
`EffectiveLRMonitor` logs the effective one beside it, to every logger. Gradients are
accumulated over two batches, and only updates are counted.

To install: `pip install '.[lightning]'` in a clone of warmopt, and
`pip install scikit-learn`.
"""

# %%
import csv
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from warmopt import Warmed
from warmopt.lightning import EffectiveLRMonitor


# %%
class Classifier(LightningModule):
    """A small network for the digits of scikit-learn."""

    def __init__(self, lr: float = 3e-3, warmup: int = 10) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.LayerNorm(128), nn.Linear(128, 10)
        )

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss of one batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self.layers(images), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        """A warmup, and a cosine schedule over the whole run."""
        adamw = AdamW(self.parameters(), lr=self.hparams.lr)
        optimizer = Warmed(adamw, steps=self.hparams.warmup)
        updates = self.trainer.estimated_stepping_batches
        scheduler = CosineAnnealingLR(optimizer, int(updates))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


# %% [markdown]
# `prog_bar=True` would show the effective learning rate in the progress bar too.

# %%
seed_everything(0, verbose=False)
digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
data = TensorDataset(images, torch.tensor(digits.target))
trainer = Trainer(
    max_epochs=4,
    accumulate_grad_batches=2,
    accelerator="cpu",
    logger=CSVLogger("lightning_logs", name="digits"),
    log_every_n_steps=1,
    callbacks=[LearningRateMonitor(), EffectiveLRMonitor()],
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Classifier(), DataLoader(data, batch_size=64, shuffle=True))

# %% [markdown]
# What the logger has got: for each step, the base and the effective learning rate.

# %%
steps: dict[str, dict[str, str]] = {}
with open(f"{trainer.logger.log_dir}/metrics.csv") as file:
    for row in csv.DictReader(file):
        logged = {name: value for name, value in row.items() if value}
        steps.setdefault(row["step"], {}).update(logged)
for step in ("0", "4", "8", "12", "24", "48"):
    seen = {name: float(value) for name, value in steps[step].items()}
    print(
        f"step {step}: lr-AdamW {seen['lr-AdamW']:.5f}, lr-AdamW-effective "
        f"{seen['lr-AdamW-effective']:.5f}, loss {seen['loss']:.2f}"
    )
