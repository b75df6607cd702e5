"""What works on a GPU: a table for docs/what-works.md, a sentence for the README."""

from __future__ import annotations

import textwrap

from benchmarks.gpu.record import Record
from benchmarks.gpu.sections import facts, section, source, wrong
from benchmarks.gpu.words import judged
from benchmarks.markdown_tables import grid

NOTHING = "not measured"

# What a stage shows, in the words of docs/what-works.md.
SHOWN = {
    "tests": "the tests that are marked `cuda`",
    "capture": "every mode, one captured step replayed through the warmup, or refused",
    "amp": "fused steps in float16 with GradScaler, which meets infinities, every mode",
    "syncs": "no step of any mode waits for the device",
    "kernels": "a float LR launches nothing more; after the warmup nothing does",
    "compile": "`torch.compile` with inductor; how often it compiles again",
    "ranks": "DDP and FSDP2 on NCCL, one rank",
}


def what_works(record: Record | None, name: str) -> str:
    lines = []
    for stage, what in SHOWN.items():
        if record is None:
            lines.append([what, NOTHING])
            continue
        found = section(record, stage)
        good, all_ = judged(found)
        told = f"{good} of {all_}"
        if found["outcome"] != "done":
            told = f"{found['outcome']}{f', {told}' if all_ else ''}"
        lines.append([what, told])
    table = grid(["on a GPU", "as it should be"], lines)
    if record is None:
        return table
    return "\n".join([source(record, name), table, *wrong(record, *SHOWN)])


def sentence(record: Record | None, name: str) -> str:
    if record is None:
        told = (
            f"All of this was tested on a CPU. On a GPU: {NOTHING}; CUDA "
            "graphs only with a stand-in."
        )
    else:
        good, all_ = map(
            sum, zip(*(judged(section(record, stage)) for stage in SHOWN), strict=True)
        )
        machine = facts(record, "machine")
        told = (
            f"On a GPU ({machine.get('device', 'unknown')}, torch "
            f"{machine.get('torch', 'unknown')}, {record['utc'][:10]}) {good} of "
            f"{all_} checks went as they should: "
            "[docs/what-works.md](docs/what-works.md) has them."
        )
    return textwrap.fill(told, 88, break_long_words=False, break_on_hyphens=False)
