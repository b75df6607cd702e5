"""Train under FSDP2 with a warmup; stop, and go on with another number of ranks.

    torchrun --standalone --nproc-per-node 2 examples/fsdp2.py --updates 60
    torchrun --standalone --nproc-per-node 4 examples/fsdp2.py --updates 40

The second command begins where the first has ended, in the middle of the warmup: its
state is in the optimizer's param groups, and so in the checkpoint. Runs on GPUs (nccl)
where there are any, else on the CPU (gloo).
"""

import argparse
import os
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from warmopt import Warmed

CONTEXT, BATCH, WIDTH, LAYERS = 64, 8, 64, 2  # BATCH is that of one rank
LR, WARMUP, TOTAL = 3e-3, 100, 1000  # lengths in updates, of all runs together


class Decoder(nn.Module):
    """A transformer that predicts the next character at every position."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, batch_first=True)
            for _ in range(LAYERS)
        )
        self.head = nn.Linear(WIDTH, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        """The loss, in nats per character, of tokens [batch, context + 1]."""
        x = self.embedding(tokens[:, :-1]) + self.position
        future = torch.ones(CONTEXT, CONTEXT, device=x.device).triu(1).bool()
        for layer in self.layers:
            x = layer(x, src_mask=future)
        logits = self.head(x).flatten(0, 1)
        return functional.cross_entropy(logits, tokens[:, 1:].flatten())


def train(folder: Path, updates: int, device: torch.device) -> None:
    """Runs some more updates, from the last checkpoint if there is one."""
    text = "".join(topics[name] for name in sorted(topics))  # Python's help topics
    letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
    tokens = torch.tensor([letters[letter] for letter in text], device=device)

    torch.manual_seed(0)
    model = Decoder(len(letters)).to(device)
    for module in (*model.layers, model):
        fully_shard(module)
    optimizer = Warmed(AdamW(model.parameters(), lr=LR), steps=WARMUP)
    scheduler = CosineAnnealingLR(optimizer, TOTAL)

    def state() -> dict[str, dict]:
        parts = (*get_state_dict(model, optimizer), scheduler.state_dict())
        return dict(zip(("model", "optimizer", "scheduler"), parts, strict=True))

    if saved := sorted(folder.glob("*/.metadata")):
        loaded = state()
        checkpoint.load(loaded, checkpoint_id=saved[-1].parent)
        set_state_dict(
            model,
            optimizer,
            model_state_dict=loaded["model"],
            optim_state_dict=loaded["optimizer"],
        )
        scheduler.load_state_dict(loaded["scheduler"])

    done = scheduler.last_epoch
    for update in range(done + 1, done + updates + 1):
        rng = torch.Generator().manual_seed(update * 1000 + dist.get_rank())
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH, 1), generator=rng)
        loss = model(tokens[(starts + torch.arange(CONTEXT + 1)).to(device)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        if dist.get_rank() == 0:
            base, effective = (
                optimizer.param_groups[0]["lr"],
                optimizer.get_last_lr()[0],
            )
            print(
                f"update {update}  loss {mean.item():.4f}  base LR {base:.6g}"
                f"  effective LR {effective:.6g}"
            )
        scheduler.step()
    checkpoint.save(state(), checkpoint_id=folder / f"{scheduler.last_epoch:06}")


def main() -> None:
    """Starts the process group, one GPU for each rank where there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("fsdp2-checkpoint"))
    parser.add_argument("--updates", type=int, default=60, help="how many more")
    args = parser.parse_args()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        train(args.checkpoint, args.updates, device)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
