"""Writes docs/performance.md and its tables.

The command is python -m benchmarks.overhead.report RECORD. The pages show ratios and
counts, but no microseconds, since those are different on every machine. The part on
CUDA is written by `benchmarks.gpu`, and stays as it is.
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
TABLES_PAGE = ROOT / "docs" / "performance-tables.md"
BYTECODES = ROOT / "tests" / "support" / "bytecodes.json"

HEAD = """\
# What it costs

**Question.** How much longer does a step of the optimizer take with warmopt?

**Answer.** On a model with a million parameters or more, a fixed warmup costs too
little to be measured here. On a tiny model of 10 thousand parameters a step takes
several per cent longer during the warmup, and after it one or two per cent at most.
Adaptive mode costs more while it warms: it doubles the step of the tiny model, adds
about a tenth at a million parameters, and is lost in the noise for large models.

"""

FIGURE = """\
![While it warms, warmopt adds a third of what pytorch_warmup adds to a step that does
nothing, and less than a tenth after that; torch's schedulers add as much as
pytorch_warmup or more](pictures/performance.svg)

*What each adds to a step that does nothing, with one param group, as a share of what
pytorch_warmup adds. Lower is better.*

"""

SHORT = """\

The numbers are the time of a step divided by that of the bare step: 1.05 is 5 % longer.
*Warming* is during the warmup, *done* after it; *adaptive k=5* takes a reading at every
fifth update. [All tables](performance-tables.md) have the other libraries, optimizers
and models, and what was measured on a GPU.

With `torch.compile`, a step with a float learning rate runs without the compiler while
it warms, and is compiled after that. On the tiny model that takes nearly twice as long
as the compiled step.

## How to read it

- **One object.** In a case all contenders step one and the same optimizer object. Short
  blocks of the bare step and of a contender, half a millisecond each, take turns. A
  ratio is the median over such pairs.
- **[low, high]** is the 95 % interval of the ratio: how far it may be off by chance.
- **The control** is the bare step, measured against itself. It should be 1.
- **Not resolved** means that we cannot say. The control varies as much, or the interval
  is too wide, or the difference is less than 1 %. That much differs from one process to
  the next.
- **The name of a case** is model, optimizer, kind of step and number of param groups.
  `tiny` has 4 tensors and 10 thousand parameters. `resnet50/4` has as many tensors as
  `resnet50`, with each dimension a quarter: a million parameters. In `/16` it is a
  sixteenth.

`make bench` measures it again, in 10 minutes. This page and the tables are made from
the records that they name, by `python -m benchmarks.overhead.report` and `python -m
benchmarks.gpu --report`; the tests make them again and compare.

"""

TABLES_HEAD = """\
# What it costs: all tables

These are the numbers behind [what it costs](performance.md), which says how to read
them: the ratios, the intervals in brackets, the control, and *not resolved*.
"""

MACHINERY = """\
### The machinery alone

What each adds to a step that does nothing. It is a share of what `LinearWarmup` of
pytorch_warmup adds in the same state, so 0.4 is less than half as much.
"""

WHOLE = """\
### A whole step

The time of the step divided by that of the bare step.
"""

EVERYWHERE = """\
### warmopt around each optimizer

The time of the step divided by that of the bare step, and the control of the same case.
"""

COUNTED = """\
### Counts

What each adds to a step, at most, over all cases: operators that are dispatched, new
tensors of the size of a parameter, kernels that are launched, and waits for the device.
The last column counts how often a step passes through the hooks and the profiler of
torch. The bare step does so once.
"""

GOALS = """\
## What costs more than its goal, and why

Some things cost more than the goals that were set for them.

**The machinery alone**, which is what warmopt adds to a step that does nothing. The
goal was at most 0.25, 0.3, 0.25 and 0.2 of what pytorch_warmup takes at 1, 2, 10 and
100 groups, with one LR for all groups or with an LR for each. It was also never more
than timm's `step_update`. It is above all four, and above timm's except at one group.
The bytecodes that Python executes in a step that warms show where the time goes:

"""

WHERE = """\
Each group takes forty of them, in two loops, and fifty if each group has an LR of its
own. Before the wrapped step, warmopt reads the LR and the count, and writes the LR.
After it, it reads the LR again, and writes the LR and the count. Half of that is what a
snippet of two loops leaves out. The count is kept in the group, so that any checkpoint
has it. An update at LR 0 is not counted. And an LR that the optimizer itself writes is
kept. timm's scheduler writes an LR and is done, so it is cheaper, and so is a naive
subclass at 100 groups. After the warmup it is 28 bytecodes, at any number of groups.
Steps that are not plain go through `Update`, which costs two to four times as much:
those with hooks, a closure, a tensor LR or groups of different lengths.

**A reading** in adaptive mode. The goals, as a share of all steps, were 3.5 % at a
million parameters in 161 tensors (`resnet50/4`), 0.4 % at 25 million (`resnet50`) and
0.15 % at 124 million (`gpt2`). At a million it is about a tenth. For the large models,
what was measured is within the noise of their controls, which is several per cent. Half
a millisecond for a reading would be 0.5 % and 0.1 %. The record has the criterion that
was the default before 0.2. The one of today reads a few numbers more. In two tries by
hand at a million parameters, its steps took 0.1 and 1.1 % longer, and the bare step
against itself was off by 4 %.

