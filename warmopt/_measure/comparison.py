"""Compares the new gradient with the last step: how well do they still agree?

The step is what the optimizer has really moved: the parameters before it minus those
after it. Before each update a small sample of the gradients and of the parameters is
taken. With the sample of the update before, it gives a reading: a few sums, which are
copied to the host in the background.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from warmopt._keys import Group, are_same
from warmopt._measure.chunks import LONG, Chunks
from warmopt._measure.coordinates import whole_mesh
from warmopt._optimizers.second_moments import Moment, find_moment, inner
from warmopt._torch import copy_all

__all__ = ["Comparison", "Signal", "alignment", "alignment_on_device"]

Signal = Literal["ratio", "tensor", "adam"]


class Comparison:
    """Samples some param groups before each update, and compares.

    Args:
        optimizer: The optimizer that makes the steps.
        groups: The param groups.
        signal: What is computed: see `alignment`.
        every: Updates between two readings.
        process_group: The ranks that hold the shards, as in `Adaptive`.

    Attributes:
        samples: The last two samples, float32, of shape [2, 2, numbers]: that of update
            t is at t % 2; first the gradients, then the parameters. What is not known
            is nan.
        before: For each group, its part of `samples`, flat, so that a long one prints
            on one line. These are saved with the group.
        is_shared: Whether the sums go over several ranks.
        saw_gradients: Whether the last sample had any gradient to compare.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        groups: list[Group],
        signal: Signal,
        every: int,
        process_group: Any = None,
    ) -> None:
        self._outer, self._optimizer = optimizer, inner(optimizer)
        self._groups = groups
        self._signal, self._every, self._process_group = signal, every, process_group
        self._params: list[Any] = [p for group in groups for p in group["params"]]
        self._mesh = whole_mesh(self._params)
        device = next((p.device for p in self._params), torch.device("cpu"))
        self.is_shared = self._mesh is not None or process_group is not None
        sizes = [p.numel() for g in optimizer.param_groups for p in g["params"]]
        self._lists: Any = [list(group["params"]) for group in groups]
        self._chunks = Chunks(self._lists, sum(sizes), self._mesh, device)
        self._group_of = {p: group for group in groups for p in group["params"]}
        numbers = self._chunks.numbers
        self.samples = torch.full((2, 2, numbers), math.nan, device=device)
        self.before = [self.samples.view(-1)]
        if len(groups) != 1:
            self._own = [part.clone() for part in self._parts()]
            self.before = [part.view(-1) for part in self._own]
        # If all numbers stand for equally many elements, a ratio needs no weights.
        self._is_weighted = self.is_shared or bool(self._chunks.weights.diff().any())
        # Views, since to make one takes as long as to compute with it.
        self._rows = [sample.view(-1) for sample in self.samples]
        self._gradients = self.samples[:, 0]
        self._places = list(self.samples[:, 1])
        self._step = torch.empty(numbers, device=device)
        self._absent: list[Any] = [None, None]
        self._has_seen: bool | None = None  # a gradient that can be compared

    def _parts(self) -> list[Tensor]:
        """The part of `samples` of each group."""
        lengths = [LONG * count for count in self._chunks.counts]
        return list(torch.split(self.samples, lengths, dim=2))

    def restore(self, before: list[Any]) -> None:
        """Goes on from saved samples, or does nothing if they do not fit."""
        for saved, own in zip(before, self.before, strict=True):
            if not isinstance(saved, Tensor) or saved.numel() != own.numel():
                return
        for saved, own, part in zip(before, self.before, self._parts(), strict=True):
            part.copy_(saved.reshape(part.shape))
            own.copy_(saved.reshape(own.shape))

    def is_of(self, groups: list[Group]) -> bool:
        """Whether these groups still have exactly the parameters that it compares."""
        return are_same(self._lists, [group["params"] for group in groups])

    def due_in(self, done: int) -> int:
        """Updates until `take` has something to do."""
        after = done % self._every
        # At a reading, and at the update before it.
        return max(self._every - 1 - after, 1)

    def take(self, update: int) -> Tensor | None:
        """Takes the sample before an update. The same update may come again.

        A step that failed or was skipped, and a closure that made new gradients, leave
        the sample of the update before as it was.

        Returns:
            The sums of which `alignment` makes a reading, if it is time for one.
        """
        is_reading = update % self._every == 0
        if not is_reading and (update + 1) % self._every:
            return None
        slot = update % 2
        if self._signal == "adam":
            return self._summed(self._with_moments(slot)) if is_reading else None
        pieces, absent = self._chunks.sample()
        self._note_absent(slot, absent)
        if pieces:
            self._cat(pieces, self._rows[slot])
        # A fused step divides by the scale itself, as it goes.
        if (scale := getattr(self._outer, "grad_scale", None)) is not None:
            self._gradients[slot] /= scale
        if not is_reading:
            return None
        step = torch.sub(self._places[1 - slot], self._places[slot], out=self._step)
        if self._absent[0] != self._absent[1]:
            self._leave_out(step)
        if self._signal == "ratio":
            if self._is_weighted:
                step *= self._chunks.weights
            return self._summed(torch.mv(self._gradients, step))
        return self._summed(self._cosines(self._gradients[slot], step))

    def take_on_device(self) -> Tensor:
        """The reading before an update, as a tensor: nothing is read on the host.

        A graph repeats the same operators at every update, so the sample of the update
        before is always at 0, and the new one at 1.
        """
        sums = self.take(1)  # a number that is not even
        assert sums is not None
        if self._signal == "ratio":
            sums = sums.flip(0)
        return alignment_on_device(self._signal, sums.double())

    def keep_on_device(self, moved: Tensor) -> None:
        """Keeps the new sample, if the update was done."""
        old, new = self.samples
        old.copy_(torch.where(moved, new, old))
        if len(self._groups) != 1:
            copy_all(self._own, self._parts())

    def _cat(self, pieces: list[Tensor], out: Tensor) -> None:
        try:
            torch.cat(pieces, out=out)
        except RuntimeError:  # a gradient may have a graph
            torch.cat([piece.detach() for piece in pieces], out=out)

    def _note_absent(self, slot: int, absent: set[int] | None) -> None:
        """Notes the chunks without a gradient that can be compared; None for none."""
        self._absent[slot] = absent
        if absent is None or len(absent) < len(self._chunks.chosen):
            self._has_seen = True
        else:
            self._has_seen = bool(self._has_seen)

    def _leave_out(self, step: Tensor) -> None:
        """Leaves out chunks that had a gradient at only one of the two updates."""
        one, other = (absent or set() for absent in self._absent)
        step.view(-1, LONG)[sorted(one ^ other)] = 0.0

    def _cosines(self, gradient: Tensor, step: Tensor) -> Tensor:
        """The sums of this rank for "tensor": see `alignment`."""
        every = (gradient, step, self._chunks.weights)
        gradient, step, weights = (values.view(-1, LONG) for values in every)
        dots = (gradient * step).sum(1)
        lengths = (gradient.square().sum(1) * step.square().sum(1)).sqrt()
        cosines = torch.where(lengths > 0, dots / lengths, dots)
        weight = weights.sum(1)
        return torch.stack([cosines.dot(weight), weight.sum()])

    def _with_moments(self, slot: int) -> Tensor:
        """The sums of this rank for "adam": see `alignment`."""
        grads = [param.grad for param in self._chunks.chosen]
        gradients, absent = self._chunks.of(grads)
        self._note_absent(slot, absent)
        moments = [
            find_moment(self._optimizer, param, self._group_of[param])
            for param in self._chunks.chosen
        ]
        self._check_moments(moments)
        momenta = [None if each is None else each.momentum for each in moments]
        seconds = [None if each is None else each.values for each in moments]
        if not any(moments):
            # Before the first update there is nothing to compare with, on any rank.
            unknown = 0.0 if not moments else math.nan
            return self.samples.new_full((3,), unknown)
        pieces = gradients + self._chunks.of(momenta)[0] + self._chunks.of(seconds)[0]
        gradient, momentum, second = torch.cat(pieces).float().view(3, -1)
        weights = self._chunks.weights * second.rsqrt()
        weights = weights.where(second > 0, 0.0)
        scaled = gradient * weights
        first = torch.stack([momentum, gradient]).mv(scaled)
        return torch.cat([first, (momentum.square() @ weights).reshape(1)])

    @property
    def has_samples(self) -> bool:
        """Whether the next `take` can give a reading at once."""
        return self._signal == "adam" or not bool(self.samples.isnan().all())

    def _nothing_to_compare(self) -> ValueError:
        grads = [param.grad for param in self._params]
        is_sparse = any(grad is not None for grad in grads)
        problem = "only sparse gradients" if is_sparse else "no gradients"
        return ValueError(
            "mode must be a fixed one where there are no dense gradients to compare, "
            f"got 'aligned' with {type(self._optimizer).__name__}, whose parameters "
            f"had {problem} in the first update. Use mode='linear' with steps=n."
        )

    def _check_moments(self, moments: list[Moment | None]) -> None:
        known = [each for each in moments if each is not None]
        if known and not any(each.momentum is not None for each in known):
            raise ValueError(
                "signal must be 'ratio' or 'tensor' for an optimizer without the two "
                f"averages of Adam, got 'adam' with {type(self._optimizer).__name__}."
            )

    def _summed(self, sums: Tensor) -> Tensor:
        """Adds the sums of all ranks; every rank gets the same."""
        if self._process_group is not None:
            dist.all_reduce(sums, group=self._process_group)
        elif self._mesh is not None:
            for dim in range(self._mesh.ndim):
                dist.all_reduce(sums, group=self._mesh.get_group(dim))
        return sums

    def alignment(self, sums: Any, update: int) -> float:
        """The reading that the sums make which were taken before an update."""
        if self._signal == "ratio" and update % 2:
            sums = sums[1], sums[0]  # the new gradient is the second one
        return alignment(self._signal, *sums)

    def keep(self, update: int) -> None:
        """Notes that the update was done, and copies the samples to the groups.

        Raises:
            ValueError: There was nothing to compare in the first update.
        """
        if len(self._groups) != 1:
            copy_all(self._own, self._parts())
        is_first = update <= self._every and not self.is_shared
        if is_first and self._has_seen is False:
            raise self._nothing_to_compare()


