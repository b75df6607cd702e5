# %% [markdown]
"""# Pretraining as in nanoGPT: stop in the middle of the warmup, and go on.

A small GPT learns the characters of Python's help topics. It has weight decay for the
matrices only, bf16 autocast, gradient accumulation, clipping, a cosine schedule and a
checkpoint that is saved in the middle of the warmup. A run that is resumed from it ends
with the same weights, to the bit on a CPU. (On a GPU this was not tried: some kernels
there do not repeat themselves to the bit.)

To install: `pip install .` in a clone of warmopt.
"""

# %%
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from warmopt import Warmed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONTEXT, BATCH, WIDTH, LAYERS, ACCUMULATION = 64, 8, 64, 2, 2
LR, WARMUP, UPDATES = 3e-3, 20, 40

text = "".join(topics[name] for name in sorted(topics))
letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
tokens = torch.tensor([letters[letter] for letter in text], device=DEVICE)


# %%
class GPT(nn.Module):
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
        future = torch.ones(CONTEXT, CONTEXT, device=DEVICE).triu(1).bool()
        logits = self.head(self.layers(x, mask=future, is_causal=True))
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), window[:, 1:].flatten()
        )


def build() -> tuple[GPT, Warmed, CosineAnnealingLR]:
    """A new run. `Warmed` goes around the optimizer, and the scheduler gets that."""
    torch.manual_seed(0)
    model = GPT().to(DEVICE)
    matrices = [param for param in model.parameters() if param.ndim >= 2]
    vectors = [param for param in model.parameters() if param.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
    optimizer = Warmed(adamw, steps=WARMUP)
    return model, optimizer, CosineAnnealingLR(optimizer, UPDATES, eta_min=LR / 10)


def train(model: GPT, optimizer: Warmed, scheduler: CosineAnnealingLR, to: int) -> None:
    """Goes on to update number `to`."""
    for update in range(scheduler.last_epoch + 1, to + 1):
        rng = torch.Generator().manual_seed(update)  # so a resumed run sees the same
        for _ in range(ACCUMULATION):
            starts = torch.randint(len(tokens) - CONTEXT, (BATCH, 1), generator=rng)
            window = tokens[(starts + torch.arange(CONTEXT + 1)).to(DEVICE)]
            with torch.autocast(DEVICE, torch.bfloat16):
                loss = model(window) / ACCUMULATION
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if update in (1, 5, 10, 15, 20, 30, 40):
            base, used = optimizer.param_groups[0]["lr"], optimizer.get_last_lr()[0]
            nats = loss.item() * ACCUMULATION
            print(
                f"update {update}: base LR {base:.5f}, used {used:.5f}, loss {nats:.2f}"
            )
        scheduler.step()


# %% [markdown]
# The whole run. The warmup is saved with the optimizer; there is nothing else to save.

# %%
whole = build()
train(*whole, to=WARMUP // 2)
torch.save([each.state_dict() for each in whole], "nanogpt.pt")
train(*whole, to=UPDATES)

# %% [markdown]
# New objects load the checkpoint, and go on with the eleventh update of the warmup.

# %%
resumed = build()
for each, state in zip(resumed, torch.load("nanogpt.pt"), strict=True):
    each.load_state_dict(state)
print(f"resumed, and the next factor is {resumed[1].factors[0]:.2f}")
train(*resumed, to=UPDATES)
pairs = zip(whole[0].parameters(), resumed[0].parameters(), strict=True)
print("the same weights, to the bit:", all(torch.equal(a, b) for a, b in pairs))
