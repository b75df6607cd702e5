"""Draws the pictures of the README and of the site.

Run it from the root of the repository: python -m docs.scripts.draw_pictures. It takes
names of pictures; `demo` trains for some minutes, and is drawn only if it is named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch.nn import Parameter
from torch.optim import SGD, AdamW, lr_scheduler

from docs.scripts import themed
from warmopt import Adaptive, Trace, Warmed
from warmopt._groups.schedule import Schedule
from warmopt.criteria import Drift, UpdateRMS
from warmopt.shapes import MODES

PICTURES_FOLDER = Path(__file__).parent.parent / "pictures"
UPDATES, WARMUP = 200, 50
SCHEDULERS: dict[str, Callable] = {
    "no schedule": lambda o: lr_scheduler.ConstantLR(o, 1.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, UPDATES),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, UPDATES, power=3),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 30, gamma=0.6),
}


def sgd(*groups: dict) -> SGD:
    """Makes an optimizer with LR 1, and one parameter in each group."""
    return SGD([{"params": [Parameter(torch.zeros(1))], **g} for g in groups], lr=1.0)


def curves(
    path: Path, named: Sequence[tuple[str, Sequence[float]]], label: str, title: str
) -> None:
    """Draws named curves into one panel. The x axis is the update, from 1."""
    figure, [axis] = themed.panels([title], columns=1, height=3.0)
    for name, values in named:
        axis.plot(range(1, len(values) + 1), values, label=name, linewidth=2)
    axis.set_xlabel("update")
    axis.set_ylabel(label)
    themed.legend(figure, [axis], columns=min(len(named), 2))
    themed.save(figure, path)


def modes(path: Path) -> None:
    """Draws every mode over a hundred updates, the untuned ones for beta2 = 0.98."""
    figure, axes = themed.panels(list(MODES), columns=3, height=1.15)
    for axis, (name, mode) in zip(axes, MODES.items(), strict=True):
        rule = mode.steps_from_beta2
        schedule = Schedule(name, None if rule else 25 if name == "saturating" else 100)
        steps = rule(0.98) if rule else schedule.steps
        values = [schedule.factor(t, steps, schedule.start) for t in range(1, 121)]
        axis.plot(range(1, 121), values, linewidth=2)
        axis.set(xlim=(0, 120), ylim=(-0.05, 1.08), xticks=(0, 50, 100), yticks=(0, 1))
    themed.save(figure, path)


def seen(scheduler: Callable) -> Iterator[tuple[float, float, float]]:
    """Yields base LR, factor and effective LR for every update of a run."""
    optimizer = Warmed(sgd({}), steps=WARMUP)
    schedule = scheduler(optimizer)
    for _ in range(UPDATES):
        factor, base = optimizer.factors[0], optimizer.param_groups[0]["lr"]
        optimizer.step()
        yield base, factor, optimizer.get_last_lr()[0]
        schedule.step()


def composing(path: Path) -> None:
    """Draws the LR of the schedule, the factor of the warmup, and their product."""
    labels = "base LR: group['lr']", "factor of the warmup", "effective LR: the product"
    columns = zip(*seen(SCHEDULERS["CosineAnnealingLR"]), strict=True)
    title = f"a cosine schedule from LR 1, a warmup of {WARMUP} updates"
    curves(path, list(zip(labels, columns, strict=True)), "", title)


def schedules(path: Path) -> None:
    """Draws this product for several schedulers of torch."""
    drawn = [
        (name, [effective for *_, effective in seen(make)])
        for name, make in SCHEDULERS.items()
    ]
    title = f"schedules from LR 1, a warmup of {WARMUP} updates"
    curves(path, drawn, "effective LR", title)


def groups(path: Path) -> None:
    """Draws groups with different lengths; one is added later, one warmed again."""
    optimizer = Warmed(sgd({"warmup_steps": 0}, {}, {"warmup_start": 1.5}), steps=50)
    names = ["head: warmup_steps=0", "body", "bias: warmup_start=1.5"]
    names += ["unfrozen: added at update 80"]
    used: dict[str, list[float]] = {name: [] for name in names}
    for update in range(1, UPDATES + 1):
        if update == 80:
            optimizer.add_param_group({"params": [Parameter(torch.zeros(1))]})
        if update == 150:
            optimizer.rewarm(steps=20, groups=[1])
        optimizer.step()
        lrs = [*optimizer.get_last_lr(), *[float("nan")] * 4]
        for name, lr in zip(names, lrs, strict=False):
            used[name].append(lr)
    title = "steps=50; at update 150 the body is warmed again"
    curves(path, list(used.items()), "effective LR", title)


def waiting(path: Path) -> None:
    """Draws a schedule that begins with the warmup, and one that waits for its end."""
    drawn = []
    for name, waits in (("begins with the warmup", False), ("waits for its end", True)):
        optimizer = Warmed(sgd({}), steps=WARMUP)
        schedule = lr_scheduler.ExponentialLR(optimizer, 0.98)
        used = []
        for _ in range(UPDATES):
            is_over = optimizer.done
            optimizer.step()
            used += optimizer.get_last_lr()
            if is_over or not waits:
                schedule.step()
        drawn.append((name, used))
    curves(path, drawn, "effective LR", "an ExponentialLR, and a warmup")


def settled(path: Path) -> None:
    """Draws what each `on_settled` does, if the second moment settles at update 50."""
    drawn = []
    for way in ("accelerate", "ramp", "end"):
        adaptive, fast, factors = Adaptive(on_settled=way, fast=100), 0, []
        for update in range(1, 301):
            fast = adaptive.next_fast(fast, settled=update > 50)
            factors.append(min(adaptive.position(update, fast, 300, 300) / 300, 1.0))
        drawn.append((f'on_settled="{way}"', factors))
    drawn.append(("never settled", [update / 300 for update in range(1, 301)]))
    title = "cap 300, fast=100, settled from update 50 on"
    curves(path, drawn, "factor", title)


def lengths(path: Path) -> None:
    """Draws `untuned_linear`, whose length depends on beta2."""
    drawn = []
    for beta2 in (0.95, 0.98, 0.99, 0.995):
        steps = 2 / (1 - beta2)
        factors = [min(t / steps, 1.0) for t in range(1, 401)]
        drawn.append((f"beta2 = {beta2}: {steps:.0f} updates", factors))
    curves(path, drawn, "factor", 'mode="untuned_linear": 2 / (1 - beta2)')


def trace(path: Path) -> None:
    """Draws the readings of a small adaptive run, and what two more criteria say."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
    )
    record = Trace()
    optimizer = Warmed(
        AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95)),
        steps=300,
        mode="adaptive",
        watch=[Drift(), UpdateRMS()],
        trace=record,
    )
    while not optimizer.done:
        x = torch.randn(2, 8)
        optimizer.zero_grad()
        (model(x) - x.sin().sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    with themed.style(size=15):  # this picture is wider than the others
        record.plot(path)
    themed.rewrite(path)


def demo(path: Path) -> None:
    """Draws the runs of `make demo`: the loss at each LR, and the LR that was used."""
    from warmopt._tools.cli import _smoothed
    from warmopt._tools.demo import LRS, WARMUPS, train

    torch.set_num_threads(1)
    titles = [f"loss at LR {lr:g}" for lr in LRS]
    titles += [f"effective LR at LR {LRS[-1]:g}"]
    figure, axes = themed.panels(titles, columns=1, height=2.2)
    for axis, lr in zip(axes, LRS, strict=False):
        for name in WARMUPS:
            run = train(name, lr)
            axis.plot(_smoothed(run.losses), label=name, linewidth=1.8)
            if lr == LRS[-1]:
                axes[-1].plot(run.lrs, linewidth=1.8)
    axes[-1].set_xlabel("update")
    themed.legend(figure, axes[:1], columns=2)
    themed.save(figure, path)


PICTURES = (modes, composing, schedules, groups, waiting, settled, lengths, trace)


def draw(folder: Path, *pictures: Callable[[Path], None]) -> None:
    """Draws pictures; a file is named like its function."""
    with themed.style():
        for picture in pictures or PICTURES:
            picture(folder / f"{picture.__name__}.svg")


if __name__ == "__main__":
    known = {picture.__name__: picture for picture in (*PICTURES, demo)}
    draw(PICTURES_FOLDER, *(known[name] for name in sys.argv[1:]))