def alignment(signal: Signal, *sums: float) -> float:
    r"""How well the new gradient g' still agrees with the last step d, in [-1, 1].

    - "ratio": :math:`\langle g', d\rangle / \langle g, d\rangle`, where g is the
      gradient of that step: the share of the slope along it that is left after it.
    - "tensor": the mean over the tensors of :math:`\cos(g', d)`.
    - "adam": :math:`\cos(g', m)` in the metric of Adam,
      :math:`\sum g' m / \sqrt v`.

    1: the step was too short to change anything. 0: it ended at the minimum along its
    line. Below 0: it went beyond that.

    Args:
        signal: The name.
        sums: The sums over all elements: for "ratio" :math:`\langle g', d\rangle` and
            :math:`\langle g, d\rangle`; for "tensor" the weighted sum of the cosines,
            and of the weights; for "adam" the three products of g' and m.

    Returns:
        nan if a sum is not finite; 0 if there is nothing to divide by.

    Example:
        >>> alignment("ratio", 1.0, 4.0)
        0.25
    """
    first, by = sums[0], sums[1]
    if signal == "adam":
        by = (by * sums[2]) ** 0.5
    if not math.isfinite(first + by):
        return math.nan
    return min(max(first / by, -1.0), 1.0) if by > 0.0 else 0.0


def alignment_on_device(signal: Signal, sums: Tensor) -> Tensor:
    """What `alignment` computes, by tensor operations."""
    first, by = sums[0], sums[1]
    if signal == "adam":
        by = (by * sums[2]).sqrt()
    value = (first / by).clamp(-1.0, 1.0).where(by > 0.0, 0.0)
    return value.where((first + by).isfinite(), math.nan)
