"""A few coordinates of a tensor, always the same ones, however it is laid out.

The coordinates are those of the whole tensor: 4 chunks of 16, or all of a small one.
Of a DTensor every rank sees those that it owns, and zeros for the rest, so that the sum
over the ranks is the sample of the whole.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

__all__ = ["COORDINATES", "Row", "is_counted_here", "mesh_of", "row", "sampler"]

CHUNKS, CHUNK = 4, 16
COORDINATES = CHUNKS * CHUNK

Row = list[Tensor]
"""Views of one tensor that hold its sample, filled up with zeros to 64 elements."""


def row(values: Tensor | None, device: torch.device) -> Row:
    """Where the sample of a tensor lies in memory, now; no element is read."""
    if values is None:
        return [torch.zeros(COORDINATES, device=device)]
    if values.is_complex():
        values = torch.view_as_real(values)
    runs: Iterator[tuple[int | None, int]]
    if mesh_of(values) is not None:
        runs, local = _owned_runs(values), values.to_local()  # type: ignore[attr-defined]
    else:
        runs, local = ((start, size) for start, size in _chunks(values.numel())), values
    flat = _in_memory_order(local)
    pieces = [
        flat.new_zeros(size) if start is None else flat[start : start + size]
        for start, size in runs
    ]
    filler = COORDINATES - sum(map(len, pieces))
    return [*pieces, flat.new_zeros(filler)] if filler else pieces


def sampler(rows: Sequence[Row], device: torch.device) -> Callable[[], Tensor]:
    """Returns what gathers the samples as they are when it is called.

    It gives a new float32 tensor of shape [rows, 64].
    """
    shape = len(rows), COORDINATES
    if not rows:  # of a rank that holds nothing
        return lambda: torch.empty(shape, device=device)
    pieces = [piece for row in rows for piece in row]
    if all(piece.device == device for piece in pieces):
        return lambda: torch.cat(pieces).float().view(shape)
    # Of a model that is spread over several devices.
    return lambda: torch.cat([torch.cat(row).to(device) for row in rows]).view(shape)


def mesh_of(values: Any) -> Any:
    """The mesh of ranks that a DTensor is spread over; None for a plain tensor."""
    # Without the module there are none; it is not imported for nothing.
    module = sys.modules.get("torch.distributed.tensor")
    if module is None or not isinstance(values, module.DTensor):
        return None
    return values.device_mesh


def is_counted_here(values: Any, whole: Any) -> bool:
    """Whether the sum over a mesh takes a tensor from here: of copies, only the first.

    A plain tensor is on every rank of the mesh, a DTensor may be spread over a part.
    """
    first, mesh = whole.mesh.flatten()[0], mesh_of(values)
    held_by = torch.tensor(whole.get_rank()) if mesh is None else mesh.mesh
    return bool((held_by == first).any())


def _chunks(size: int) -> list[tuple[int, int]]:
    """(start, length) of the chunks in a tensor of so many elements."""
    if size <= COORDINATES:
        return [(0, size)] if size else []
    return [(c * (size - CHUNK) // (CHUNKS - 1), CHUNK) for c in range(CHUNKS)]


def _in_memory_order(values: Tensor) -> Tensor:
    """A flat view: the order is that of the memory, which only this rank knows."""
    if values.is_contiguous():
        return values.detach().view(-1)
    return values.detach().as_strided((values.numel(),), (1,))


def _owned_runs(values: Any) -> Iterator[tuple[int | None, int]]:
    """(local start or None, length) of the chunks of a DTensor, on this rank.

    Of replicas only the first owns anything, lest the sum counts it more than once.
    """
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, placements, shape = values.device_mesh, values.placements, values.shape
    size, offset = compute_local_shape_and_global_offset(shape, mesh, placements)
    first = all(
        place == 0 or not placement.is_replicate()
        for place, placement in zip(mesh.get_coordinate(), placements, strict=True)
    )

    def local(flat: int) -> int | None:
        here = 0
        for axis, extent in enumerate(shape):
            place = flat // math.prod(shape[axis + 1 :]) % extent - offset[axis]
            if not (first and 0 <= place < size[axis]):
                return None
            here = here * size[axis] + place
        return here

    for start, length in _chunks(values.numel()):
        places = enumerate(map(local, range(start, start + length)))
        for _, run in groupby(
            places, lambda each: None if each[1] is None else each[1] - each[0]
        ):
            starts = [place for _, place in run]
            yield starts[0], len(starts)
