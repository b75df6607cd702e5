"""The table of peers: how each is written there and here, and its factor.

One row is one convention. Both lines are source and are run as they stand in
`docs/coming-from.md`, which is made from this table. In their scope:

- `n`: the length that the user asks the peer for, in updates;
- `lr`: the base LR there; what a peer takes as an absolute LR is a share of it;
- `beta2`: of the optimizer, which is Adam;
- `optimizer`; `total`, a run so long that no decay shows; `decay`, its last part;
- `scheduler`: one that keeps the LR, where a peer wraps a scheduler.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

LR = 0.5  # a power of two, so LR x factor is exact; not 1, so an LR is no factor
TOTAL = 2**60  # in float64, one update more changes nothing

Factor = Callable[[int, int], float]


@dataclass(frozen=True)
class Row:
    """One convention of a peer.

    Attributes:
        peer: Its name; rows of one peer stand together.
        theirs: How the user writes it there.
        ours: Keyword arguments of `Warmed`.
        factor: Published formula: (t, n) -> LR of update t = 1, 2, ... / `lr`.
        run: Runs `theirs` for n + 3 updates; returns the LRs used. None: not installed.
        note: What to know when moving, and which side we took.
        lr: Our base LR as a multiple of theirs.
        least: Least n that the peer takes, or for which the convention has a meaning.
        beta2: The optimizer's, for the rows that depend on it.
        apart: Updates at which we differ from the peer, on purpose.
        ulps: How far our factor is from the formula, in units in the last place.
        run_ulps: The same from the peer that runs.
        because: Why these two are not 0.
    """

    peer: str
    theirs: str
    ours: str
    factor: Factor
    run: Callable[[str, int, float], list[float]] | None = None
    note: str = ""
    lr: float = 1.0
    least: int = 1
    beta2: Callable[[int], float] = lambda n: 0.999
    apart: tuple[int, ...] = ()
    ulps: int = 0
    run_ulps: int = 0
    because: str = ""

    def keywords(self, n: int) -> dict[str, Any]:
        """`ours` for this n."""
        scope = {"n": n, "beta2": self.beta2(n), "ceil": math.ceil}
        return dict(eval(f"dict({self.ours})", scope))

    def theirs_used(self, n: int) -> list[float]:
        """Factors of updates 1 to n + 3 of the installed peer."""
        assert self.run is not None
        return [lr / LR for lr in self.run(self.theirs, n, self.beta2(n))]


def build(lr: float, beta2: float) -> Adam:
    """An optimizer whose only parameter has no gradient, so its steps cost nothing."""
    return Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr, betas=(0.9, beta2))


# --- the formulas; t counts the updates from 1 ----------------------------------------


def ramp(t: int, n: float, late: int = 0, start: float = 0.0) -> float:
    """Rises from `start` in equal steps, to 1 at t = n + late."""
    if t >= n + late:
        return 1.0
    progress = max(t - late, 0) / n
    return start + (1.0 - start) * progress if start else progress


def shaped(t: int, n: int, shape: Callable[[float], float], start: float) -> float:
    """WSD: a shape of the progress (t - 1) / n, then lifted to `start`."""
    if t > n:
        return 1.0
    return shape((t - 1) / n) * (1.0 - start) + start


def half_cosine(progress: float) -> float:
    return 0.5 * (1.0 - math.cos(math.pi * progress))


def one_minus_sqrt(progress: float) -> float:
    return 1.0 - math.sqrt(1.0 - progress)


def radam(t: int, beta2: float) -> float:
    """The rectification of RAdam, from the first k that has one."""
    rho_inf = 2.0 / (1.0 - beta2) - 1.0

    def rho(k: int) -> float:
        return rho_inf - 2.0 * k * beta2**k / (1.0 - beta2**k)

    first = next(k for k in range(1, 1000) if rho(k) > 4.0)
    r = rho(t + first - 1)
    return math.sqrt(
        (r - 4.0) * (r - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * r)
    )


def deepspeed_log(t: int, n: int) -> float:
    """ln(i + 1) / ln(n) of the scheduler's count i, which is 0 at update 2."""
    i = max(t - 2, 0)
    return math.log(i + 1) / math.log(n) if i < n else 1.0


