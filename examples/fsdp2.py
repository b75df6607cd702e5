# %% [markdown]
"""# FSDP2: stop in the middle of the warmup, and go on with another number of ranks.

Each call trains for ten more updates:

    torchrun --standalone --nproc-per-node 2 examples/fsdp2.py
    torchrun --standalone --nproc-per-node 4 examples/fsdp2.py

The second call begins where the first has ended. The warmup is in the optimizer's param
groups, and so in the checkpoint. It runs on GPUs (nccl) where there are any, else on
the CPU (gloo). Without torchrun, as in a notebook, it is a single process.

To install: `pip install .` in a clone of warmopt. On a CPU it needs torch 2.7 or newer.
"""

# %%
import os
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from warmopt import Warmed

FOLDER = Path("fsdp2-checkpoint")
CONTEXT, BATCH, WIDTH, LAYERS = 64, 8, 64, 2  # BATCH is that of one rank
LR, WARMUP, TOTAL = 3e-3, 40, 400  # lengths in updates, of all calls together

backend = "nccl" if torch.cuda.is_available() else "gloo"
if dist.is_torchelastic_launched():
    dist.init_process_group(backend)
else:
    dist.init_process_group(backend, rank=0, world_size=1, store=dist.HashStore())
device = torch.device("cpu")
if torch.cuda.is_available():
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)

text = "".join(topics[name] for name in sorted(topics))  # Python's help topics
letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
tokens = torch.tensor([letters[letter] for letter in text], device=device)


# %%
class Decoder(nn.Module):
    """A transformer that predicts the next character at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(letters), WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS)
        self.head = nn.Linear(WIDTH, len(letters))

    def forward(self, window: Tensor) -> Tensor:
        """The loss, in nats per character, of a window [batch, context + 1]."""
        x = self.embedding(window[:, :-1]) + self.position
        future = torch.ones(CONTEXT, CONTEXT, device=device).triu(1).bool()
        logits = self.head(self.layers(x, mask=future, is_causal=True))
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), window[:, 1:].flatten()
        )


# %% [markdown]
# Shard the model first, then build the optimizer and wrap it.

# %%
torch.manual_seed(0)
model = Decoder().to(device)
for module in (*model.layers.layers, model):
    fully_shard(module)
optimizer = Warmed(AdamW(model.parameters(), lr=LR), steps=WARMUP)
scheduler = CosineAnnealingLR(optimizer, TOTAL)


def state() -> dict[str, dict]:
    """All that is saved."""
    parts = (*get_state_dict(model, optimizer), scheduler.state_dict())
    return dict(zip(("model", "optimizer", "scheduler"), parts, strict=True))


if saved := sorted(FOLDER.glob("*/.metadata")):
    loaded = state()
    checkpoint.load(loaded, checkpoint_id=saved[-1].parent)
    parts = {
        "model_state_dict": loaded["model"],
        "optim_state_dict": loaded["optimizer"],
    }
    set_state_dict(model, optimizer, **parts)
    scheduler.load_state_dict(loaded["scheduler"])

# %%
for update in range(scheduler.last_epoch + 1, scheduler.last_epoch + 11):
    rng = torch.Generator().manual_seed(update * 1000 + dist.get_rank())
    starts = torch.randint(len(tokens) - CONTEXT, (BATCH, 1), generator=rng)
    loss = model(tokens[(starts + torch.arange(CONTEXT + 1)).to(device)])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    mean = loss.detach() / dist.get_world_size()
    dist.all_reduce(mean)
    if dist.get_rank() == 0:
        base, used = optimizer.param_groups[0]["lr"], optimizer.get_last_lr()[0]
        print(f"update {update}: base LR {base:.6g}, used {used:.6g}, loss {mean:.3f}")
    scheduler.step()
checkpoint.save(state(), checkpoint_id=FOLDER / f"{scheduler.last_epoch:06}")
dist.destroy_process_group()
