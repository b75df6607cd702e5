"""Writes docs/coming-from.md from the table of peers.

Run it from the root of the repository: python -m docs.scripts.write_coming_from.
"""

from itertools import groupby
from pathlib import Path

from tests.support.peers import ROWS, Row

PAGE = Path(__file__).parent.parent / "coming-from.md"

HEAD = """\
# Coming from another library

Find your line in the column *there*, and write the line in the column *here*. It gives
the same learning rate at every update of the warmup; where it does not, the note says
so. The tests compare our lines with the formula of each library, and where there is a ✓
also with the library itself. This page is made from the table in
`tests/support/peers.py`, by `python -m docs.scripts.write_coming_from`.

## Before and after

What the warmup needed in the loop goes away. With pytorch_warmup, before:

```python
import torch
from pytorch_warmup import LinearWarmup
from torch.optim.lr_scheduler import CosineAnnealingLR

lr, n, total, k = 0.5, 4, 10, 2
weight = torch.nn.Parameter(torch.zeros(1))
before, after = [], []

optimizer = torch.optim.AdamW([weight], lr=lr)
scheduler = CosineAnnealingLR(optimizer, total)
warmup = LinearWarmup(optimizer, n)
for _ in range(total):
    before.append(optimizer.param_groups[0]["lr"])
    optimizer.step()
    with warmup.dampening():
        scheduler.step()
```

and after:

```python
from warmopt import AfterWarmup, Warmed

optimizer = Warmed(torch.optim.AdamW([weight], lr=lr), steps=n)
scheduler = CosineAnnealingLR(optimizer, total)
for _ in range(total):
    optimizer.step()
    after += optimizer.get_last_lr()
    scheduler.step()
print(before == after)  # prints True
```

A `SequentialLR` of warmup and decay. Its first update runs at `start_factor`, and its
decay begins when the warmup is over. Before:

```python
from torch.optim.lr_scheduler import LinearLR, SequentialLR

optimizer = torch.optim.AdamW([weight], lr=lr)
rise = LinearLR(optimizer, start_factor=1 / n, total_iters=n - 1)
fall = CosineAnnealingLR(optimizer, total - n)
scheduler = SequentialLR(optimizer, [rise, fall], milestones=[n])
before, after = [], []
for _ in range(total):
    before.append(optimizer.param_groups[0]["lr"])
    optimizer.step()
    scheduler.step()
```

and after, where the decay waits:

```python
optimizer = Warmed(torch.optim.AdamW([weight], lr=lr), steps=n)
scheduler = AfterWarmup(CosineAnnealingLR(optimizer, total - n))
for _ in range(total):
    optimizer.step()
    after += optimizer.get_last_lr()
    scheduler.step()
print(before == after)  # prints True
```

## How it is counted

In the lines, `n` is the length that you ask the other library for, in updates, and
`lr` the learning rate of the optimizer. `total` is the number of updates of the whole
run, `k` that of an epoch.

Libraries count a warmup over n updates in five ways; t = 1 is the first update.
`offset` says how many updates run at `start` before the ramp; `start` is 0 unless
given.

| factor of update t | here | where |
|---|---|---|
| t / n | `steps=n` | here, pytorch_warmup, schedule_free, torchtitan |
| (t - 1) / n | `steps=n, offset=1` | transformers, timm, most others |
| (t - 1) / (n - 1) | `steps=n - 1, offset=1` | Lightning Bolts, Ignite, MMEngine |
| t / (n + 1) | `steps=n + 1` | HeavyBall, nanoGPT |
| (t - 2) / n | `steps=n, offset=2` | DeepSpeed, kozistr |

The second and third run one update at LR 0, and the fifth two, unless there is a start.
These updates fill Adam's averages, but move no weight. To make use of them, leave
`offset` out.

Many libraries have warmup and decay in one. Here the decay is a separate scheduler,
which counts from the first update. The section *Their decay* shows how to keep theirs.
"""

TAIL = """\
## Their decay

The linear schedule of transformers, warmup and decay, to the last bit:

```python
from torch.optim.lr_scheduler import LambdaLR

optimizer = torch.optim.AdamW([weight], lr=lr)
optimizer = Warmed(optimizer, steps=n, offset=1)
scheduler = LambdaLR(optimizer, lambda i: min(1.0, (total - i) / (total - n)))
```

## A scheduler called once an epoch

Called once an epoch, it makes a staircase of updates. For a library that counts in the
second way, and a warmup of n epochs:

```python
from functools import partial
from warmopt.shapes import staircase

optimizer = torch.optim.AdamW([weight], lr=lr)
mode = partial(staircase, levels=n)
optimizer = Warmed(optimizer, steps=n * k, offset=k, mode=mode)
```
"""


def line(row: Row) -> str:
    """Writes a row of a peer's table."""
    ran = " ✓" if row.run else ""
    return f"| `{row.theirs}`{ran} | `Warmed(optimizer, {row.ours})` | {row.note} |"


def page() -> str:
    """Returns the whole page."""
    parts = [HEAD]
    for peer, rows in groupby(ROWS, key=lambda row: row.peer):
        table = ["| there | here | note |", "|---|---|---|", *map(line, rows)]
        parts.append("\n".join([f"## {peer}", "", *table, ""]))
    return "\n".join([*parts, TAIL])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
