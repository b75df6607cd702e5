"""CIFAR-10 from a folder, and the two networks of published warmup experiments.

The folder must hold the binary version, as its authors offer it: `data_batch_1.bin` to
`data_batch_5.bin` and `test_batch.bin`. Each file has 10 000 images. An image is one
byte for the label and 3072 bytes for the pixels (red, green, blue, each 32 x 32).
Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from benchmarks.study.data import Data

RECORD = 1 + 3 * 32 * 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def read(paths: Iterable[Path]) -> tuple[Tensor, Tensor]:
    """Reads normalised images, of shape [n, 3, 32, 32], and their labels."""
    content = bytearray()
    for path in paths:
        data = path.read_bytes()
        if not data or len(data) % RECORD:
            raise ValueError(
                f"{path.name} must be CIFAR-10 in its binary version, records of "
                f"{RECORD} bytes, got {len(data)} bytes."
            )
        content += data
    if not content:
        raise ValueError("--data must be the folder with CIFAR-10's .bin files.")
    records = torch.frombuffer(content, dtype=torch.uint8).view(-1, RECORD)
    images = records[:, 1:].view(-1, 3, 32, 32).float() / 255
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (MEAN, STD))
    return (images - mean) / std, records[:, 0].long()


@cache
def cifar10(folder: Path | None) -> Data:
    if folder is None:
        raise ValueError("--data must be the folder with CIFAR-10's .bin files.")
    x, y = read(sorted(folder.glob("data_batch_*.bin")))
    padded = pad(x, (4, 4, 4, 4))
    window = torch.arange(32)

    def batch(draw: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Draws images, pads and crops them at random, and mirrors half of them."""
        chosen = torch.randint(len(x), (size,), generator=draw)
        top, left = torch.randint(9, (2, size, 1), generator=draw)
        mirrored = torch.randint(2, (size, 1), generator=draw).bool()
        columns = left + window.where(~mirrored, window.flip(0))
        rows = (top + window)[:, None, :, None]
        crop = padded[
            chosen[:, None, None, None],
            torch.arange(3)[:, None, None],
            rows,
            columns[:, None, None, :],
        ]
        return crop, y[chosen]

    return Data(batch, read([folder / "test_batch.bin"]), 10)


def conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters (He et al., option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        )
        self.second = nn.Sequential(conv(outputs, outputs), nn.BatchNorm2d(outputs))
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        added = self.more // 2
        short = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, added, added))
        return relu(self.second(relu(self.first(x))) + short)


class WideBlock(nn.Module):
    """Norms and ReLUs before the convolutions (Zagoruyko & Komodakis)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.convs = nn.Sequential(
            *(conv(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU()),
            conv(outputs, outputs),
        )
        same = inputs == outputs
        self.short = None if same else conv(inputs, outputs, stride, size=1)

    def forward(self, x: Tensor) -> Tensor:
        ahead = relu(self.norm(x))
        return self.convs(ahead) + (x if self.short is None else self.short(ahead))


def stages(block: type[nn.Module], each: int, widths: list[int]) -> nn.Module:
    """Builds three stages of `each` blocks; stages two and three halve the image."""
    layers = []
    for stage, (inputs, outputs) in enumerate(pairwise(widths)):
        for i in range(each):
            stride = 2 if stage and not i else 1
            layers.append(block(outputs if i else inputs, outputs, stride))
    return nn.Sequential(*layers)


def resnet20(data: Data) -> nn.Module:
    return nn.Sequential(
        *(conv(3, 16), nn.BatchNorm2d(16), nn.ReLU()),
        stages(Block, 3, [16, 16, 32, 64]),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, data.classes)),
    )


def wrn16_4(data: Data) -> nn.Module:
    return nn.Sequential(
        conv(3, 16),
        stages(WideBlock, 2, [16, 64, 128, 256]),
        *(nn.BatchNorm2d(256), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, data.classes)),
    )
