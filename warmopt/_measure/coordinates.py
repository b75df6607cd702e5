"""A few coordinates of a tensor, always the same ones, however it is laid out.

The coordinates are those of the whole tensor: up to 4 chunks of 16, or all of a small
one. Of many tensors fewer are taken of each: 4096 in all tell as much, and every chunk
costs a cache miss. Of a DTensor every rank sees those that it owns, and zeros for the
rest, so that the sum over the ranks is the sample of the whole.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

__all__ = ["coordinates", "is_counted_here", "mesh_of", "sampler", "whole_mesh"]

CHUNK = 16


def coordinates(tensors: int) -> int:
    """How many of each tensor: 64, or fewer of more than 64 tensors, at least 16."""
    return CHUNK * min(4, max(1, 256 // max(tensors, 1)))


def sampler(
    tensors: Sequence[Tensor | None], count: int, device: torch.device
) -> Callable[[], Tensor]:
    """Returns what gathers a sample of each tensor, as it is when it is called.

    It gives a new float32 tensor of shape [tensors, count], filled up with zeros.
    """
    if not tensors:  # of a rank that holds nothing
        return lambda: torch.empty((0, count), device=device)
    if not all(values is None or _is_dense(values) for values in tensors):
        # No views of it are runs of memory.
        return lambda: sampler(
            [values if values is None else values.contiguous() for values in tensors],
            count,
            device,
        )()
    rows = [_views(values, count, device) for values in tensors]
    pieces = [piece for row in rows for piece in row]
    is_near = all(piece.device == device for piece in pieces)

    def sample() -> Tensor:
        # A model may be spread over several devices.
        parts = pieces if is_near else [torch.cat(row).to(device) for row in rows]
        return torch.cat(parts).float().view(-1, count)

    return sample


def mesh_of(values: Any) -> Any:
    """The mesh of ranks that a DTensor is spread over; None for a plain tensor."""
    # Without the module there are none; it is not imported for nothing.
    module = sys.modules.get("torch.distributed.tensor")
    if module is None or not isinstance(values, module.DTensor):
        return None
    return values.device_mesh


def whole_mesh(params: Iterable[Tensor]) -> Any:
    """The mesh that all DTensors lie on, or on parts of it; None where there is none.

    Raises:
        ValueError: No mesh has all ranks in it.
    """
    meshes = dict.fromkeys(m for p in params if (m := mesh_of(p)) is not None)
    ranks = {mesh: set(mesh.mesh.flatten().tolist()) for mesh in meshes}
    # The first of equal ones.
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
    """Whether the sum over a mesh takes a tensor from here: of copies, only the first.

    A plain tensor is on every rank of the mesh, a DTensor may be spread over a part.
    """
    first, mesh = whole.mesh.flatten()[0], mesh_of(values)
    held_by = torch.tensor(whole.get_rank()) if mesh is None else mesh.mesh
    return bool((held_by == first).any())


def _views(values: Tensor | None, count: int, device: torch.device) -> list[Tensor]:
    """Its sample, where it lies in memory now, and zeros that fill it up."""
    if values is None:
        return [torch.zeros(count, device=device)]
    if values.is_complex():
        values = torch.view_as_real(values)
    runs: Iterator[tuple[int | None, int]]
    if mesh_of(values) is not None:
        runs, local = _owned_runs(values, count), values.to_local()  # type: ignore[attr-defined]
    else:
        chunks = _chunks(values.numel(), count)
        runs, local = ((start, size) for start, size in chunks), values
    flat = _in_memory_order(local)
    pieces = [
        flat.new_zeros(size) if start is None else flat[start : start + size]
        for start, size in runs
    ]
    filler = count - sum(map(len, pieces))
    return [*pieces, flat.new_zeros(filler)] if filler else pieces


def _chunks(size: int, count: int) -> list[tuple[int, int]]:
    """(start, length) of the chunks in a tensor of so many elements."""
    if size <= count:
        return [(0, size)] if size else []
    last, chunks = size - CHUNK, count // CHUNK
    if chunks == 1:
        return [(last // 2, CHUNK)]
    return [(c * last // (chunks - 1), CHUNK) for c in range(chunks)]


def _is_dense(values: Tensor) -> bool:
    """Whether its elements fill a run of memory, in whatever order."""
    local = values if mesh_of(values) is None else values.to_local()  # type: ignore[attr-defined]
    expected = 1
    for stride, size in sorted(zip(local.stride(), local.shape, strict=True)):
        if size > 1 and stride != expected:
            return not local.numel()
        expected *= size
    return True


def _in_memory_order(values: Tensor) -> Tensor:
    """A flat view: the order is that of the memory, which only this rank knows."""
    if values.is_contiguous():
        return values.detach().view(-1)
    return values.detach().as_strided((values.numel(),), (1,))


def _owned_runs(values: Any, count: int) -> Iterator[tuple[int | None, int]]:
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

    for start, length in _chunks(values.numel(), count):
        places = enumerate(map(local, range(start, start + length)))
        for _, run in groupby(
            places, lambda each: None if each[1] is None else each[1] - each[0]
        ):
            starts = [place for _, place in run]
            yield starts[0], len(starts)
