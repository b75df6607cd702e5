"""A transformer that predicts the next character of Python's own help topics."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from warmopt._tools.demo import encoded_text


class Size(NamedTuple):
    """Of a model and its batches."""

    layers: int
    width: int
    heads: int
    context: int
    batch: int


class Block(nn.Module):
    """A transformer block with a layer norm before each part (pre-LN)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, context, width = x.shape
        split = (batch, context, 3, self.heads, width // self.heads)
        query, key, value = self.qkv(self.before(x)).view(split).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        wide: Tensor = functional.gelu(self.wide(self.between(x)))
        return x + self.back(wide)


class Decoder(nn.Module):
    """GPT-2's architecture and initial values, without dropout."""

    def __init__(self, characters: int, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, size.width)
        self.position = nn.Parameter(torch.empty(size.context, size.width))
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, characters, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                is_last = name.endswith(("out.weight", "back.weight"))
                shrunk = (2 * size.layers) ** -0.5 if is_last else 1.0
                nn.init.normal_(weight, std=0.02 * shrunk)

    def forward(self, tokens: Tensor) -> Tensor:
        """The loss, in nats per character, of tokens [batch, context + 1]."""
        x = self.embedding(tokens[:, :-1]) + self.position
        scores = self.head(self.norm(self.blocks(x))).flatten(0, 1)
        return functional.cross_entropy(scores.float(), tokens[:, 1:].flatten())


class Text:
    """The text on a device: nine tenths to train, the last tenth to validate."""

    def __init__(self, device: str, size: Size) -> None:
        tokens, self.characters = encoded_text()
        self._tokens = tokens.to(device)
        self._size, self._window = size, torch.arange(size.context + 1, device=device)
        self._train = len(tokens) * 9 // 10

    def batch(self, draw: torch.Generator) -> Tensor:
        """A batch; the generator is on the device, so that nothing is copied."""
        last, size = self._train - self._size.context, (self._size.batch, 1)
        device = self._tokens.device
        starts = torch.randint(last, size, generator=draw, device=device)
        return self._tokens[starts + self._window]

    def validation(self, batches: int) -> list[Tensor]:
        """Always the same windows, spread over the held-out text."""
        last = len(self._tokens) - self._size.context - 1
        starts = torch.linspace(self._train, last, batches * self._size.batch)
        whole = self._tokens[
            starts.long().to(self._tokens.device)[:, None] + self._window
        ]
        return list(whole.split(self._size.batch))
