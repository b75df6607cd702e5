"""The small training tasks on which adaptive warmup is tried.

Handwritten digits (1797 images of 8 x 8, as scikit-learn ships them), and the
characters of the help topics that come with Python.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from warmopt.demo import encoded_text

CONTEXT, WIDTH, LAYERS = 24, 32, 4


class Data(NamedTuple):
    """Draws batches for training; the validation set is always the same."""

    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    validation: tuple[Tensor, Tensor]
    classes: int


@cache
def digits() -> Data:
    from sklearn.datasets import load_digits

    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x, y = images[order].float() / 16, labels[order].long()
    train = len(x) - 400

    def batch(draw: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(train, (64,), generator=draw)
        return x[chosen], y[chosen]

    return Data(batch, (x[train:], y[train:]), 10)


@cache
def characters() -> Data:
    text, classes = encoded_text()
    train = len(text) * 9 // 10
    window = torch.arange(CONTEXT + 1)

    def split(starts: Tensor) -> tuple[Tensor, Tensor]:
        windows = text[starts[:, None] + window]
        return windows[:, :-1], windows[:, 1:]

    def batch(draw: torch.Generator) -> tuple[Tensor, Tensor]:
        return split(torch.randint(train - CONTEXT, (8,), generator=draw))

    held_out = torch.linspace(train, len(text) - CONTEXT - 1, 256).long()
    return Data(batch, split(held_out), classes)


def mlp(classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()),
        nn.Linear(128, classes),
    )


def cnn(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 4 * 4, classes)),
    )


class CharacterModel(nn.Module):
    """A decoder; the norms stand before (pre-LN) or after (post-LN) each sum."""

    def __init__(self, classes: int, pre_ln: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, WIDTH)
        self.position = nn.Parameter(0.1 * torch.randn(CONTEXT, WIDTH))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                *(WIDTH, 4, 4 * WIDTH, 0.0), batch_first=True, norm_first=pre_ln
            )
            for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(WIDTH) if pre_ln else nn.Identity()
        self.head = nn.Linear(WIDTH, classes)
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


DIGITS_LRS = {
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "Yogi", "AdaBelief"), (3e-3, 3e-2, 0.1)),
    "RMSprop": (1e-3, 1e-2, 3e-2),
    "LAMB": (1e-2, 3e-2, 6e-2),
}


class Task(NamedTuple):
    """A model, its data, and for each optimizer three learning rates.

    At the lowest LR no warmup is needed; the highest is near where training breaks. A
    run has failed if its validation loss is above `fails_above`, in nats.
    """

    data: Callable[[], Data]
    model: Callable[[int], nn.Module]
    lrs: dict[str, tuple[float, float, float]]
    fails_above: float


TASKS = {
    "digits MLP": Task(digits, mlp, DIGITS_LRS, 1.0),
    "digits CNN": Task(digits, cnn, DIGITS_LRS, 1.0),
    "char-LM pre-LN": Task(
        characters,
        partial(CharacterModel, pre_ln=True),
        {"Adam": (3e-3, 1e-2, 3e-2)},
        2.9,
    ),
    "char-LM post-LN": Task(
        characters,
        partial(CharacterModel, pre_ln=False),
        {"Adam": (3e-3, 8e-3, 1.5e-2)},
        2.9,
    ),
}
