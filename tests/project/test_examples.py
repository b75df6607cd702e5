"""The examples run as their first lines say."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.features import WARNINGS_OF_TORCH, needs_fsdp2

EXAMPLES = ROOT / "examples"
# Sometimes a thread of gloo outlives the interpreter: pytorch/pytorch#190489.
CRASH_AT_EXIT = "terminate called without an active exception"
OF_TORCH = re.compile("|".join(WARNINGS_OF_TORCH))
LINE = re.compile(r"update (\d+)  loss (\S+)  base LR (\S+)  effective LR (\S+)")


def torchrun(ranks: int, script: str, *args: str) -> str:
    """What `torchrun` prints; it must not give warnings."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, str(ranks), str(EXAMPLES / script), *args],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    ours = [line for line in done.stderr.splitlines() if not OF_TORCH.search(line)]
    if not done.stderr.startswith(CRASH_AT_EXIT):
        warned = any("Warning" in line for line in ours)
        assert (done.returncode, warned) == (0, False), done.stderr
    return done.stdout


@needs_fsdp2
def test_fsdp2_goes_on_with_more_ranks_in_the_middle_of_the_warmup(
    tmp_path: Path,
) -> None:
    seen = []
    for ranks, updates in ((2, 20), (4, 2)):
        args = ("--checkpoint", str(tmp_path), "--updates", str(updates))
        seen += LINE.findall(torchrun(ranks, "fsdp2.py", *args))
    assert [int(update) for update, *_ in seen] == list(range(1, 23))
    for number, _, base, effective in seen:
        update = int(number)
        schedule = 3e-3 * (1 + math.cos(math.pi * (update - 1) / 1000)) / 2
        assert float(base) == pytest.approx(schedule, rel=1e-5)  # six digits
        assert float(effective) == pytest.approx(schedule * update / 100, rel=1e-5)
    losses = [float(loss) for _, loss, *_ in seen]
    assert losses[20] < (losses[0] + losses[19]) / 2  # the model was loaded too
