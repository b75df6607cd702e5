"""Small training runs that fail without a warmup, for the demo of the command line.

They train a post-LN decoder transformer on the text of Python's own help topics. At the
start, a post-LN model has large gradients near its output (Xiong et al., 2020,
https://arxiv.org/abs/2002.04745). With the lower learning rate, Adam needs only about
twenty updates to drive the model into a state that it never leaves: it predicts nothing
but the frequencies of the letters. With the higher one a fixed warmup only delays that,
since the learning rate at its end is too high.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pydoc_data.topics import topics
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW

from warmopt.warmed import Warmed

__all__ = [
    "LRS",
    "UPDATES",
    "WARMUPS",
    "Run",
    "encoded_text",
    "letter_entropy",
    "train",
]

LRS = (5e-3, 5e-2)
BETAS = (0.9, 0.99)
UPDATES = 400
CONTEXT = 32
BATCH = 16

# Label -> the mode, and its length (of aligned the cap) as a share of the run.
WARMUPS: dict[str, tuple[Literal["linear", "aligned"], float]] = {
    "no warmup": ("linear", 0.0),
    "linear, half the run": ("linear", 0.5),
    "linear, the whole run": ("linear", 1.0),
    "aligned": ("aligned", 0.5),
}


@dataclass
class Run:
    """What was measured in one training run.

    Attributes:
        losses: Cross-entropy of each update, nats per character.
        lrs: Effective LR of each update.
        seconds: Wall time of the run.
    """

    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def final_loss(self) -> float:
        """Mean loss of the last 50 updates."""
        last = self.losses[-50:]
        return sum(last) / len(last)


class Block(nn.Module):
    """A transformer block with a layer norm after each residual sum (post-LN)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Maps activations [batch, context, width] to the same shape."""
        batch, context, width = x.shape
        split = (batch, context, 3, self.heads, width // self.heads)
        query, key, value = self.qkv(x).view(split).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        )
        x = self.norms[0](x + self.out(mixed.transpose(1, 2).reshape(x.shape)))
        normed: Tensor = self.norms[1](x + self.mlp(x))
        return normed


class Decoder(nn.Module):
    """Predicts the next character at every position."""

    def __init__(
        self, characters: int, layers: int = 6, width: int = 48, heads: int = 4
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Parameter(0.1 * torch.randn(CONTEXT, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.head = nn.Linear(width, characters)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens [batch, context] to logits [batch, context, characters]."""
        x = self.embedding(tokens) + self.position
        logits: Tensor = self.head(self.blocks(x))
        return logits


def encoded_text() -> tuple[Tensor, int]:
    """Returns the text as token numbers, and how many different tokens there are."""
    text = "\n".join(topics[name] for name in sorted(topics))
    numbers = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([numbers[character] for character in text]), len(numbers)


def letter_entropy() -> float:
    """The loss, in nats, of a model that knows the frequencies of the letters only."""
    tokens, _ = encoded_text()
    shares = [count / len(tokens) for count in Counter(tokens.tolist()).values()]
    return -sum(share * math.log(share) for share in shares)


def train(
    warmup: str,
    lr: float,
    seed: int = 0,
    updates: int = UPDATES,
    progress: Callable[[float], None] = lambda loss: None,
) -> Run:
    """Trains a new model. The same seed gives the same model and the same batches.

    Args:
        warmup: One of `WARMUPS`.
        lr: Learning rate of AdamW.
        seed: Seed of the initial parameters and of the batches.
        updates: Length of the run.
        progress: This function is called after every update, with its loss.
    """
    tokens, characters = encoded_text()
    torch.manual_seed(seed)
    model = Decoder(characters)
    adamw = AdamW(model.parameters(), lr=lr, betas=BETAS)
    mode, share = WARMUPS[warmup]
    optimizer = Warmed(adamw, steps=round(share * updates), mode=mode)
    run, began = Run(), time.perf_counter()
    for _ in range(updates):
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH, 1))
        batch = tokens[starts + torch.arange(CONTEXT + 1)]
        logits = model(batch[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        run.losses.append(loss.item())
        run.lrs.append(optimizer.get_last_lr()[0])
        progress(run.losses[-1])
    run.seconds = time.perf_counter() - began
    return run
