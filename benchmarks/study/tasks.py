"""The training tasks. To add one, add a line to `TASKS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.study import cifar, data, models
from benchmarks.study.data import Data

Batch = tuple[Tensor, Tensor]
Model = Callable[[Data], nn.Module]


def linear_decay(done: int, updates: int) -> float:
    """The LR is constant, then falls linearly to 0 over the last 30 % of the run."""
    return min(1.0, (updates - done) / (0.3 * updates))


def unchanged(model: nn.Module, share: float) -> None:
    """Changes nothing during the run."""


def whole(model: nn.Module) -> list[nn.Module]:
    """One param group for the whole model."""
    return [model]


class Task(NamedTuple):
    """What is trained.

    Attributes:
        data: Loads the data; gets the folder that the user has named, if any.
        model: Builds the model for the data.
        batch: How many samples a batch has, given how much of the run is done (0 to 1).
        fails_above: A run has failed if its validation loss, in nats, is higher.
        decay: Factor of the LR, given (updates done, updates). The warmup is extra.
        groups: The parts of the model, one for each param group.
        before: Called before each update with the model and how much is done.
        weight_decay: Passed to the optimizer if it is not 0.
    """

    data: Callable[[Path | None], Data]
    model: Model
    batch: Callable[[float], int]
    fails_above: float
    decay: Callable[[int, int], float] = linear_decay
    groups: Callable[[nn.Module], list[nn.Module]] = whole
    before: Callable[[nn.Module, float], None] = unchanged
    weight_decay: float = 0.0


def digits(_: Path | None) -> Data:
    return data.digits()


def turned_digits(_: Path | None) -> Data:
    return data.digits(turned=True)


def characters(_: Path | None) -> Data:
    return data.characters()


def words(_: Path | None) -> Data:
    return data.words()


def pretrain(model: nn.Module, data: Data, updates: int, size: int, lr: float) -> None:
    """Trains a model with Adam before the run begins."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    draw = torch.Generator().manual_seed(torch.initial_seed())
    for _ in range(updates):
        x, y = data.batch(draw, size)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def pretrained_mlp(turned: Data) -> nn.Module:
    """Trains a model on upright digits; returns its frozen body with a new head."""
    upright, model = data.digits(), models.mlp(turned)
    pretrain(model, upright, updates=200, size=64, lr=0.001)
    body, head = model[:-1], nn.Linear(128, turned.classes)
    return nn.Sequential(body.requires_grad_(False), head)


def unfreeze(model: nn.Module, share: float) -> None:
    """After a third of the run the body is trained too, and its warmup begins."""
    if share >= 1 / 3:
        model.requires_grad_(True)


def multistep(done: int, updates: int) -> float:
    """RAdam's recipe for CIFAR-10: divides the LR by 10 at epochs 81 and 122 of 186."""
    return 0.1 ** sum(done >= updates * epoch / 186 for epoch in (81, 122))


def cosine_to_tenth(done: int, updates: int) -> float:
    return 0.55 + 0.45 * math.cos(math.pi * done / updates)


def no_decay(done: int, updates: int) -> float:
    return 1.0


def noisy_digits(_: Path | None) -> Data:
    """A fifth of the labels of each batch is drawn at random."""
    clean = data.digits()

    def batch(draw: torch.Generator, size: int) -> Batch:
        x, y = clean.batch(draw, size)
        wrong = torch.rand(size, generator=draw) < 0.2
        return x, torch.where(wrong, torch.randint(10, (size,), generator=draw), y)

    return clean._replace(batch=batch)


def converged_lstm(text: Data) -> nn.Module:
    """An LSTM after 600 updates of Adam; the run has a fresh optimizer."""
    model = models.CharacterLSTM(text)
    pretrain(model, text, updates=600, size=8, lr=0.003)
    return model


def same(size: int, share: float) -> int:
    return size


def always(size: int) -> Callable[[float], int]:
    """A batch of this size in the whole run."""
    return partial(same, size)


TASKS = {
    "digits MLP": Task(digits, models.mlp, always(64), 1.0),
    "digits CNN": Task(digits, models.cnn, always(64), 1.0),
    "char-LM pre-LN": Task(characters, models.pre_ln, always(8), 2.9),
    "char-LM post-LN": Task(characters, models.post_ln, always(8), 2.9),
    "char-LM LSTM": Task(characters, models.CharacterLSTM, always(8), 2.9),
    "fine-tuning": Task(
        *(turned_digits, pretrained_mlp, always(64), 1.0),
        groups=lambda model: list(model),
        before=unfreeze,
    ),
    "rare words": Task(words, models.next_word, always(32), 3.1),
    "batch 8, then 64": Task(
        digits, models.mlp, lambda share: 8 if share < 0.05 else 64, 1.0
    ),
    # Horizon, noise and fine-tuning, for the study of aligned mode.
    "char-LM LSTM, no decay": Task(
        characters, models.CharacterLSTM, always(8), 2.9, no_decay
    ),
    "digits CNN, no decay": Task(digits, models.cnn, always(64), 1.0, no_decay),
    "batch 8, then 64, no decay": Task(
        *(digits, models.mlp, lambda share: 8 if share < 0.05 else 64, 1.0, no_decay)
    ),
    **{
        f"digits MLP, batch {size}": Task(digits, models.mlp, always(size), 1.0)
        for size in (1, 8, 512)
    },
    "digits MLP, noisy labels": Task(noisy_digits, models.mlp, always(64), 1.0),
    "char-LM LSTM, converged": Task(characters, converged_lstm, always(8), 2.9),
    # For those who have CIFAR-10: see cifar.
    "ResNet-20": Task(
        *(cifar.cifar10, cifar.resnet20, always(128), 2.0),
        decay=multistep,
        weight_decay=1e-4,
    ),
    "WRN-16-4": Task(
        cifar.cifar10, cifar.wrn16_4, always(128), 2.0, decay=cosine_to_tenth
    ),
}