A reading is sixteen small operators, with a `cat` of a chunk or more of every tensor,
and one of the age of every parameter. For each of them code and data must come from
main memory, since the optimizer has just walked through all of its state. It was taken
apart once, by hand, at a million parameters. Of 0.5 ms, the statistic takes 0.13, the
ages 0.12 and the chunks 0.09. The check that the state is still made of the same
tensors takes 0.03, and so does the way of the last result to Python. (That check has
become longer since, by 0.05 to 0.1 ms: it also sees frozen and exchanged parameters and
other betas.) The ages correct the bias of each parameter by its own updates, and the
host can only know them by reading them. The more parameters, or the longer `every`, the
smaller the share. Between readings nothing is looked at. After the warmup it costs
nothing.
"""

CUDA = "gpu: performance"  # the name of its part

WIDE = (
    "machinery-*",
    "tiny-sgd-fused-1",
    "tiny-adamw-fused-1",
    "resnet*-adamw-fused-*",
    "gpt2*-adamw-fused-*",
)
# What the short table compares.
FEW_CASES = tuple(
    f"{model}-adamw-fused-1"
    for model in ("tiny", "resnet50/16", "resnet50/4", "resnet50", "gpt2")
)
FEW = [
    *((OURS, state) for state in STEPS),
    (f"{OURS}, adaptive k=5", "warming"),
    ("pytorch_warmup LinearWarmup", "warming"),
    ("LinearLR", "warming"),
]
DRAWN = {  # contenders of the figure, and their names for readers
    OURS: "warmopt",
    "timm step_update": "timm",
    "pytorch_warmup LinearWarmup": "pytorch_warmup",
    "LinearLR": "torch's LinearLR",
    "SequentialLR": "torch's SequentialLR",
    "transformers linear schedule": "transformers",
}
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


def by_key(record: Record, time: str) -> dict[Key, Row]:
    """The rows with one kind of time, by case, contender and state."""
    return {
        (row["case"], row["contender"], row["state"]): row
        for row in record["rows"]
        if row["time"] == time
    }


def tables(record: Record, time: str) -> list[str]:
    """Returns all tables for one kind of time."""
    rows = by_key(record, time)
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


def source(record: Record, name: str) -> str:
    """Says from which record the numbers are."""
    return (
        f"From [{name}](../benchmarks/results/{name}.md): {record['device']}, Python "
        f"{record['python']}, torch {record['torch']}, commit {record['commit'][:9]}.\n"
    )


def section(device: str, record: Record, name: str) -> list[str]:
    """Returns the part of the tables that is about one device."""
    times = dict.fromkeys(row["time"] for row in record["rows"])
    parts = [f"## {device}\n", source(record, name)]
    for time in times:
        parts += [f"{time.capitalize()} time.\n"] * (len(times) > 1)
        parts += tables(record, time)
    return parts


def read_cpu(path: Path) -> Record:
    record = read(path)
    if "cuda" in record:
        raise ValueError("python -m benchmarks.gpu writes the part on CUDA.")
    return record


def page(path: Path) -> str:
    """Returns the page that people read first, from a record of a CPU."""
    record = read_cpu(path)
    rows = by_key(record, "cpu")
    cases = [case for case in FEW_CASES if (case, OURS, "warming") in rows]
    short = by_contender(rows, cases, FEW, ratio) if cases else ""
    return (
        HEAD
        + FIGURE
        + source(record, path.stem)
        + "\n"
        + short
        + SHORT
        + GOALS
        + by_function()
        + "\n"
        + WHERE
    )


def draw(record: Record, path: Path) -> None:
    """Draws what each adds to an empty step, as a share of what pytorch_warmup adds."""
    from docs.scripts import themed

    rows = by_key(record, "cpu")
    with themed.style():
        figure, [axis] = themed.panels([""], columns=1, height=2.6)
        for state, offset, colour in zip(STEPS, (-0.2, 0.2), ("C0", "C1"), strict=True):
            found = [rows["machinery-1", name, state] for name in DRAWN]
            places = [height + offset for height in range(len(DRAWN))]
            shares = [row["of_pytorch_warmup"] for row in found]
            axis.barh(places, shares, height=0.36, label=state, color=colour)
        axis.set_yticks(range(len(DRAWN)), list(DRAWN.values()))
        axis.invert_yaxis()
        themed.legend(figure, [axis], columns=2)
        themed.save(figure, path)


def tables_page(path: Path, old: str) -> str:
    """Returns the page of all tables, from a record and from the page before it."""
    record = read_cpu(path)
    cuda = f"<!-- {CUDA} -->\n{part(old, CUDA)}<!-- end -->\n"
    return "\n".join(
        [TABLES_HEAD, *section("CPU", record, path.stem), "## CUDA\n", cuda]
    )


def write(path: Path) -> None:
    """Writes both pages."""
    before = TABLES_PAGE.read_text(encoding="utf-8")
    TABLES_PAGE.write_text(tables_page(path, before), encoding="utf-8")
    PAGE.write_text(page(path), encoding="utf-8")
    draw(read_cpu(path), PAGE.parent / "pictures" / "performance.svg")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
