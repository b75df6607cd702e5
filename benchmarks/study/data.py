"""The data of the tasks. All of it comes with Python or scikit-learn.

There are handwritten digits (1797 images of 8 x 8), and the text of Python's help
topics, as characters and as words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pydoc_data.topics import topics
from typing import NamedTuple

import torch
from torch import Tensor

from warmopt._tools.demo import encoded_text

CONTEXT = 24
WORDS_BEFORE = 4
NEXT_WORDS = 64  # a class for each of these; all other words share one class


class Data(NamedTuple):
    """What draws batches for training, and a validation set that never changes."""

    batch: Callable[[torch.Generator, int], tuple[Tensor, Tensor]]
    validation: tuple[Tensor, Tensor]
    classes: int
    inputs: int = 0  # how many values an index in x may have


def of_samples(x: Tensor, y: Tensor, held_out: int, classes: int) -> Data:
    """Draws with replacement; the last samples are kept for validation."""
    train = len(x) - held_out

    def batch(draw: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(train, (size,), generator=draw)
        return x[chosen], y[chosen]

    return Data(batch, (x[train:], y[train:]), classes)


@cache
def digits(turned: bool = False) -> Data:
    from sklearn.datasets import load_digits

    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x, y = images[order].float() / 16, labels[order].long()
    if turned:
        x = x.unflatten(1, (8, 8)).rot90(1, (1, 2)).flatten(1)
    return of_samples(x, y, 400, 10)


@cache
def characters() -> Data:
    text, classes = encoded_text()
    train = len(text) * 9 // 10
    window = torch.arange(CONTEXT + 1)

    def split(starts: Tensor) -> tuple[Tensor, Tensor]:
        windows = text[starts[:, None] + window]
        return windows[:, :-1], windows[:, 1:]

    def batch(draw: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
        return split(torch.randint(train - CONTEXT, (size,), generator=draw))

    held_out = torch.linspace(train, len(text) - CONTEXT - 1, 256).long()
    return Data(batch, split(held_out), classes)


@cache
def words() -> Data:
    """Some words, and the next one to guess. Most words are rare (Zipf's law)."""
    text = re.findall(r"\w+|[^\w\s]", " ".join(topics[name] for name in sorted(topics)))
    known = {word: i for i, (word, _) in enumerate(Counter(text).most_common())}
    codes = torch.tensor([known[word] for word in text])
    x = codes.unfold(0, WORDS_BEFORE, 1)[:-1]
    y = codes[WORDS_BEFORE:].clamp(max=NEXT_WORDS)
    data = of_samples(x, y, len(x) // 10, NEXT_WORDS + 1)
    held_out = torch.linspace(0, len(data.validation[0]) - 1, 1000).long()
    return data._replace(
        validation=(data.validation[0][held_out], data.validation[1][held_out]),
        inputs=len(known),
    )
