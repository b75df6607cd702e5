"""The models of the tasks, small enough to train thousands of times on a CPU."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.study.data import CONTEXT, WORDS_BEFORE, Data

WIDTH, LAYERS = 32, 4


def mlp(data: Data) -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()),
        nn.Linear(128, data.classes),
    )


def cnn(data: Data) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 4 * 4, data.classes)),
    )


class Transformer(nn.Module):
    """A decoder with norms before (pre-LN) or after (post-LN) each residual sum."""

    def __init__(self, data: Data, pre_ln: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(data.classes, WIDTH)
        self.position = nn.Parameter(0.1 * torch.randn(CONTEXT, WIDTH))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                *(WIDTH, 4, 4 * WIDTH, 0.0), batch_first=True, norm_first=pre_ln
            )
            for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(WIDTH) if pre_ln else nn.Identity()
        self.head = nn.Linear(WIDTH, data.classes)
        for weight in self.parameters():
            if weight.ndim == 2 and weight is not self.position:
                nn.init.xavier_uniform_(weight)
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        self.register_buffer("mask", mask)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position
        for block in self.blocks:
            x = block(x, src_mask=self.mask, is_causal=True)
        return self.head(self.norm(x)).transpose(1, 2)


pre_ln = partial(Transformer, pre_ln=True)
post_ln = partial(Transformer, pre_ln=False)


class CharacterLSTM(nn.Module):
    def __init__(self, data: Data) -> None:
        super().__init__()
        self.embedding = nn.Embedding(data.classes, WIDTH)
        self.lstm = nn.LSTM(WIDTH, 2 * WIDTH, batch_first=True)
        self.head = nn.Linear(2 * WIDTH, data.classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0]).transpose(1, 2)


def next_word(data: Data) -> nn.Module:
    """Guesses the next word; most of its parameters belong to rare words."""
    return nn.Sequential(
        *(nn.Embedding(data.inputs, 16), nn.Flatten()),
        *(nn.Linear(16 * WORDS_BEFORE, 64), nn.ReLU(), nn.Linear(64, data.classes)),
    )