# --- how the installed ones run -------------------------------------------------------


def _scope(module: str, optimizer: Optimizer, n: int) -> dict[str, Any]:
    """The names that code of a user of `module` can use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from their imports
        names = dict(vars(importlib.import_module(module)))
    sizes = {"n": n, "lr": LR, "total": TOTAL, "decay": 100}
    return {**names, **sizes, "optimizer": optimizer}


def _run_scheduler(module: str, theirs: str, n: int, beta2: float) -> list[float]:
    """For schedulers like torch's, which step after the optimizer."""
    optimizer = build(LR, beta2)
    scheduler = eval(theirs, _scope(module, optimizer, n))
    used = []
    for _ in range(n + 3):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


def _run_pytorch_warmup(theirs: str, n: int, beta2: float) -> list[float]:
    optimizer = build(LR, beta2)
    warmup = eval(theirs, _scope("pytorch_warmup", optimizer, n))
    used = []
    for _ in range(n + 3):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warmup.dampening():
            pass
    return used


def timm_scheduler() -> Any:
    """timm's schedulers without its models, which would need torchvision."""
    if "timm" not in sys.modules:
        spec = importlib.util.find_spec("timm")
        assert spec is not None
        sys.modules["timm"] = importlib.util.module_from_spec(spec)
    return importlib.import_module("timm.scheduler")


def _run_timm(theirs: str, n: int, beta2: float) -> list[float]:
    timm_scheduler()
    optimizer = build(LR, beta2)
    scheduler = eval(theirs, _scope("timm.scheduler", optimizer, n))
    used = []
    for update in range(1, n + 4):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step_update(update)
    return used


def _run_ignite(theirs: str, n: int, beta2: float) -> list[float]:
    optimizer = build(LR, beta2)
    scope = _scope("ignite.handlers", optimizer, n)
    scope["scheduler"] = LambdaLR(optimizer, lambda _: 1.0)
    from ignite.engine import Engine, Events

    used = []

    def update(engine: Engine, batch: int) -> None:
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()

    trainer = Engine(update)
    trainer.add_event_handler(Events.ITERATION_STARTED, eval(theirs, scope))
    trainer.run(range(n + 3))
    return used


_run_torch = partial(_run_scheduler, "torch.optim.lr_scheduler")
_run_transformers = partial(_run_scheduler, "transformers.optimization")


# --- the table ------------------------------------------------------------------------

_LAST_PLACE = "The same formula, its terms added or multiplied in another order."
_RECURSIVE = "Computes each LR from the last one, and so adds up the roundings."
_DEAD = "The first update runs at LR 0: leave `offset` out to make use of it."
_ABSOLUTE = "Its start is an absolute LR; ours a factor, so 0.1 is 0.1 of each group's."

_PYTORCH_WARMUP = partial(Row, "pytorch_warmup", run=_run_pytorch_warmup)
_TORCH = partial(Row, "torch", run=_run_torch)
_TRANSFORMERS = partial(Row, "Hugging Face transformers", run=_run_transformers)
_TIMM = partial(Row, "timm", run=_run_timm)
_IGNITE = partial(Row, "PyTorch-Ignite", run=_run_ignite)

