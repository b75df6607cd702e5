"""Draws the pictures of the README and of the site.

Run it from the root of the repository: python -m docs.scripts.draw_pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn import Parameter
from torch.optim import SGD, AdamW, lr_scheduler

from warmopt import Adaptive, Trace, Warmed
from warmopt._groups.schedule import Schedule
from warmopt._tools.plots import save_curves
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


def modes(path: Path) -> None:
    """Draws every mode over a hundred updates, the untuned ones for beta2 = 0.98."""
    curves: dict[bool, list] = {False: [], True: []}
    for name, mode in MODES.items():
        rule = mode.steps_from_beta2
        schedule = Schedule(name, None if rule else 25 if name == "saturating" else 100)
        steps = rule(0.98) if rule else schedule.steps
        values = [schedule.factor(t, steps, schedule.start) for t in range(1, 121)]
        curves[name in ("saturating", "log") or rule is not None].append((name, values))
    panels = [("factor", curves[False]), ("factor", curves[True])]
    title = "n = 100 updates, saturating n = 25, the untuned modes for beta2 = 0.98"
    save_curves(path, panels, title)


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
    curves = list(zip(labels, columns, strict=True))
    title = f"a cosine schedule from LR 1, a warmup of {WARMUP} updates"
    save_curves(path, [("", curves)], title)


def schedules(path: Path) -> None:
    """Draws this product for several schedulers of torch."""
    curves = [
        (name, [effective for *_, effective in seen(make)])
        for name, make in SCHEDULERS.items()
    ]
    title = f"schedules from LR 1, a warmup of {WARMUP} updates"
    save_curves(path, [("effective LR", curves)], title)


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
    title = "steps=50; at update 150 the body is warmed again, over 20 updates"
    save_curves(path, [("effective LR", list(used.items()))], title)


def waiting(path: Path) -> None:
    """Draws a schedule that begins with the warmup, and one that waits for its end."""
    curves = []
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
        curves.append((name, used))
    save_curves(path, [("effective LR", curves)], "an ExponentialLR, and a warmup")


def settled(path: Path) -> None:
    """Draws what each `on_settled` does, if the second moment settles at update 50."""
    curves = []
    for way in ("accelerate", "ramp", "end"):
        adaptive, fast, factors = Adaptive(on_settled=way, fast=100), 0, []
        for update in range(1, 301):
            fast = adaptive.next_fast(fast, settled=update > 50)
            factors.append(min(adaptive.position(update, fast, 300, 300) / 300, 1.0))
        curves.append((f'on_settled="{way}"', factors))
    curves.append(("never settled", [update / 300 for update in range(1, 301)]))
    title = "cap 300, fast=100, settled from update 50 on"
    save_curves(path, [("factor", curves)], title)


def lengths(path: Path) -> None:
    """Draws `untuned_linear`, whose length depends on beta2."""
    curves = []
    for beta2 in (0.95, 0.98, 0.99, 0.995):
        steps = 2 / (1 - beta2)
        factors = [min(t / steps, 1.0) for t in range(1, 401)]
        curves.append((f"beta2 = {beta2}: {steps:.0f} updates", factors))
    save_curves(path, [("factor", curves)], 'mode="untuned_linear": 2 / (1 - beta2)')


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
    record.plot(path)


PICTURES = (modes, composing, schedules, groups, waiting, settled, lengths, trace)


def draw(folder: Path) -> None:
    """Draws all pictures; a file is named like its function."""
    for picture in PICTURES:
        picture(folder / f"{picture.__name__}.png")


if __name__ == "__main__":
    draw(PICTURES_FOLDER)
