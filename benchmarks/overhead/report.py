"""Writes docs/performance.md: python -m benchmarks.overhead.report RECORD

The page shows ratios and counts, but no microseconds, since those are different on
every machine. Its part on CUDA is written by `benchmarks.gpu`, and stays as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.checkout import ROOT
from benchmarks.markdown_tables import grid
from benchmarks.marked import part
from benchmarks.overhead.contenders import CONTENDERS, CONTROL, OURS, STEPS
from benchmarks.overhead.record import Record, Row, interval, read

PAGE = ROOT / "docs" / "performance.md"
BYTECODES = ROOT / "tests" / "support" / "bytecodes.json"

HEAD = """\
# What it costs

Every ratio is from one run of `python -m benchmarks.overhead` (`make bench`), in which
all contenders step one and the same optimizer object. Blocks of the bare step and of a
contender, half a millisecond each, take turns; a ratio is the median over such pairs,
with its 95 % interval in brackets. In every case the bare step also runs against
itself, as a control. *Not resolved* is what the control does not let us tell from
nothing, what has too wide an interval, and what is less than 1 %, since that much
differs from one process to the next.

*Warming* is during the warmup, *done* after it. The number at the end of a case is how
many param groups there are. This page is made from the records that it names, by
`python -m benchmarks.overhead.report` and `python -m benchmarks.gpu --report`; the
tests make it again and compare.
"""

MACHINERY = """\
### The machinery alone

What each adds to a step that does nothing, as a share of what `LinearWarmup` of
pytorch_warmup adds in the same state.
"""

WHOLE = """\
### A whole step

The step over the bare step. `tiny` has 4 tensors and 10 thousand parameters; where a
model is followed by `/16`, it has as many tensors, each dimension a sixteenth; a
million parameters are in `resnet50/4`.
"""

EVERYWHERE = """\
### warmopt around each optimizer

The step over the bare step, and the control of the same case.
"""

COUNTED = """\
### Counts

What each adds to a step, at most, over all cases: operators dispatched, new tensors of
the size of a parameter, kernels launched, host syncs; and how often a step passes
through the hooks and the profiler of torch, as the bare step does once.
"""

GOALS = """\
## What is above its goal, and why

Some things cost more than the goals that were set for them.

**The machinery alone** was to take at most 0.25, 0.3, 0.25 and 0.2 of what
pytorch_warmup takes at 1, 2, 10 and 100 groups, with one LR for all groups or with an
LR for each, and never more than timm's `step_update`. It is above all four, and above
timm's except at one group. The executed bytecodes of a step that warms say where it
goes:

"""

WHERE = """\
Forty bytecodes are for each group, in two loops, and fifty if each group has an LR of
its own. Before the wrapped step it reads the LR and the count, and writes the LR; after
it, it reads the LR again, and writes the LR and the count. Half of that is what a
snippet of two loops leaves out: the count stands in the group, so that any checkpoint
has it; an update at LR 0 is not counted; and an LR that the optimizer itself writes is
kept. timm's scheduler writes an LR and is done, so it is cheaper, and so is a naive
subclass at 100 groups. After the warmup it is 28 bytecodes, at any number of groups.
Steps that are not plain, with hooks, a closure, a tensor LR or groups of different
lengths, go through `Update`, which costs two to four times as much.

