# %% [markdown]
"""# Fine-tuning a vision transformer: unfreeze the backbone, and it warms up by itself.

The head is new, so it is trained first, on a frozen backbone. Then the backbone is
unfrozen, with a learning rate that is lower the further a layer is from the head. Its
groups are there from the start. They are not counted as long as they are frozen, so
their warmup begins when they are unfrozen, and that of the head is not repeated.

The ViT of transformers is tiny here and has random weights; a real run would call
`ViTForImageClassification.from_pretrained`. The images are scikit-learn's digits.

To install: `pip install .` in a clone of warmopt, and
`pip install transformers scikit-learn`.
"""

# %%
import re

import torch
from sklearn.datasets import load_digits
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from transformers import ViTConfig, ViTForImageClassification

from warmopt import Warmed

LAYERS, LR, DECAY, WARMUP = 4, 6e-3, 0.8, 20
HEAD_UPDATES, UPDATES = 40, 200

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
train_images, test_images = images[:1500], images[1500:]

torch.manual_seed(0)
shape = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10}
size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
config = ViTConfig(num_hidden_layers=LAYERS, **shape, **size)
model = ViTForImageClassification(config)

# %% [markdown]
# One param group for each depth. The last norm goes with the head.


# %%
def depth(name: str) -> int:
    """0 for the embeddings, 1 to LAYERS for the layers, LAYERS + 1 for the head."""
    if "embeddings" in name:
        return 0
    layer = re.search(r"\blayers?\.(\d+)\.", name)
    return int(layer[1]) + 1 if layer else LAYERS + 1


at_depth: dict[int, list[torch.nn.Parameter]] = {}
for name, param in model.named_parameters():
    at_depth.setdefault(depth(name), []).append(param)
groups = [
    {"params": params, "lr": LR * DECAY ** (LAYERS + 1 - each)}
    for each, params in sorted(at_depth.items())
]
optimizer = Warmed(AdamW(groups, weight_decay=0.05), steps=WARMUP)
scheduler = CosineAnnealingLR(optimizer, UPDATES)


def train_backbone(yes: bool) -> None:
    """Unfreezes the backbone, or freezes it."""
    for group in optimizer.param_groups[:-1]:
        for param in group["params"]:
            param.requires_grad_(yes)


# %% [markdown]
# The factors are those of the update that comes next.

# %%
train_backbone(False)
for update in range(1, UPDATES + 1):
    if update == HEAD_UPDATES + 1:
        train_backbone(True)
    if update in (1, 11, 21, 41, 46, 51, 61):
        first, *_, last, head = optimizer.factors
        print(
            f"update {update}: head x {head:.2f}, last layer x {last:.2f}, "
            f"embeddings x {first:.2f}"
        )
    chosen = torch.randint(len(train_images), (64,))
    model(train_images[chosen], labels=labels[chosen]).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()

with torch.no_grad():
    right = model(test_images).logits.argmax(1) == labels[1500:]
print(f"right on {right.float().mean():.0%} of the digits that it has not seen")
