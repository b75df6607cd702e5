"""A record: where and when it was measured, at which commit, and the results.

A record is a JSON file with one row per line. The table beside it, in Markdown, is made
from this file and from nothing else.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import json
import os
import re
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch

import warmopt
from benchmarks.checkout import RESULTS as RESULTS
from benchmarks.checkout import ROOT, commit, is_dirty
from benchmarks.overhead.contenders import CONTROL, PEER
from benchmarks.overhead.devices import Counts, Device
from benchmarks.overhead.timing import (
    Estimate,
    Runner,
    added_ns,
    ratio,
    share,
    unresolved,
)

LIBRARIES = ("accelerate", "pytorch-warmup", "timm", "transformers")

Row = dict[str, Any]
Record = dict[str, Any]


def environment(device: Device, argv: list[str]) -> Record:
    """Returns everything that a reader needs to know about the machine and the code."""
    home = Path(warmopt.__file__).parent.parent
    if home != ROOT:
        raise RuntimeError(
            f"warmopt must be that of {ROOT}, whose commit is recorded, got {home}."
        )
    build = shlex.split(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "schema": 1,
        "utc": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M}",
        "commit": commit(),
        "dirty": is_dirty(),
        "argv": argv,
        **device.describe(),
        "cores": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "loadavg": os.getloadavg(),
        "python": sys.version.split()[0],
        # Flags that name a folder of the machine are left out.
        "python_build_flags": [flag for flag in build if "/" not in flag],
        "torch": torch.__version__,
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def rows(runners: list[Runner], counts: list[Counts]) -> list[Row]:
    """Makes a row for each contender and kind of time; the first is the control."""
    bare = counts[0]
    named = {(runner.name, runner.state): runner for runner in runners}
    result = []
    for (runner, own), kind in itertools.product(
        zip(runners, counts, strict=True), runners[0].own
    ):
        control = ratio(named[CONTROL, ""], kind)
        value = ratio(runner, kind)
        reason = unresolved(value, control)
        peer = named.get((PEER, runner.state))
        of_peer = peer and share(runner, peer, kind)
        added = added_ns(runner, kind)
        bare_ns = sorted(runner.bare[kind])[len(runner.bare[kind]) // 2]
        row = {
            "contender": runner.name,
            "state": runner.state,
            "time": kind,
            "base_us": _rounded(bare_ns / 1000),
            "ratio": _rounded(value.value),
            "interval": _ends(value),
            "control": _ends(control),
            "resolved": not reason,
            "reason": reason,
            "added_us": _rounded(added.value / 1000),
            "added_interval": [_rounded(end / 1000) for end in added[1:]],
            "of_pytorch_warmup": of_peer and _rounded(of_peer.value),
            "of_pytorch_warmup_interval": of_peer and _ends(of_peer),
            "block": runner.block,
            "quads": len(runner.own[kind]),
        }
        for what, number in own.items():
            base = bare[what] if what in ("operators", "allocations", "kernels") else 0
            row[what] = None if number is None or base is None else number - base
        result.append(row)
    return result


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _ends(estimate: Estimate) -> list[float]:
    return [_rounded(estimate.low), _rounded(estimate.high)]


def file_name(record: Record, part: bool) -> str:
    """Makes a name of day, device and commit, and `part` if not all cases ran."""
    device = record["device"] if "cuda" in record else "cpu"
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    name = f"{record['utc'][:10]}-{slug}-{record['commit'][:9]}"
    return name + "-part" * part + ".json"


def write(record: Record, folder: Path, part: bool) -> Path:
    """Writes the record and its table; returns the path of the record."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(record, part)
    head = {key: value for key, value in record.items() if key != "rows"}
    lines = ",\n".join(json.dumps(row) for row in record["rows"])
    path.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n')
    path.with_suffix(".md").write_text(table(record))
    return path


def read(path: Path) -> Record:
    """Reads a record."""
    record: Record = json.loads(path.read_text())
    return record


def interval(ends: list[float], digits: int = 4) -> str:
    """Writes an interval in brackets."""
    return f"[{ends[0]:.{digits}g}, {ends[1]:.{digits}g}]"


def quoted(row: Row) -> str:
    """Writes the ratio of a row, or why it must not be quoted."""
    value = f"{row['ratio']:.4g}"
    if row["contender"] != CONTROL and not row["resolved"]:
        value = f"not resolved: {row['reason']}"
    return f"{value} {interval(row['interval'])}"


def table(record: Record) -> str:
    """Writes the record in Markdown, without what few people read."""
    head = [
        f"# Overhead on {record['device']}",
        "",
        f"`python -m benchmarks.overhead {shlex.join(record['argv'])}`, "
        f"{record['utc']} UTC, {record['seconds']:.0f} s; commit "
        f"{record['commit'][:9]}{', with local changes' if record['dirty'] else ''}; "
        f"Python {record['python']}, torch {record['torch']}, "
        f"{record['threads']} thread(s), {record['cores']} cores, load average "
        f"{record['loadavg'][0]:.1f}.",
        "",
        "Ratio to the bare step, with its 95 % interval; microseconds added; the same "
        "as a share of what pytorch_warmup adds in that state; operators and kernels "
        "added, passes through torch's hooks, host syncs.",
    ]
    parts = ["\n".join(head)]
    for (case, kind), found in itertools.groupby(
        sorted(record["rows"], key=lambda row: (row["case"], row["time"])),
        key=lambda row: (row["case"], row["time"]),
    ):
        lines = [f"## {case}, {kind} time", ""]
        lines += [
            "| contender | state | ratio | added us | of pytorch_warmup | operators "
            "| kernels | hook passes | syncs |",
            "|---|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [_line(row) for row in found]
        parts.append("\n".join(lines))
    if record["skipped"]:
        lines = [f"- {skip['what']}: {skip['why']}" for skip in record["skipped"]]
        parts.append("\n".join(["## Not measured", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _line(row: Row) -> str:
    share = row["of_pytorch_warmup"]
    cells = [
        row["contender"],
        row["state"],
        quoted(row),
        f"{row['added_us']:.3g}",
        "" if share is None else f"{share:.3g}",
        *(row[what] for what in ("operators", "kernels", "hook_passes", "syncs")),
    ]
    return f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |"
