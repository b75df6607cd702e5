"""Trains once: takes the settings of a run and returns a row of results."""

from __future__ import annotations

import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.study.data import Data
from benchmarks.study.hands import Climbing, Hand, LossGap
from benchmarks.study.optimizers import OPTIMIZERS
from benchmarks.study.store import name_of
from benchmarks.study.tasks import TASKS, Task
from benchmarks.study.warmups import WARMUPS, Facts, Settings, factors, jump
from warmopt import Trace, Warmed

CHUNK = 1000  # how many validation samples go through the model at once
CODE = 1  # version of the code; raised when a change affects the results


def train(
    run: Settings,
    device: str = "cpu",
    folder: Path | None = None,
    traces: Path | None = None,
) -> dict[str, Any]:
    """Trains; the same seed gives the same first model and the same batches.

    The final loss is the mean of the last evaluations. Between two of them lies a
    hundredth of the run.

    Args:
        run: The settings.
        device: Where the model is.
        folder: The folder with the data, if the task needs one.
        traces: The folder for traces of the warmup. `name_of` gives the file name.
    """
    task, updates = TASKS[run["task"]], run["updates"]
    data, draw = task.data(folder), torch.Generator().manual_seed(run["seed"])
    torch.manual_seed(run["seed"])
    model = task.model(data).to(device)
    bare = optimizer_of(run, task, model)
    facts = facts_of(run, bare)
    optimizer, criterion = warmed(run, bare, facts, Trace() if traces else None)
    trace = optimizer.trace
    told = getattr(criterion, "losses", None)
    hand = criterion if isinstance(criterion, (Climbing, LossGap)) else None
    applied: list[list[float]] | None = (
        [] if run["warmup"]["kind"] == "aligned" else None
    )
    scheduler = LambdaLR(optimizer, lambda done: task.decay(done, updates))
    paces = [Pace(group) for group in optimizer.param_groups]
    gap = max(1, updates // 100)
    read_at = {updates - i * gap for i in range(run["evaluations"])}
    initial, evaluations = evaluate(model, data, device)[0], []
    began, used = time.perf_counter(), time.process_time()
    for update in range(1, updates + 1):
        done = (update - 1) / updates
        task.before(model, done)
        x, y = data.batch(draw, task.batch(done))
        loss = cross_entropy(model(x.to(device)), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        if hand is None:
            optimizer.step()
        else:
            step_by(hand, optimizer, model, x.to(device), y.to(device), loss.item())
        if applied is not None and not optimizer.done:
            applied.append(factors_used(optimizer))
        scheduler.step()
        if told is not None:
            told.append(loss.item())
        if not optimizer.done or any(pace.length is None for pace in paces):
            for pace in paces:
                pace.look()
        if update in read_at:
            evaluations.append(evaluate(model, data, device))
    if traces and trace is not None:
        trace.save(traces / f"{name_of(run)}.jsonl")
    final = sum(loss for loss, _ in evaluations) / len(evaluations)
    own = WARMUPS[run["warmup"]["kind"]] is jump
    return {
        "loss": rounded(final),
        "failed": not final <= task.fails_above,
        "accuracy": round(evaluations[-1][1], 5),
        "initial": rounded(initial),
        "chance": rounded(math.log(data.classes)),
        "groups": groups_of(run, facts, optimizer, paces, hand, applied),
        "done_reason": optimizer.done_reason,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        **({"reading": last_of(trace)} if own and trace is not None else {}),
    }


def optimizer_of(run: Settings, task: Task, model: nn.Module) -> torch.optim.Optimizer:
    groups = [{"params": list(part.parameters())} for part in task.groups(model)]
    options: dict[str, Any] = {"lr": run["lr"]}
    if task.weight_decay:
        options["weight_decay"] = task.weight_decay
    if run["beta2"] is not None:
        own = "alpha" if run["optimizer"] == "RMSprop" else "betas"
        options[own] = run["beta2"] if own == "alpha" else (0.9, run["beta2"])
    return OPTIMIZERS[run["optimizer"]](groups, **options)


def facts_of(run: Settings, bare: torch.optim.Optimizer) -> Facts:
    defaults = bare.defaults
    beta2 = defaults.get("alpha") or defaults.get("betas", (0.0, 0.99))[1]
    return Facts(beta2, run["updates"], run["seed"])


def warmed(
    run: Settings,
    bare: torch.optim.Optimizer,
    facts: Facts,
    trace: Trace | None = None,
) -> tuple[Warmed, object]:
    """Returns the optimizer with its warmup, and the criterion if there is one."""
    options = dict(run["warmup"])
    built = WARMUPS[options.pop("kind")](facts, **options)
    steps = built.get("steps")
    if isinstance(steps, list):
        for group, own in zip(bare.param_groups, steps, strict=True):
            group["warmup_steps"] = own
        built["steps"] = max(steps)
    criterion = built.pop("hand", getattr(built.get("mode"), "criterion", None))
    return Warmed(bare, **{"trace": trace, **built}), criterion


def step_by(
    hand: Hand, optimizer: Warmed, model: nn.Module, x: Tensor, y: Tensor, loss: float
) -> None:
    """Steps at the factor that a hand sets; `lr` is put back."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    hand.before(params, loss)
    bases = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] *= hand.factor
    optimizer.step()
    for group, base in zip(optimizer.param_groups, bases, strict=True):
        group["lr"] = base

    def again() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()

    hand.after(params, again)


def factors_used(optimizer: Warmed) -> list[float]:
    """The factors of the last update."""
    lrs = zip(optimizer.get_last_lr(), optimizer.param_groups, strict=True)
    return [round(lr / group["lr"], 6) if group["lr"] else 1.0 for lr, group in lrs]


def groups_of(
    run: Settings,
    facts: Facts,
    optimizer: Warmed,
    paces: list[Pace],
    hand: Hand | None,
    applied: list[list[float]] | None,
) -> list[dict[str, Any]]:
    """What is recorded of the warmup of each group."""
    told = [pace.told(run, facts) for pace in paces]
    if hand is not None:
        return [{**each, **hand.told()} for each in told]
    if applied is not None:
        ends = [round(factor, 6) for factor in optimizer.factors]
        for i, (each, end) in enumerate(zip(told, ends, strict=True)):
            own = [row[i] for row in applied]
            each |= {"reason": optimizer.done_reason, "factor": end, "factors": own}
    return told


class Pace:
    """Watches the warmup of a param group from outside."""

    def __init__(self, group: dict[str, Any]) -> None:
        self.group, self.fast = group, 0
        self.spans: list[list[int]] = []
        self.length = 0 if group.get("warmup_done", True) else None

    def look(self) -> None:
        """Call this after each update until the warmup is over."""
        if self.length is not None:
            return
        updates, fast = self.group["warmup_updates"], self.group.get("warmup_fast", 0)
        if fast > self.fast:
            if self.spans and self.spans[-1][1] == updates - 1:
                self.spans[-1][1] = updates
            else:
                self.spans.append([updates, updates])
        self.fast = fast
        if self.group["warmup_done"]:
            self.length = updates

    def told(self, run: Settings, facts: Facts) -> dict[str, Any]:
        """Returns the length in updates, or None if the warmup did not end.

        For an adaptive warmup there is more: `spans` are the updates at the fast pace,
        and `shortfall` is the sum of 1 - factor.
        """
        if run["warmup"]["kind"] != "adaptive":
            return {"length": self.length}
        count = self.group["warmup_updates"] if self.length is None else self.length
        own = factors(facts, run["warmup"], self.spans, count)
        return {
            "length": self.length,
            "spans": self.spans,
            "shortfall": math.fsum(1.0 - factor for factor in own),
        }


@torch.no_grad()
def evaluate(model: nn.Module, data: Data, device: str) -> tuple[float, float]:
    """Returns cross-entropy in nats, and accuracy, on the validation data."""
    model.eval()
    x, y = data.validation
    loss = right = 0.0
    for own, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        scores, labels = model(own.to(device)), labels.to(device)
        loss += cross_entropy(scores, labels).item() * (len(own) / len(x))
        right += (scores.argmax(1) == labels).float().mean().item() * len(own) / len(x)
    model.train()
    return loss, right


def last_of(trace: Trace) -> dict[str, float | None]:
    """Returns the last reading; of the drifts, the median of their sizes."""
    *_, last = trace.readings()
    drifts = [abs(drift) for drift in last.drifts if math.isfinite(drift)]
    names = ("inverse_root_variance", "norm_ratio", "update_rms")
    read = {name: getattr(last, name) for name in names}
    read["drift"] = median(drifts) if drifts else math.nan
    return {k: v if math.isfinite(v) else None for k, v in read.items()}


def rounded(loss: float) -> float | None:
    """Rounds a loss; returns None if it is not finite, since JSON cannot store that."""
    return round(loss, 5) if math.isfinite(loss) else None