**A reading** in adaptive mode was to take, amortised, 3.5 % of a step at a million
parameters in 161 tensors (`resnet50/4`), 0.4 % at 25 million (`resnet50`), 0.15 % at
124 million (`gpt2`). At a million it is about a tenth. For the large models, what was
measured is within the noise of their controls, which is several per cent; half a
millisecond for a reading would be 0.5 % and 0.1 %. A reading is sixteen small
operators, with a `cat` of a chunk or more of every tensor, and one of the age of every
parameter. Each finds its code and data out of the cache, since the optimizer has just
walked through all of its state. Taken apart once, by hand, at a million parameters: of
0.5 ms, the statistic takes 0.13, the ages 0.12, the chunks 0.09, the look whether the
state is still made of the same tensors and the last result's way to Python 0.03 each.
(That look has become longer since, by 0.05 to 0.1 ms: it sees frozen and exchanged
parameters and other betas too.) The ages correct the bias of each parameter by its own
updates, and the host can only know them by reading them. The more parameters, or the
longer `every`, the smaller the share. Between readings nothing is looked at; after the
warmup it is nothing.
"""

CUDA = "gpu: performance"  # the name of its part

WIDE = (
    "machinery-*",
    "tiny-sgd-fused-1",
    "tiny-adamw-fused-1",
    "resnet*-adamw-fused-*",
    "gpt2*-adamw-fused-*",
)
COUNTS = ("operators", "allocations", "kernels", "syncs", "hook_passes")
WHO = [(each.name, state) for state in STEPS for each in CONTENDERS]
Key = tuple[str, str, str]


def ratio(row: Row) -> str:
    """Writes its step divided by the bare step."""
    told = row["contender"] == CONTROL or row["resolved"]
    value = f"{row['ratio']:.4g}" if told else "not resolved"
    return f"{value} {interval(row['interval'])}"


def share(row: Row) -> str:
    """Writes what it adds, divided by what pytorch_warmup adds."""
    if not row["resolved"] or row["of_pytorch_warmup"] is None:
        return "not resolved"
    ends = interval(row["of_pytorch_warmup_interval"], digits=3)
    return f"{row['of_pytorch_warmup']:.3g} {ends}"


def by_contender(
    rows: dict[Key, Row],
    cases: list[str],
    who: list[tuple[str, str]],
    cell: Callable[[Row], str],
) -> str:
    """A table with a line for each contender and a column for each case."""
    lines = []
    for name, state in who:
        found = [rows.get((case, name, state)) for case in cases]
        if any(found):
            lines.append([name, state, *(cell(row) if row else "" for row in found)])
    return grid(["", "", *cases], lines)


def by_case(rows: dict[Key, Row], cases: list[str]) -> str:
    """A table with a line for each case and a column for each state of warmopt."""
    adaptive = f"{OURS}, adaptive k=5"
    who = [(CONTROL, ""), *((OURS, state) for state in STEPS), (adaptive, "warming")]
    lines = []
    for case in cases:
        found = [rows.get((case, name, state)) for name, state in who]
        lines.append([case, *(ratio(row) if row else "" for row in found)])
    return grid(["case", "control", *STEPS, "warming, adaptive k=5"], lines)


def counted(rows: dict[Key, Row]) -> str:
    """A table with a line for each contender and a column for each count."""
    lines = []
    for name, state in WHO:
        own = [row for key, row in rows.items() if key[1:] == (name, state)]
        told = [[row[c] for row in own if row[c] is not None] for c in COUNTS]
        if own:
            lines.append([name, state, *(str(max(n)) if n else "" for n in told)])
    return grid(["", "", *(what.replace("_", " ") for what in COUNTS)], lines)


def tables(record: Record, time: str) -> list[str]:
    """Returns all tables for one kind of time."""
    rows: dict[Key, Row] = {
        (row["case"], row["contender"], row["state"]): row
        for row in record["rows"]
        if row["time"] == time
    }
    cases = list(dict.fromkeys(case for case, *_ in rows))
    peers = {case for case, name, _ in rows if name == CONTENDERS[-1].name}
    wide = [c for c in cases if c in peers and any(fnmatch(c, w) for w in WIDE)]
    idle = [case for case in cases if case.startswith("machinery-")]
    whole = [case for case in wide if case not in idle]
    parts = [MACHINERY, by_contender(rows, idle, WHO, share)] if idle else []
    if whole:
        parts += [WHOLE, by_contender(rows, whole, [(CONTROL, ""), *WHO], ratio)]
    steps = {key: row for key, row in rows.items() if key[0] not in idle}
    everywhere = by_case(rows, [case for case in cases if case not in idle])
    return [*parts, EVERYWHERE, everywhere, COUNTED, counted(steps)]


def by_function() -> str:
    """A table with a line for each function and a column for each number of groups."""
    warming = json.loads(BYTECODES.read_text())["warming"]
    names = dict.fromkeys(name for each in warming.values() for name in each)
    lines = [
        [f"`{name}`", *(str(each.get(name, 0)) for each in warming.values())]
        for name in names
    ]
    return grid(["", *(f"{n} groups" for n in warming)], lines)


def section(device: str, record: Record, name: str) -> list[str]:
    """Returns the part of the page that is about one device."""
    source = (
        f"From [{name}](../benchmarks/results/{name}.md): {record['device']}, Python "
        f"{record['python']}, torch {record['torch']}, commit {record['commit'][:9]}.\n"
    )
    times = dict.fromkeys(row["time"] for row in record["rows"])
    parts = [f"## {device}\n", source]
    for time in times:
        parts += [f"{time.capitalize()} time.\n"] * (len(times) > 1)
        parts += tables(record, time)
    return parts


def page(path: Path, old: str) -> str:
    """Returns the whole page, from a record of a CPU and from the page before it."""
    record = read(path)
    if "cuda" in record:
        raise ValueError("python -m benchmarks.gpu writes the part on CUDA.")
    cuda = f"<!-- {CUDA} -->\n{part(old, CUDA)}<!-- end -->\n"
    parts = [HEAD, *section("CPU", record, path.stem), "## CUDA\n", cuda]
    return "\n".join([*parts, GOALS + by_function(), WHERE])


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page(Path(sys.argv[1]), before), encoding="utf-8")
