"""What a step costs, against every peer that is there: `benchmarks.overhead`, in short.

The host's time to send a step to the device, and the device's time to run it, for 10
thousand, 124 million and 1.6 billion parameters.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.gpu.rows import Here, Row
from benchmarks.overhead.cases import Case
from benchmarks.overhead.devices import DEVICES
from benchmarks.overhead.measuring import measured

# The cases, and the share of the time for each.
ON_CUDA = [
    (Case("tiny", "adamw", "fused", 1, all_contenders=True), 0.15),
    (Case("gpt2", "adamw", "fused", 1, all_contenders=True), 0.25),
    (Case("gpt2-xl", "adamw", "fused", 1, all_contenders=True), 0.35),
    (Case("gpt2", "adamw", "capturable", 1, run="graph"), 0.1),
    (Case("tiny", "adamw", "capturable", 1, run="graph"), 0.1),
]
ON_CPU = [(Case("tiny", "adamw", "fused", 1), 0.1)]
LEAST = 6  # rounds per case


def rows(here: Here) -> Iterator[Row]:
    device = DEVICES[here.device]()
    seconds = here.seconds if here.on_cuda else 1.0
    for case, share in ON_CUDA if here.on_cuda else ON_CPU:
        gc.collect()
        began, skipped = time.perf_counter(), []

        def skip(what: str, why: str, skipped: list[Row] = skipped) -> None:
            skipped.append({"what": what, "ok": None, "why": why})

        # `measured` takes twice as long for all contenders. To count what they launch
        # takes about a third of the time.
        short = replace(case, all_contenders=False)
        own = seconds * share * 0.65 / (1 if case == short else 2)
        found = measured(case, device, own, LEAST, lambda done: None, skip)
        for row in found:
            yield {"what": case.name, "ok": None, **row}
        yield from skipped
        spent = round(time.perf_counter() - began, 1)
        yield {"what": f"{case.name}, all", "ok": bool(found), "seconds": spent}