ROWS: list[Row] = [
    _PYTORCH_WARMUP(
        "LinearWarmup(optimizer, n)",
        "steps=n",
        ramp,
        note="No `with dampening()` any more, and no call at all.",
    ),
    _PYTORCH_WARMUP(
        "ExponentialWarmup(optimizer, n)",
        'steps=n, mode="saturating"',
        lambda t, n: 1.0 - math.exp(-t / n),
        note="n is the time constant: it never ends there; here it ends where float64 "
        "can no longer tell the factor from 1, after 37.5 n updates.",
    ),
    Row(
        "pytorch_warmup",
        "UntunedLinearWarmup(optimizer)",
        'mode="untuned_linear"',
        ramp,
        beta2=lambda n: 1.0 - 2.0 / n,
        least=2,
        note="The length is 2 / (1 - beta2). It is truncated there, to 1999 for 0.999 "
        "and 39 for 0.95; we took the side of the paper, 2000 and 40.",
    ),
    _PYTORCH_WARMUP(
        "UntunedLinearWarmup(optimizer)",
        "steps=int(2 / (1 - beta2))",
        lambda t, n: min(1.0, t / int(2.0 / (1.0 - (1.0 - 2.0 / n)))),
        beta2=lambda n: 1.0 - 2.0 / n,
        least=2,
        note="The same to the last bit, truncated length and all.",
    ),
    Row(
        "pytorch_warmup",
        "UntunedExponentialWarmup(optimizer)",
        'mode="untuned_exponential"',
        lambda t, n: 1.0 - math.exp(-t / n),
        beta2=lambda n: 1.0 - 1.0 / n,
        note="The time constant is 1 / (1 - beta2). It is truncated there, to 999 for "
        "0.999; we took the side of the paper, 1000.",
    ),
    _PYTORCH_WARMUP(
        "UntunedExponentialWarmup(optimizer)",
        'steps=int(1 / (1 - beta2)), mode="saturating"',
        lambda t, n: 1.0 - math.exp(-t / int(1.0 / (1.0 - (1.0 - 1.0 / n)))),
        beta2=lambda n: 1.0 - 1.0 / n,
        note="The same to the last bit, truncated time constant and all.",
    ),
    _PYTORCH_WARMUP(
        "RAdamWarmup(optimizer)",
        'mode="radam"',
        lambda t, n: radam(t, 1.0 - 2.0 / n),
        beta2=lambda n: 1.0 - 2.0 / n,
        least=6,
        note="Both need beta2 > 0.6.",
    ),
    _TORCH(
        "LinearLR(optimizer, start_factor=1 / 3, total_iters=n)",
        "steps=n, offset=1, start=1 / 3",
        partial(ramp, late=1, start=1 / 3),
        run_ulps=32,
        because=_RECURSIVE,
        note="`total_iters=0` leaves the LR at the start factor for good there; "
        "`steps=0` is no warmup.",
    ),
    _TORCH(
        "LinearLR(optimizer, start_factor=1 / n, total_iters=n - 1)",
        "steps=n",
        ramp,
        least=2,
        run_ulps=64,
        because=_RECURSIVE,
    ),
    _TORCH(
        "LinearLR(optimizer, start_factor=0.1, end_factor=0.5, total_iters=n)",
        "steps=n, offset=1, start=0.2",
        lambda t, n: 0.5 * ramp(t, n, late=1, start=0.2),
        lr=0.5,
        run_ulps=16,
        because=_RECURSIVE,
        note="A warmup of ours ends at 1: give the optimizer `0.5 * lr`, the LR at the "
        "end, of which the start is a share.",
    ),
    _TORCH(
        "ConstantLR(optimizer, factor=1 / 3, total_iters=n)",
        'steps=n, offset=1, mode="constant"',
        lambda t, n: 1 / 3 if t <= n else 1.0,
    ),
    _TORCH(
        "OneCycleLR(optimizer, max_lr=lr, total_steps=total, pct_start=n / total)",
        'steps=n - 1, offset=1, start=0.04, mode="cosine"',
        lambda t, n: shaped(t, n - 1, half_cosine, 0.04) if t < n else 1.0,
        least=2,
        ulps=8,
        run_ulps=32,
        because=_LAST_PLACE,
        note="Its rising part, `start` being 1 / `div_factor`. Its momentum falls "
        "meanwhile; ours can only rise.",
    ),
    _TRANSFORMERS(
        "get_constant_schedule_with_warmup(optimizer, n)",
        "steps=n, offset=1",
        partial(ramp, late=1),
        note=_DEAD,
    ),
    _TRANSFORMERS(
        "get_linear_schedule_with_warmup(optimizer, n, total)",
        "steps=n, offset=1",
        partial(ramp, late=1),
        note="The decay is a scheduler of its own: see the end of this page.",
    ),
    _TRANSFORMERS(
        "get_cosine_schedule_with_warmup(optimizer, n, total)",
        "steps=n, offset=1",
        partial(ramp, late=1),
    ),
    _TRANSFORMERS(
        "get_polynomial_decay_schedule_with_warmup(optimizer, n, total)",
        "steps=n, offset=1",
        partial(ramp, late=1),
    ),
    _TRANSFORMERS(
        "get_inverse_sqrt_schedule(optimizer, n, timescale=total)",
        "steps=n, offset=1",
        partial(ramp, late=1),
    ),
    *(
        _TRANSFORMERS(
            f"get_wsd_schedule(optimizer, n, decay, total{theirs}{there})",
            f"steps=n, offset=1{ours}{here}",
            lambda t, n, shape=shape, start=start: shaped(t, n, shape, start),
            note=note,
        )
        for start, there, here, note in (
            (0.0, "", "", ""),
            (0.1, ", min_lr_ratio=0.1", ", start=0.1", "It lifts the start too."),
        )
        for theirs, ours, shape in (
            ("", "", lambda progress: progress),
            (', warmup_type="cosine"', ', mode="cosine"', half_cosine),
            (', warmup_type="1-sqrt"', ', mode="one_minus_sqrt"', one_minus_sqrt),
        )
    ),
    _TRANSFORMERS(
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate("
        "optimizer, n, total, min_lr_rate=0.1)",
        "steps=n",
        ramp,
        note="The only one of theirs without a dead first update.",
    ),
    _TRANSFORMERS(
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate("
        "optimizer, n, total, min_lr_rate=0.1, warmup_lr_rate=0.2)",
        "steps=n - 1, offset=1, start=0.2",
        lambda t, n: ramp(t, n - 1, late=1, start=0.2),
        least=2,
        run_ulps=2,
        because=_LAST_PLACE,
    ),
    _TIMM(
        "CosineLRScheduler(optimizer, total, warmup_t=n, t_in_epochs=False)",
        "steps=n, offset=1",
        partial(ramp, late=1),
        run_ulps=1,
        because=_LAST_PLACE,
        note=_DEAD
        + " Called once an epoch, it is a staircase: see the end of this page.",
    ),
    _TIMM(
        "CosineLRScheduler(optimizer, total, warmup_t=n, warmup_lr_init=0.1 * lr, "
        "warmup_prefix=True, t_in_epochs=False)",
        "steps=n, offset=1, start=0.1",
        partial(ramp, late=1, start=0.1),
        run_ulps=2,
        because=_LAST_PLACE,
        note=_ABSOLUTE,
    ),
    Row(
        "DeepSpeed",
        "WarmupLR(optimizer, warmup_max_lr=lr, warmup_num_steps=n, "
        'warmup_type="linear")',
        "steps=n, offset=2",
        partial(ramp, late=2),
        least=2,
        note="The first two updates run at LR 0; `steps=n` alone makes use of them. "
        "`WarmupDecayLR` is the same. So is the rise of `WarmupCosineLR`, but it goes "
        "on into its decay without an update at the full LR.",
    ),
    Row(
        "DeepSpeed",
        "WarmupLR(optimizer, warmup_min_lr=0.1 * lr, warmup_max_lr=lr, "
        'warmup_num_steps=n, warmup_type="linear")',
        "steps=n, offset=2, start=0.1",
        partial(ramp, late=2, start=0.1),
        least=2,
        note=_ABSOLUTE,
    ),
    Row(
        "DeepSpeed",
        "WarmupLR(optimizer, warmup_max_lr=lr, warmup_num_steps=n)",
        'steps=n - 1, offset=2, mode="log"',
        deepspeed_log,
        least=2,
        ulps=4,
        because=_LAST_PLACE,
        note="`log` is its default.",
    ),
    Row(
        "Optax",
        "warmup_constant_schedule(0.0, lr, n)",
        "steps=n, offset=1",
        partial(ramp, late=1),
        note=_DEAD,
    ),
    Row(
        "Optax",
        "warmup_cosine_decay_schedule(0.1 * lr, lr, n, total)",
        "steps=n, offset=1, start=0.1",
        partial(ramp, late=1, start=0.1),
        note=_ABSOLUTE,
    ),
    Row(
        "Composer",
        'ConstantWithWarmupScheduler(f"{n}ba")',
        "steps=n, offset=1",
        partial(ramp, late=1),
        note=_DEAD + ' `"0.1dur"` is `steps=0.1, total_steps=total`.',
    ),
    Row(
        "Megatron-LM",
        "--lr-warmup-iters n",
        "steps=n, offset=1",
        partial(ramp, late=1),
        note=_DEAD + " It counts samples: n is `--lr-warmup-samples` over the global "
        "batch.",
    ),
    Row(
        "Megatron-LM",
        "--lr-warmup-iters n --lr-warmup-init {0.1 * lr}",
        "steps=n, offset=1, start=0.1",
        partial(ramp, late=1, start=0.1),
        note=_ABSOLUTE,
    ),
    Row(
        "Lightning Bolts",
        "LinearWarmupCosineAnnealingLR(optimizer, n, total)",
        "steps=n - 1, offset=1",
        lambda t, n: ramp(t, n - 1, late=1),
        least=2,
        note=_DEAD,
    ),
    Row(
        "Lightning Bolts",
        "LinearWarmupCosineAnnealingLR(optimizer, n, total, 0.1 * lr)",
        "steps=n - 1, offset=1, start=0.1",
        lambda t, n: ramp(t, n - 1, late=1, start=0.1),
        least=2,
        note=_ABSOLUTE,
    ),
    Row(
        "Lightning's documented `optimizer_step`",
        "lr * min(1.0, (trainer.global_step + 1) / n)",
        "steps=n",
        ramp,
        note="That override fights with schedulers; this does not.",
    ),
    _IGNITE(
        "create_lr_scheduler_with_warmup(scheduler, 0.0, n)",
        "steps=n - 1, offset=1",
        lambda t, n: ramp(t, n - 1, late=1),
        least=2,
        note=_DEAD,
    ),
    _IGNITE(
        "create_lr_scheduler_with_warmup(scheduler, 0.1 * lr, n)",
        "steps=n - 1, offset=1, start=0.1",
        lambda t, n: ramp(t, n - 1, late=1, start=0.1),
        least=2,
        run_ulps=2,
        because=_LAST_PLACE,
        note=_ABSOLUTE,
    ),
    Row(
        "MMEngine",
        "LinearLR(optimizer, start_factor=0.1, end=n)",
        "steps=n - 1, offset=1, start=0.1",
        lambda t, n: ramp(t, n - 1, late=1, start=0.1),
        least=2,
        note="With `end=1` its LR stays at the start factor for good; `steps=0` is no "
        "warmup.",
    ),
    Row(
        "MMEngine",
        "ConstantLR(optimizer, factor=1 / 3, end=n)",
        'steps=n, mode="constant"',
        lambda t, n: 1 / 3 if t < n else 1.0,
        least=2,
    ),
    Row(
        "HeavyBall",
        "ForeachAdamW(params, lr, warmup_steps=n)",
        "steps=n + 1",
        lambda t, n: t / max(t, n + 1),
    ),
    Row("nanoGPT", "warmup_iters = n", "steps=n + 1", lambda t, n: ramp(t, n + 1)),
    Row(
        "schedule_free",
        "AdamWScheduleFree(params, lr, warmup_steps=n)",
        "steps=n",
        ramp,
        note="Leave `warmup_steps` out there, or the LR is warmed twice. The weights "
        "of its average stay the same, since they come from the LR of the step.",
    ),
    Row(
        "TorchRec",
        "WarmupStage(WarmupPolicy.LINEAR, max_iters=n, value=0.1)",
        "steps=n, offset=1, start=0.1",
        partial(ramp, late=1, start=0.1),
        note="It sets one LR for all groups; here each keeps its own. Several stages: "
        "a function of (update, steps) as `mode`.",
    ),
    Row(
        "TorchRec",
        "WarmupStage(WarmupPolicy.CONSTANT, max_iters=n, value=0.1)",
        'steps=n, offset=2, start=0.1, mode="constant"',
        lambda t, n: 0.1 if t <= n + 1 else 1.0,
        note="A stage there lasts one update longer than `max_iters`.",
    ),
    Row(
        "fairseq",
        "--lr-scheduler inverse_sqrt --warmup-updates n --warmup-init-lr 0",
        "steps=n, offset=1",
        partial(ramp, late=1),
        note=_DEAD + " So do `cosine`, `polynomial_decay` and `tri_stage`.",
    ),
    Row("fairseq", "--lr-scheduler fixed --warmup-updates n", "steps=n", ramp),
    Row(
        "torchtune",
        "get_cosine_schedule_with_warmup(optimizer, n, total)",
        "steps=n, offset=1",
        partial(ramp, late=1),
        note=_DEAD,
    ),
    Row("torchtitan", "--lr_scheduler.warmup_steps n", "steps=n", ramp),
    Row(
        "Paddle",
        "LinearWarmup(lr, n, start_lr=0.1 * lr, end_lr=lr)",
        "steps=n, offset=1, start=0.1",
        partial(ramp, late=1, start=0.1),
        note=_ABSOLUTE,
    ),
    Row(
        "Detectron2",
        "SOLVER.WARMUP_ITERS = n",
        "steps=n, offset=1, start=0.001",
        partial(ramp, late=1, start=0.001),
        note="`start` is `SOLVER.WARMUP_FACTOR`.",
    ),
    Row(
        "kozistr/pytorch_optimizer",
        "LinearScheduler(optimizer, total, lr, warmup_steps=n)",
        "steps=n, offset=2",
        partial(ramp, late=2),
        note="The first two updates run at LR 0; `steps=n` alone makes use of them. It "
        "sets one LR for all groups; here each keeps its own.",
    ),
    Row(
        "kozistr/pytorch_optimizer",
        "Ranger21(params, total)",
        "steps=ceil(2 / (1 - beta2))",
        lambda t, n: min(1.0, t / math.ceil(2.0 / (1.0 - (1.0 - 2.0 / n)))),
        beta2=lambda n: 1.0 - 2.0 / n,
        least=2,
        note="Rounded up, where pytorch_warmup truncates. Its own warmup, and with it "
        "its decay, is off with `disable_lr_scheduler=True`.",
    ),
    Row(
        "ildoonet/pytorch-gradual-warmup-lr",
        "GradualWarmupScheduler(optimizer, 1, n, scheduler)",
        "steps=n, offset=1",
        partial(ramp, late=1),
        note=_DEAD,
    ),
    Row(
        "ildoonet/pytorch-gradual-warmup-lr",
        "GradualWarmupScheduler(optimizer, 4, n, scheduler)",
        "steps=n, offset=1, start=0.25",
        lambda t, n: 3.0 * (t - 1) / n + 1.0 if t <= n else 4.0,
        lr=4.0,
        ulps=1,
        because=_LAST_PLACE,
        note="A warmup of ours ends at 1: give the optimizer `4 * lr`, the LR at the "
        "end, of which the start is a share.",
    ),
    Row(
        "katsura-jp/pytorch-cosine-annealing-with-warmup",
        "CosineAnnealingWarmupRestarts(optimizer, total, max_lr=lr, min_lr=0.0, "
        "warmup_steps=n)",
        "steps=n, offset=1",
        partial(ramp, late=1),
        note=_DEAD,
    ),
    Row(
        "lehduong/torch-warmup-lr",
        "WarmupLR(scheduler, init_lr=0.1 * lr, num_warmup=n)",
        "steps=n, offset=2, start=0.1",
        lambda t, n: 1.0 if t == 1 else ramp(t, n, late=2, start=0.1),
        apart=(1,),
        note="Its first update runs at the full LR, before the warmup. Ours does not.",
    ),
]
