"""Writes docs/coming-from.md from the table of peers.

Run it from the root of the repository: python -m docs.scripts.write_coming_from.
"""

from itertools import groupby
from pathlib import Path

from tests.support.peers import ROWS, Row

PAGE = Path(__file__).parent.parent / "coming-from.md"

HEAD = """\
# Coming from another library

For each line that you write there, the line to write here: it gives the same learning
rate at every update of the warmup, and where it does not, the note says so. The tests
run our lines against the formula of each peer, and against the peer itself where it is
marked with ✓. This page is made from the table in `tests/support/peers.py`, by
`python -m docs.scripts.write_coming_from`.

## Before and after

What goes is whatever the warmup asked of the loop. With pytorch_warmup, before:

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

A `SequentialLR` of warmup and decay, before (its first update runs at `start_factor`,
and its decay begins when the warmup is over):

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

In the lines, `n` is the length that you ask the peer for, in updates; `lr` the learning
rate of the optimizer; `total` the updates of the whole run, `k` those of an epoch.

A warmup over n updates is counted in five ways; t = 1 is the first update. `offset` is
how many updates run at `start`, which is 0 unless given, before the ramp.

| factor of update t | here | where |
|---|---|---|
| t / n | `steps=n` | here, pytorch_warmup, schedule_free, torchtitan |
| (t - 1) / n | `steps=n, offset=1` | transformers, timm, most others |
| (t - 1) / (n - 1) | `steps=n - 1, offset=1` | Lightning Bolts, Ignite, MMEngine |
| t / (n + 1) | `steps=n + 1` | HeavyBall, nanoGPT |
| (t - 2) / n | `steps=n, offset=2` | DeepSpeed, kozistr |

The second and third spend one update at LR 0, and the fifth two, unless there is a
start. Adam's averages are filled by them, but no weight moves. To make use of them,
leave `offset` out.

Many peers are warmup and decay in one. Here the decay is a scheduler of its own, which
counts from the first update; the last section shows how to keep theirs.
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

It makes a staircase of updates. A peer of the second kind, asked for n epochs:

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
