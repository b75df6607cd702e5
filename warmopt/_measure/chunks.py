"""Samples gradients and parameters: a few chunks, spread evenly over all elements.

A gradient is a new tensor at every update, so nothing of it can be kept. To make one
view costs a microsecond, and more in a real step, so there are few chunks: 12 of 512
elements. Every rank samples what it holds, so that only sums go over the ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import Any

import torch
from torch import Tensor

from warmopt._measure.coordinates import is_dense, mesh_of

__all__ = ["Chunks"]

LONG = 512  # elements in a chunk
MOST = 12  # chunks in all, if there is one param group
LEAST = 4  # chunks that a param group has at least, and a tensor at most on average


class Chunks:
    """The chunks of some parameters, and of tensors that are shaped like them.

    A sample is a list of pieces, which `torch.cat` makes one row of numbers of. A chunk
    is 512 of these; a shorter one is filled up with zeros.

    Args:
        groups: The parameters of each param group.
        total: How many elements all param groups of the optimizer have here. So a group
            has the same chunks whoever is sampled with it.
        mesh: The mesh that all DTensors lie on; None if there are none.
        device: Where the samples shall be.

    Attributes:
        chosen: The parameters that are sampled, one for each chunk.
        weights: For each number in a sample, how many elements it stands for.
        counts: For each param group, how many chunks it has.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Tensor]],
        total: int,
        mesh: Any,
        device: torch.device,
    ) -> None:
        self._device = device
        self.chosen: list[Any] = []
        self.counts: list[int] = []
        self._starts: list[int] = []
        self._lengths: list[int] = []
        rows: list[Tensor] = []
        for params in groups:
            before = len(self.chosen)
            sizes = [_local(param).numel() for param in params]
            for param, size, (count, each) in zip(
                params, sizes, _shares(sizes, total), strict=True
            ):
                length = min(LONG, size)
                row = torch.zeros(LONG)
                row[:length] = each / max(length, 1) / _copies(param, mesh)
                for chunk in range(count):
                    # In the middle, each of its own equal part.
                    middle = int((chunk + 0.5) * size / count)
                    start = min(max(middle - length // 2, 0), size - length)
                    self._starts.append(start)
                    self._lengths.append(length)
                    self.chosen.append(param)
                    rows.append(row)
            self.counts.append(len(self.chosen) - before)
        self.weights = torch.cat(rows or [torch.empty(0)]).to(device)
        self._sizes = [(length,) for length in self._lengths]
        self._ones = [(1,)] * len(self._sizes)
        self._fillers = {
            place: torch.zeros(LONG - length, device=device)
            for place, length in enumerate(self._lengths)
            if length < LONG
        }
        self._nothing = torch.zeros(LONG, device=device)
        self._look_up()

    def _look_up(self) -> None:
        """Notes how the parameters lie in memory now."""
        self._likes = [_local(param) for param in self.chosen]
        self._strides = [values.stride() for values in self._likes]
        self._is_plain = all(
            mesh_of(param) is None
            and not like.is_complex()
            and is_dense(like)
            and like.device == self._device
            for param, like in zip(self.chosen, self._likes, strict=True)
        )
        self._pieces, _ = self.of([param.detach() for param in self.chosen])
        self._addresses: Any = list(map(Tensor.data_ptr, self._likes))

    @property
    def numbers(self) -> int:
        """How many numbers a sample has."""
        return len(self.chosen) * LONG

    def sample(self) -> tuple[list[Tensor], set[int] | None]:
        """The pieces of the gradients, and then of the parameters, as they are now.

        Returns:
            They, and the chunks that have no gradient, or a sparse one: they are filled
            with zeros. None if there are none.
        """
        pieces, absent = self.of([param.grad for param in self.chosen])
        # Views of the parameters stay, until somebody moves these in memory.
        if not self._is_plain or self._addresses != [
            *map(Tensor.data_ptr, self.chosen)
        ]:
            self._look_up()
        return pieces + self._pieces, absent

    def of(self, tensors: Sequence[Any]) -> tuple[list[Tensor], set[int] | None]:
        """The pieces of tensors like the chosen parameters, as `sample` gives them."""
        if self._is_plain:
            try:
                return self._of_plain(tensors), None
            except (TypeError, RuntimeError, AttributeError):
                pass  # one is None, or sparse, or lies in memory in another way
        pieces, absent = [], set()
        every = zip(tensors, self._likes, self._starts, self._lengths, strict=True)
        for place, (tensor, like, start, length) in enumerate(every):
            flat = _flat(tensor, like)
            if flat is None:
                absent.add(place)
                pieces.append(self._nothing)
                continue
            pieces.append(flat[start : start + length].to(self._device))
            if length < LONG:
                pieces.append(self._fillers[place])
        return pieces, absent or None

    def _of_plain(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same in fewer operations, for tensors in memory as the parameters are."""
        if list(map(Tensor.stride, tensors)) != self._strides:
            raise RuntimeError
        offsets = map(add, map(Tensor.storage_offset, tensors), self._starts)
        pieces = list(map(torch.as_strided, tensors, self._sizes, self._ones, offsets))
        for place in reversed(self._fillers):
            pieces.insert(place + 1, self._fillers[place])
        return pieces


def _shares(sizes: list[int], total: int) -> list[tuple[int, float]]:
    """For each tensor, its number of chunks, and the elements that each stands for.

    If there are few tensors, each has a chunk at least. Otherwise the chunks lie at
    equal distances in the row of all elements, and some small tensors have none.
    """
    own, tensors = sum(sizes), sum(map(bool, sizes))
    if not own:
        return [(0, 0.0)] * len(sizes)
    most = min(max(LEAST, round(MOST * own / total)), LEAST * tensors)
    step = own / most
    ends = [round(end / step) for end in accumulate(sizes)]
    counts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    if tensors > most:
        return [(count, step) for count in counts]
    shares = []
    for count, size in zip(counts, sizes, strict=True):
        own_count = min(max(count, 1), -(-size // LONG))
        shares.append((own_count, size / own_count if own_count else 0.0))
    return shares


def _local(values: Tensor) -> Tensor:
    """The part of a tensor that is here."""
    values = values.detach()
    return values if mesh_of(values) is None else values.to_local()  # type: ignore[attr-defined]


def _copies(param: Tensor, mesh: Any) -> int:
    """How many ranks of the mesh hold the same part of a parameter."""
    if mesh is None:
        return 1
    own = mesh_of(param)
    if own is None:
        return int(mesh.size())
    placements = zip(own.mesh.shape, param.placements, strict=True)  # type: ignore[attr-defined]
    copies = math.prod(size for size, place in placements if place.is_replicate())
    return int(copies * mesh.size() // own.size())


def _flat(values: Any, like: Tensor) -> Tensor | None:
    """All elements in a row, in the same order as those of the parameter."""
    if values is None or values.layout != torch.strided:
        return None
    values = _local(values)
    if values.shape != like.shape:
        return None
    if not is_dense(like):
        values = values.contiguous()
    elif values.stride() != like.stride():
        values = torch.empty_like(like, dtype=values.dtype).copy_(values)
    values = values.as_strided((values.numel(),), (1,))
    return torch.view_as_real(values).reshape(-1) if values.is_complex() else values
