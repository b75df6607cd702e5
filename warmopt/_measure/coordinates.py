"""Samples a few coordinates of a tensor, always the same ones, in any memory layout.

The coordinates are positions in the whole tensor: up to 4 chunks of 16, or all of a
small tensor. If there are many tensors, fewer are taken from each: 4096 in total are
enough, and every chunk costs a cache miss. Of a DTensor, every rank samples the
coordinates that it owns and puts 0 for the others. So the sum over the ranks is the
sample of the whole tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from warmopt._torch import dtensor_class, owned_part

__all__ = [
    "coordinates",
    "is_counted_here",
    "is_dense",
    "mesh_of",
    "sampler",
    "whole_mesh",
]

CHUNK = 16


def coordinates(tensors: int) -> int:
    """How many coordinates to sample of each tensor, if there are so many tensors.

    64; for more than 64 tensors fewer, but at least 16.
    """
    return CHUNK * min(4, max(1, 256 // max(tensors, 1)))


def sampler(
    tensors: Sequence[Tensor | None], count: int, device: torch.device
) -> Callable[[], Tensor]:
    """Returns a function that samples all tensors, with the values of that moment.

    The function gives a new float32 tensor of shape [tensors, count]. The row of a
    small tensor is filled up with zeros.

    Args:
        tensors: The tensors. For None the row has only zeros.
        count: Coordinates of each tensor, from `coordinates`.
        device: Where the samples shall be.
    """
    if not tensors:  # this rank holds no shard
        return lambda: torch.empty((0, count), device=device)
    if all(values is None or is_dense(values) for values in tensors):
        return _sampler_of_dense(tensors, count, device)
    # A tensor with gaps in memory has no flat view, so it is copied at each call.
    return lambda: _sampler_of_dense(
        [v if v is None else v.contiguous() for v in tensors], count, device
    )()


def _sampler_of_dense(
    tensors: Sequence[Tensor | None], count: int, device: torch.device
) -> Callable[[], Tensor]:
    """Like `sampler`, for tensors without gaps in memory: it keeps views of them."""
    rows = [_views(values, count, device) for values in tensors]
    pieces = [piece for row in rows for piece in row]
    is_near = all(piece.device == device for piece in pieces)

    def sample() -> Tensor:
        # A model may be spread over several devices. Then each row is put together
        # where its tensor is, and moved.
        parts = pieces if is_near else [torch.cat(row).to(device) for row in rows]
        return torch.cat(parts).float().view(-1, count)

    return sample


def mesh_of(values: Any) -> Any:
    """The mesh of ranks that a DTensor is spread over; None for a plain tensor."""
    dtensor = dtensor_class()
    if dtensor is None or not isinstance(values, dtensor):
        return None
    return values.device_mesh


def whole_mesh(params: Iterable[Tensor]) -> Any:
    """The mesh that all DTensors lie on, or on parts of it; None without DTensors.

    Raises:
        ValueError: No mesh contains the ranks of all the others.
    """
    meshes = dict.fromkeys(m for p in params if (m := mesh_of(p)) is not None)
    ranks = {mesh: set(mesh.mesh.flatten().tolist()) for mesh in meshes}
    # Of several meshes with equally many ranks, `max` takes the first.
    whole = max(meshes, key=lambda mesh: len(ranks[mesh]), default=None)
    for mesh in meshes:
        if not ranks[mesh] <= ranks[whole]:
            raise ValueError(
                "params must lie on one mesh, or on parts of it, for their second "
                f"moments to be read, got {mesh} and {whole}. Give each an optimizer "
                "of its own, or use mode='linear'."
            )
    return whole


def is_counted_here(values: Any, whole: Any) -> bool:
    """Whether this rank adds its part of a tensor to the sum over a mesh.

    Every rank of the mesh has a copy of a plain tensor. A DTensor may lie on a part of
    the mesh, with copies on the other parts. Only the copy on the first rank of the
    mesh counts, so that nothing is summed twice.

    Args:
        values: The tensor.
        whole: The mesh that the sum goes over.
    """
    first, mesh = whole.mesh.flatten()[0], mesh_of(values)
    held_by = torch.tensor(whole.get_rank()) if mesh is None else mesh.mesh
    return bool((held_by == first).any())


def _views(values: Tensor | None, count: int, device: torch.device) -> list[Tensor]:
    """Views of the coordinates to sample, and zeros up to `count` elements."""
    if values is None:
        return [torch.zeros(count, device=device)]
    if values.is_complex():
        values = torch.view_as_real(values)
    runs: Iterable[tuple[int | None, int]] = _chunks(values.numel(), count)
    local = values
    if mesh_of(values) is not None:
        runs, local = _owned_runs(values, count), values.to_local()  # type: ignore[attr-defined]
    flat = _in_memory_order(local)
    pieces = [
        flat.new_zeros(size) if start is None else flat[start : start + size]
        for start, size in runs
    ]
    filler = count - sum(map(len, pieces))
    return [*pieces, flat.new_zeros(filler)] if filler else pieces


def _chunks(size: int, count: int) -> list[tuple[int, int]]:
    """(start, length) of each chunk in a tensor with `size` elements."""
    if size <= count:
        return [(0, size)] if size else []
    last, chunks = size - CHUNK, count // CHUNK
    if chunks == 1:
        return [(last // 2, CHUNK)]
    return [(c * last // (chunks - 1), CHUNK) for c in range(chunks)]


def is_dense(values: Tensor) -> bool:
    """Whether its elements fill a piece of memory without gaps, in any order."""
    local = values if mesh_of(values) is None else values.to_local()  # type: ignore[attr-defined]
    expected = 1
    for stride, size in sorted(zip(local.stride(), local.shape, strict=True)):
        if size > 1 and stride != expected:
            return not local.numel()
        expected *= size
    return True


def _in_memory_order(values: Tensor) -> Tensor:
    """A flat view of a dense tensor, in the order of memory.

    If the tensor is not contiguous, this is not the order of its coordinates. That is
    fine for a sample, which only has to take the same elements every time.
    """
    if values.is_contiguous():
        return values.detach().view(-1)
    return values.detach().as_strided((values.numel(),), (1,))


def _owned_runs(values: Any, count: int) -> Iterator[tuple[int | None, int]]:
    """(start in the local shard, length) of each piece of the chunks of a DTensor.

    The start is None for a piece that this rank does not own. If ranks have replicas,
    only the first of them owns anything, so that the sum does not count it twice.
    """
    mesh, placements, shape = values.device_mesh, values.placements, values.shape
    size, offset = owned_part(values)
    first = all(
        place == 0 or not placement.is_replicate()
        for place, placement in zip(mesh.get_coordinate(), placements, strict=True)
    )

    def local(flat: int) -> int | None:
        """Position in the local shard of an element of the whole tensor, if here."""
        here = 0
        for axis, extent in enumerate(shape):
            place = flat // math.prod(shape[axis + 1 :]) % extent - offset[axis]
            if not (first and 0 <= place < size[axis]):
                return None
            here = here * size[axis] + place
        return here

    for start, length in _chunks(values.numel(), count):
        places = enumerate(map(local, range(start, start + length)))
        # Elements that follow each other in the shard too have the same difference
        # between the two positions: they form one piece.
        for _, run in groupby(
            places, lambda each: None if each[1] is None else each[1] - each[0]
        ):
            starts = [place for _, place in run]
            yield starts[0], len(starts)
