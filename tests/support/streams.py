"""Gradients whose second moments are known, read in the same way as a warmup does."""

from __future__ import annotations

import torch
from torch import Tensor

from warmopt._measure.statistics import statistics
from warmopt.criteria import Reading


def averages(values: Tensor, beta: float) -> Tensor:
    """The bias-corrected exponential averages after each update: values [t, ...]."""
    average, out = torch.zeros_like(values[0]), torch.empty_like(values)
    for t, value in enumerate(values):
        average.lerp_(value, 1.0 - beta)
        torch.div(average, 1.0 - beta ** (t + 1), out=out[t])
    return out


class Stream:
    """Gradients [updates, tensors, coordinates], seen through Adam's averages."""

    def __init__(
        self, gradients: Tensor, beta2: float, beta1: float | None = None
    ) -> None:
        self.beta1, self.beta2 = beta1, beta2
        self.v = averages(gradients.square(), beta2)
        self.m = None if beta1 is None else averages(gradients, beta1)

    def at(self, update: int, every: int = 5, window: int = 5) -> Reading:
        """The reading after `update`; its samples are `every` updates apart."""
        first = max(update - every * (window - 1), 1 + (update - 1) % every)
        ring = self.v[first - 1 : update : every]
        m = None if self.m is None else self.m[update - 1]
        variance, ratio, rms, *drifts = statistics(ring, m, window=window).tolist()
        return Reading(
            update,
            update - first,
            len(ring),
            window,
            self.beta1,
            self.beta2,
            variance,
            ratio,
            rms,
            tuple(drifts),
            (self.v.shape[2],) * self.v.shape[1],
        )

    def across(self, update: int, span: int) -> Reading:
        """The reading of two samples that are `span` updates apart."""
        return self.at(update, every=span, window=2)

    def all(self) -> list[Reading]:
        """Every reading of a warmup that samples every 5 updates."""
        return [self.at(update) for update in range(5, len(self.v) + 1, 5)]
