# %% [markdown]
"""# Muon for the matrices, AdamW for the rest: one warmup for both.

`Warmed` takes a list of optimizers and makes one of them. It has the param groups of
both, so one scheduler, one clipping and one checkpoint serve them all, and the ratio of
the two learning rates stays what it is.

The model is a small transformer on the characters of Python's help topics.

To install: `pip install .` in a clone of warmopt; Muon needs torch 2.9 or newer.
"""

# %%
import sys
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from warmopt import Warmed

if not hasattr(torch.optim, "Muon"):
    sys.exit(f"torch {torch.__version__} has no Muon: install 2.9 or newer.")

CONTEXT, BATCH, WIDTH, LAYERS = 64, 16, 64, 2
WARMUP, UPDATES = 20, 60

text = "".join(topics[name] for name in sorted(topics))
letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
tokens = torch.tensor([letters[letter] for letter in text])


# %%
class Transformer(nn.Module):
    """Predicts the next character at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(letters), WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        options = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, **options)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, len(letters))

    def forward(self, window: Tensor) -> Tensor:
        """The loss, in nats per character, of a window [batch, context + 1]."""
        x = self.embedding(window[:, :-1]) + self.position
        future = torch.ones(CONTEXT, CONTEXT).triu(1).bool()
        logits = self.head(self.layers(x, mask=future, is_causal=True))
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), window[:, 1:].flatten()
        )


# %% [markdown]
# Muon is for the matrices between the hidden layers. Embeddings, head, norms and biases
# go to AdamW.

# %%
torch.manual_seed(0)
model = Transformer()
matrices = [param for param in model.layers.parameters() if param.ndim == 2]
chosen = set(matrices)
others = [param for param in model.parameters() if param not in chosen]
muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1)
adamw = torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
optimizer = Warmed([muon, adamw], steps=WARMUP)
scheduler = CosineAnnealingLR(optimizer, UPDATES)

# %%
for update in range(1, UPDATES + 1):
    starts = torch.randint(len(tokens) - CONTEXT, (BATCH, 1))
    loss = model(tokens[starts + torch.arange(CONTEXT + 1)])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if update in (1, 5, 10, 15, 20, 40, 60):
        for_muon, for_adamw = optimizer.get_last_lr()
        print(
            f"update {update}: effective LR {for_muon:.5f} for Muon, "
            f"{for_adamw:.5f} for AdamW, loss {loss.item():.2f}"
        )
    scheduler.step()
