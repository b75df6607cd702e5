"""The command: runs what needs a GPU, or writes the pages from the newest record."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.checkout import commit, is_dirty
from benchmarks.gpu.conductor import Section, conduct
from benchmarks.gpu.record import Record, write
from benchmarks.gpu.stages import STAGES
from benchmarks.gpu.words import closing_words, words_of

NAMES = [stage.name for stage in STAGES]


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--output", type=Path, help="folder of the record")
    what.add_argument("--report", action="store_true", help="only write the pages")
    command.add_argument("--minutes", type=float, default=8.0, help="at most, about")
    command.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    command.add_argument(
        "--only", action="append", choices=NAMES, help="this stage; may be repeated"
    )
    command.add_argument("--commit", help="the commit, where there is no git")
    return command


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def main(arguments: list[str]) -> None:
    command = parser()
    asked = command.parse_args(arguments)
    if asked.report:
        from benchmarks.gpu import report  # imports torch, which takes seconds

        for page in report.write():
            print(f"{page} is written")
        return
    if asked.device == "cuda" and not has_cuda():
        command.error("there is no CUDA device. Use --device cpu.")
    asked.output.mkdir(parents=True, exist_ok=True)
    now = time.gmtime()
    name = time.strftime("gpu-%Y-%m-%d-%H%M%S", now)
    path, began = asked.output / f"{name}.json", time.monotonic()
    record: Record = {
        "schema": 1,
        "utc": time.strftime("%Y-%m-%d %H:%M:%S", now),
        "commit": asked.commit or commit(),
        "dirty": is_dirty(),
        "argv": arguments,
        "device": asked.device,
        "stages": {},
    }

    def tell(stage: str, section: Section) -> None:
        record["stages"][stage] = section
        record["seconds"] = round(time.monotonic() - began, 1)
        write(record, path)
        print(words_of(stage, section), flush=True)

    stages = [stage for stage in STAGES if not asked.only or stage.name in asked.only]
    conduct(stages, asked.device, asked.minutes, asked.output, name, tell)
    print("\n".join(["", *closing_words(record), f"The record is {path}."]))


if __name__ == "__main__":
    main(sys.argv[1:])
