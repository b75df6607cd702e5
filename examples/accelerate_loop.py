# %% [markdown]
"""# accelerate with gradient accumulation: updates are counted, not batches.

Wrap the optimizer first, then let accelerate prepare it. `optimizer.step()` is called
at every batch, and accelerate passes on every fourth call only: that is one update. The
schedule is given in updates too, and is prepared as well.

To install: `pip install .` in a clone of warmopt, and
`pip install accelerate scikit-learn`.
"""

# %%
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from warmopt import Warmed

ACCUMULATION, EPOCHS, WARMUP = 4, 4, 10

# %%
set_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
data = TensorDataset(images, torch.tensor(digits.target))
loader = DataLoader(data, batch_size=32, shuffle=True, drop_last=True)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 4 * 4, 10),
)
optimizer = Warmed(AdamW(model.parameters(), lr=3e-3), steps=WARMUP)
scheduler = CosineAnnealingLR(optimizer, EPOCHS * len(loader) // ACCUMULATION)

accelerator = Accelerator(gradient_accumulation_steps=ACCUMULATION)
model, optimizer, loader, scheduler = accelerator.prepare(
    model, optimizer, loader, scheduler
)

# %% [markdown]
# What accelerate returns passes on no attributes, so `optimizer.optimizer` is asked.

# %%
warmed, batches, updates = optimizer.optimizer, 0, 0
for _ in range(EPOCHS):
    for inputs, labels in loader:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(inputs), labels)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        batches += 1
        updates += accelerator.sync_gradients
        if batches in (1, 2, 3, 4, 8, 20, 40, 80, 120, 160, 200):
            (used,), (factor,) = warmed.get_last_lr(), warmed.factors
            accelerator.print(
                f"batch {batches}, {updates} updates: effective LR {used:.5f}, "
                f"next factor {factor:.2f}, loss {loss.item():.2f}"
            )
