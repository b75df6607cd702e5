"""Optimizers that a warmup would harm: we show the harm, then the error or warning."""

from __future__ import annotations

import re
import warnings

import pytest
import pytorch_optimizer
import torch
import torch_optimizer
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support.features import needs_adafactor
from tests.support.optimizers import REFUSED, UNBUILDABLE, Row, quiet
from tests.support.processes import run_python
from tests.support.reference import stepped_at
from warmopt import Warmed

ESTIMATES = (
    "estimates its step size from steps that the LR is part of, so a warmup changes the "
    "estimate. Use it unwrapped, with lr=1 and its own safeguards (growth_rate, "
    "safeguard_warmup)."
)
IGNORES = "never reads lr. Use it unwrapped."


def param() -> Parameter:
    return Parameter(torch.ones(2, 2))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (pytorch_optimizer.Prodigy, ESTIMATES),
        (pytorch_optimizer.DAdaptAdam, ESTIMATES),
        (pytorch_optimizer.DAdaptAdaGrad, ESTIMATES),
        (pytorch_optimizer.DAdaptAdan, ESTIMATES),
        (pytorch_optimizer.DAdaptLion, ESTIMATES),
        (pytorch_optimizer.DAdaptSGD, ESTIMATES),
        (pytorch_optimizer.A2Grad, IGNORES),
        (torch_optimizer.A2GradExp, IGNORES),
        (torch_optimizer.A2GradInc, IGNORES),
        (torch_optimizer.A2GradUni, IGNORES),
        (
            pytorch_optimizer.ApolloDQN,
            "sets its step from init_lr while it warms up by itself, whatever the LR. "
            "Use its own warmup.",
        ),
    ],
)
def test_it_is_refused_with_the_reason_and_what_to_use(
    cls: type[Optimizer], message: str
) -> None:
    optimizer = cls([param()])
    before = repr(optimizer)
    with pytest.raises(ValueError, match="must not be wrapped") as refused:
        Warmed(optimizer, steps=10)
    assert str(refused.value) == f"{cls.__name__} must not be wrapped: it {message}"
    assert repr(optimizer) == before


def step_once(cls: type[Optimizer]) -> None:
    params = Row("", cls).params()
    optimizer = cls(params)
    for weight in params:
        weight.grad = torch.ones_like(weight)
    optimizer.step()


def test_every_class_left_out_of_the_table_is_refused_or_cannot_be_built() -> None:
    """REFUSED and UNBUILDABLE must not hide anything that could be wrapped."""
    for module in (torch_optimizer, pytorch_optimizer):
        for name, cls in vars(module).items():
            if isinstance(cls, type) and re.search(REFUSED, name):
                with pytest.raises((TypeError, ValueError)):
                    Warmed(cls([param()]), steps=10)
            elif name in UNBUILDABLE:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with pytest.raises(Exception, match=r"."):
                        step_once(cls)


def test_a_subclass_is_refused_like_its_class() -> None:
    class Mine(pytorch_optimizer.Prodigy):
        pass

    with pytest.raises(ValueError, match="Mine must not be wrapped: it estimates"):
        Warmed(Mine([param()]), steps=10)


def test_apollo_with_a_warmup_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="Build it with warmup=0") as refused:
        Warmed(torch_optimizer.Apollo([param()], warmup=5), steps=10)
    assert str(refused.value) == (
        "Apollo must not be wrapped with warmup > 0: until then it sets its step by "
        "itself, whatever the LR. Build it with warmup=0."
    )


@pytest.mark.parametrize("lr", [None, 0.1])
@pytest.mark.parametrize(
    "cls", [torch_optimizer.Adafactor, pytorch_optimizer.AdaFactor]
)
def test_adafactor_that_ignores_the_lr_is_refused(cls: type, lr: float | None) -> None:
    """By default it does, also if it is given one."""
    with pytest.raises(ValueError, match="relative_step=True") as refused:
        Warmed(cls([param()], lr=lr), steps=10)
    assert str(refused.value) == (
        f"{cls.__name__} must not be wrapped with relative_step=True: it sets its step "
        "by itself, whatever the LR. Build it with relative_step=False and an lr."
    )
    Warmed(cls([param()], lr=0.1, relative_step=False), steps=10)


def test_what_does_harm_is_refused_only_where_something_warms() -> None:
    """`steps=0` scales nothing, so it takes every optimizer, without a word."""
    for optimizer in (
        pytorch_optimizer.Prodigy([param()]),
        torch_optimizer.A2GradUni([param()]),
        pytorch_optimizer.AdaFactor([param()]),
    ):
        warmed = Warmed(optimizer, steps=0)
        with pytest.raises(ValueError, match="must not be wrapped"):
            warmed.rewarm(5)
        with pytest.raises(ValueError, match="must not be wrapped"):
            warmed.add_param_group({"params": [param()], "warmup_steps": 5})
        assert len(warmed.param_groups) == 1
        assert "warmup_updates" not in warmed.param_groups[0]
        warmed.rewarm()  # of length 0
        warmed.add_param_group({"params": [param()]})
    groups = [{"params": [param()], "warmup_steps": 5}]
    with pytest.raises(ValueError, match="must not be wrapped"):
        Warmed(pytorch_optimizer.Prodigy(groups), steps=0)
    warmed = Warmed(torch.optim.RAdam([param()]), steps=0)
    with pytest.warns(UserWarning, match="rectifies"):
        warmed.rewarm(5)
    warmed.rewarm(5)  # it was said


# --- optimizers that hold others ----------------------------------------------------


class Container(Optimizer):
    """Drives optimizers of its own, and has param groups that nobody reads."""

    def __init__(self, *inner: Optimizer, held: type = list) -> None:
        params = [p for each in inner for g in each.param_groups for p in g["params"]]
        super().__init__(params, {"lr": 1.0})
        self.inner = dict(enumerate(inner)) if held is dict else held(inner)

    def step(self, closure: None = None) -> None:
        for each in self.inner.values() if isinstance(self.inner, dict) else self.inner:
            each.step()


@pytest.mark.parametrize("held", [list, tuple, dict])
def test_a_container_whose_groups_nobody_reads_is_refused(held: type) -> None:
    weights = [param(), param()]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    inner = [torch.optim.SGD([weight], lr=1.0) for weight in weights]
    with pytest.raises(ValueError, match="must not be wrapped") as refused:
        Warmed(Container(*inner, held=held), steps=4)
    assert str(refused.value) == (
        "Container must not be wrapped: it steps other optimizers (inner), whose LRs "
        "are not in its own param groups, so the warmup would have no effect. Wrap each "
        "of those."
    )
    # The remedy:
    container = Container(*[Warmed(each, steps=4) for each in inner], held=held)
    container.step()
    assert [weight[0, 0].item() for weight in weights] == [0.75, 0.75]


@pytest.mark.filterwarnings("ignore:Lookahead moves to its slow weights")
def test_a_warmup_around_a_warmup_is_refused_at_any_depth() -> None:
    """Both factors would multiply: 1/16 at the first of 4 updates."""
    inner = Warmed(torch.optim.SGD([param()], lr=1.0), steps=4)
    for outer, held in (
        (torch_optimizer.Lookahead(inner), "Lookahead"),
        (torch_optimizer.Lookahead(torch_optimizer.Lookahead(inner)), "Lookahead"),
        (Container(inner), "Container"),
    ):
        with pytest.raises(ValueError, match="must not be wrapped") as refused:
            Warmed(outer, steps=4)
        attribute = "inner" if held == "Container" else "optimizer"
        assert str(refused.value) == (
            f"{held} must not be wrapped: it holds one that is Warmed already "
            f"({attribute}), and both factors multiply. Use {held} as it is."
        )


@pytest.mark.filterwarnings("ignore:Lookahead moves to its slow weights")
def test_an_optimizer_that_shares_its_groups_with_one_that_it_holds_is_taken() -> None:
    inner = torch.optim.SGD([param()], lr=1.0)
    inner.state["loop"] = inner  # it may even hold itself
    Warmed(torch_optimizer.Lookahead(inner), steps=4)


# --- the harm ---------------------------------------------------------------------


def steps_of(optimizer: Optimizer, factors: list[float], seed: int = 0) -> list[float]:
    """The length of each step at base LR x factor, with seeded random gradients."""
    generator = torch.Generator().manual_seed(seed)
    [group] = optimizer.param_groups
    [weight] = group["params"]
    lengths = []
    for factor in factors:
        before = weight.detach().clone()
        weight.grad = torch.randn(weight.shape, generator=generator)
        with quiet():
            stepped_at(optimizer, [factor], optimizer.step)
        lengths.append((weight.detach() - before).norm().item())
    return lengths


@pytest.mark.parametrize(
    "cls",
    [torch_optimizer.A2GradUni, torch_optimizer.A2GradExp, pytorch_optimizer.ApolloDQN],
)
def test_the_lr_is_ignored(cls: type[Optimizer]) -> None:
    """A factor of 1/10 changes nothing at all."""
    optimizers = [cls([param()]) for _ in range(2)]
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = 0.1
    low, full = (
        steps_of(optimizer, [factor] * 5)
        for optimizer, factor in zip(optimizers, (0.1, 1.0), strict=True)
    )
    assert low == full


@pytest.mark.parametrize(
    "cls", [pytorch_optimizer.DAdaptAdam, pytorch_optimizer.Prodigy]
)
def test_a_low_lr_at_the_start_changes_the_steps_long_after(
    cls: type[Optimizer],
) -> None:
    """Adam has forgotten the low LR by then; these have not."""

    def change(cls: type[Optimizer]) -> float:
        warmed, full = (
            sum(steps_of(cls([param()], lr=1.0), factors)[-10:])
            for factors in ([0.01] * 20 + [1.0] * 200, [1.0] * 220)
        )
        return abs(warmed / full - 1.0)

    assert change(torch.optim.Adam) < 0.001
    assert change(cls) > 0.005


@pytest.mark.parametrize(
    "cls", [pytorch_optimizer.ScheduleFreeAdamW, pytorch_optimizer.ScheduleFreeSGD]
)
def test_schedule_free_is_warmed_as_by_itself(cls: type[Optimizer]) -> None:
    """So we do not refuse it. We only warn if both would warm up."""
    own, outer = [param()], [param()]
    bare = cls(own, lr=0.1, warmup_steps=10)
    warmed = Warmed(cls(outer, lr=0.1), steps=10)
    for optimizer in (bare, warmed):
        optimizer.train()
        generator = torch.Generator().manual_seed(0)
        for _ in range(50):
            [weight] = optimizer.param_groups[0]["params"]
            weight.grad = torch.randn(2, 2, generator=generator) + weight.detach()
            optimizer.step()
        optimizer.eval()
    torch.testing.assert_close(own, outer, rtol=1e-6, atol=1e-6)
    with pytest.warns(UserWarning, match="built with warmup_steps > 0") as warned:
        Warmed(bare, steps=10)
    assert str(warned[0].message) == (
        f"{cls.__name__} was built with warmup_steps > 0, and both factors multiply. Build "
        "it with warmup_steps=0: ours does the same."
    )


def test_rprop_keeps_the_first_factor() -> None:
    """Much later, its step sizes still are those of an LR ten times lower."""
    optimizer = torch.optim.Rprop([param()], lr=0.1, etas=(0.999, 1.001))
    steps = steps_of(optimizer, [0.1, *[1.0] * 19])
    assert steps[-1] < 0.11 * 0.1 * 2  # 2 = norm of four equal steps of 1
    with pytest.warns(UserWarning, match="Rprop reads lr only to create") as warned:
        Warmed(optimizer, steps=10)
    assert str(warned[0].message) == (
        "Rprop reads lr only to create its step sizes, so that the first factor scales "
        "them for good. Use it unwrapped."
    )
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    ("cls", "lr", "steps"),
    [(torch_optimizer.SWATS, 1e-4, 1000), (pytorch_optimizer.SWATS, 1e-4, 1000)],
)
def test_swats_takes_a_low_lr_for_a_sign_to_switch(
    cls: type[Optimizer], lr: float, steps: int
) -> None:
    """With a warmup it is SGD at a tiny LR before update 10; without, it is Adam."""

    def switched(factors: list[float]) -> bool:
        optimizer = cls([param()], lr=lr)
        steps_of(optimizer, factors)
        return optimizer.param_groups[0]["phase"].lower() == "sgd"

    assert switched([t / steps for t in range(1, 11)])
    assert not switched([1.0] * 10)
    with pytest.warns(UserWarning, match="SWATS takes a low LR") as warned:
        Warmed(cls([param()], lr=lr), steps=steps)
    assert str(warned[0].message) == (
        "SWATS takes a low LR for a sign that it should switch to SGD, and then switches "
        "for good at that LR. Begin high (start=0.1 or more), or wrap Adam."
    )


def test_adabound_built_at_a_low_lr_takes_larger_steps() -> None:
    def step_at(built: float) -> float:
        optimizer = torch_optimizer.AdaBound([param()], lr=built)
        optimizer.param_groups[0]["lr"] = 1e-3
        return sum(steps_of(optimizer, [1.0] * 20))

    assert step_at(1e-5) > 2 * step_at(1e-3)
    optimizer = torch_optimizer.AdaBound([param()], lr=1e-5)
    optimizer.param_groups[0]["lr"] = 1e-3
    with pytest.warns(UserWarning, match="AdaBound bounds its steps") as warned:
        Warmed(optimizer, steps=10)
    assert str(warned[0].message) == (
        "AdaBound bounds its steps by the LR that it was built with, [1e-05], which is no "
        "longer the LR, [0.001]. Build it at the full LR."
    )


def test_lookahead_moves_whatever_the_lr() -> None:
    """Its seventh step goes to the slow weights, whatever the LR is."""

    def lengths(factor: float) -> list[float]:
        inner = torch.optim.SGD([param()], lr=0.1)
        with quiet():
            optimizer = torch_optimizer.Lookahead(inner, k=6)
        return steps_of(optimizer, [1.0] * 6 + [factor])

    assert lengths(1e-6)[6] > 0.1 * lengths(1.0)[6]
    with (
        quiet(),
        pytest.warns(
            UserWarning, match=r"Lookahead\(Warmed\(inner, \.\.\.\)\)"
        ) as warned,
    ):
        Warmed(torch_optimizer.Lookahead(torch.optim.SGD([param()], lr=0.1)), steps=10)
    assert str(warned[0].message) == (
        "Lookahead moves to its slow weights every few steps, whatever the LR. Wrap the "
        "inner optimizer: Lookahead(Warmed(inner, ...))."
    )


def test_lookahead_around_warmed_is_the_right_nesting() -> None:
    optimizer = torch_optimizer.Lookahead(
        Warmed(torch.optim.SGD([weight := param()], lr=1.0), steps=4), k=100
    )
    for factor in (0.25, 0.5, 0.75, 1.0, 1.0):
        weight.grad = torch.ones_like(weight)
        before = weight.detach().clone()
        optimizer.step()
        assert torch.equal(before - weight.detach(), torch.full((2, 2), factor))


@pytest.mark.parametrize(
    "cls", [torch.optim.RAdam, torch_optimizer.RAdam, pytorch_optimizer.RAdam]
)
def test_radam_begins_low_by_itself(cls: type[Optimizer]) -> None:
    """Its first rectified step is much smaller than Adam's: it already has a warmup."""
    rectified = steps_of(cls([param()], lr=0.1), [1.0] * 8)[7]
    assert rectified < 0.2 * steps_of(torch.optim.Adam([param()], lr=0.1), [1.0] * 8)[7]
    with pytest.warns(UserWarning, match="RAdam rectifies the variance") as warned:
        Warmed(cls([param()], lr=0.1), steps=10)
    assert str(warned[0].message) == (
        "RAdam rectifies the variance of its first updates, which is a warmup, and both "
        "factors multiply. Use it unwrapped, or wrap Adam with mode='radam'."
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: torch_optimizer.AdaBelief([param()], rectify=True),
        lambda: pytorch_optimizer.AdaBelief([param()], rectify=True),
    ],
)
def test_an_optimizer_told_to_rectify_is_warned_of(optimizer) -> None:
    with pytest.warns(UserWarning, match="Build it with rectify=False"):
        Warmed(optimizer(), steps=10)


def test_the_same_without_rectification_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Warmed(torch_optimizer.AdaBelief([param()]), steps=10)
        Warmed(torch_optimizer.AdaBound([param()]), steps=10)
        Warmed(torch.optim.AdamW([param()]), steps=10)


def warmup_of_its_own(optimizer: Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=0.25, total_iters=3
    )


def test_a_scheduler_that_warms_up_too_is_warned_of() -> None:
    """Both factors multiply: the first update is at 1/16 of the LR, not at 1/4."""
    weight = param()
    weight.grad = torch.ones_like(weight)
    warmed = Warmed(torch.optim.SGD([weight], lr=1.0), steps=4)
    scheduler = warmup_of_its_own(warmed)
    with pytest.warns(UserWarning, match="let only one of them") as warned:
        warmed.step()
    assert warmed.get_last_lr() == [1 / 16]
    assert str(warned[0].message) == (
        "The first update runs at LR 0.25, below the initial_lr 1 that a scheduler has "
        "set, and the warmup lowers it further. If the scheduler warms up too, let only "
        "one of them do it."
    )
    scheduler.step()
    warmed.step()  # it warns only once


@pytest.mark.parametrize(
    "name",
    [
        *("SGD", "AdamW", "Adagrad", "RMSprop"),
        pytest.param("Adafactor", marks=needs_adafactor),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_scheduler_that_begins_at_zero_is_warned_of_at_the_first_real_update(
    name: str, frozen: bool
) -> None:
    """As transformers' schedules do, for all optimizers, and only once.

    A step at LR 0 may only save the state. It leaves Adam with a state.
    """
    weights = [param(), param()]
    weights[1].requires_grad_(not frozen)
    groups = [{"params": [weight]} for weight in weights]
    warmed = Warmed(getattr(torch.optim, name)(groups, lr=1.0), steps=20)
    scheduler = torch.optim.lr_scheduler.LambdaLR(warmed, lambda t: min(t / 9, 1.0))

    def step() -> None:
        weights[0].grad = torch.ones(2, 2)
        warmed.step()
        scheduler.step()

    step()
    with pytest.warns(UserWarning, match="let only one of them") as warned:
        step()
    assert len(warned) == 1
    assert warned[0].filename == __file__
    for _ in range(20):
        step()


@pytest.mark.xdist_group("transformers")
def test_a_schedule_of_transformers_is_warned_of() -> None:
    from transformers import get_cosine_schedule_with_warmup

    weight = param()
    warmed = Warmed(torch.optim.AdamW([weight], lr=1.0), steps=5)
    scheduler = get_cosine_schedule_with_warmup(warmed, 5, 20)
    used = []

    def train() -> None:
        for _ in range(6):
            weight.grad = torch.ones_like(weight)
            warmed.step()
            used.extend(warmed.get_last_lr())
            scheduler.step()

    with pytest.warns(UserWarning, match="below the initial_lr 1") as warned:
        train()
    assert len(warned) == 1
    assert used == pytest.approx([0.0, 0.04, 0.16, 0.36, 0.64, 1.0])


@pytest.mark.parametrize(
    ("make", "sign"),
    [
        (
            lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
                optimizer, 1.0, total_steps=9
            ),
            "LR 0.04, below the max_lr 1 that",
        ),
        (
            lambda optimizer: torch.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 1.0),
            "LR 0.1, from where a CyclicLR raises it",
        ),
    ],
)
def test_a_cyclic_schedule_is_warned_of_once(make, sign: str) -> None:
    weight = param()
    warmed = Warmed(torch.optim.SGD([weight], lr=1.0, momentum=0.9), steps=4)
    scheduler = make(warmed)

    def train() -> None:
        for _ in range(5):
            weight.grad = torch.ones_like(weight)
            warmed.step()
            scheduler.step()

    with pytest.warns(UserWarning, match=sign) as warned:
        train()
    assert len(warned) == 1


@pytest.mark.parametrize("case", ["frozen", "frozen first", "thawed", "loaded"])
def test_groups_that_begin_in_a_run_that_goes_on_are_not_warned_of(case: str) -> None:
    """Plain SGD has no state to show an old run; a decayed LR is no second warmup."""
    first, second = param(), param()
    second.requires_grad_(False)
    groups = [{"params": [first]}, {"params": [second], "warmup_steps": 5}]
    if case == "frozen first":
        groups.reverse()
    bare = torch.optim.SGD(groups, lr=1.0)
    warmed = Warmed(bare, steps=4)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(bare, 0.8)
    if case == "loaded":
        other = torch.optim.SGD([{"params": [param()]}, {"params": [param()]}], lr=0.5)
        for group in other.param_groups:
            group["initial_lr"] = 1.0
        with pytest.warns(UserWarning, match="without warmup"):
            warmed.load_state_dict(other.state_dict())
    for update in range(10):
        second.requires_grad_(case == "thawed" and update > 4)
        warmed.step()
        scheduler.step()


def test_a_run_that_goes_on_at_a_low_lr_is_not_warned_of() -> None:
    weight = param()
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        scheduler.step()
    warmed = Warmed(optimizer, steps=4)
    warmed.step()
    warmed.rewarm()
    warmed.step()
    assert warmed.factors == [0.5]


def test_a_rewarm_at_a_low_lr_is_not_warned_of() -> None:
    """Not even with SGD, which has no state that shows an older run."""
    weight = param()
    warmed = Warmed(torch.optim.SGD([weight], lr=1.0), steps=4)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(warmed, 0.5)
    warmed.step()
    scheduler.step()
    warmed.rewarm()
    warmed.step()
    assert warmed.factors == [0.5]


def test_accelerate_takes_steps_that_do_not_update() -> None:
    """Two of four steps move the weights; a warmup around it would count all four."""
    from accelerate import Accelerator  # slow to import

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    prepared = accelerator.prepare(torch.optim.SGD([weight := param()], lr=1.0))
    weight.grad = torch.ones_like(weight)
    moved = []
    for _ in range(4):
        before = weight.detach().clone()
        with accelerator.accumulate():
            prepared.step()
        moved.append(not torch.equal(before, weight))
    assert moved == [False, True, False, True]
    with pytest.raises(ValueError, match="must not be wrapped") as refused:
        Warmed(prepared, steps=10)
    assert str(refused.value) == (
        "AcceleratedOptimizer must not be wrapped: it takes calls of step() that only "
        "accumulate gradients, which would be counted. Wrap before accelerate does: "
        "accelerator.prepare(Warmed(optimizer, ...))."
    )


@pytest.mark.xdist_group("lightning")
def test_fabric_hides_which_updates_are_skipped() -> None:
    """So a warmup around it would count an update that did not move the weights."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    half = MixedPrecision("16-mixed", "cpu", scaler)
    fabric = Fabric(accelerator="cpu", plugins=[half])
    weight = param()
    outer, inner = torch.optim.SGD([weight], lr=1.0), torch.optim.SGD([weight], lr=1.0)
    with pytest.warns(UserWarning, match="FabricSGD hides which") as warned:
        outer = Warmed(fabric.setup_optimizers(outer), steps=4)
    assert str(warned[0].message) == (
        "FabricSGD hides which updates mixed precision skips, so that they are counted. "
        "Wrap before Lightning does: in configure_optimizers, or before fabric.setup."
    )
    inner = fabric.setup_optimizers(Warmed(inner, steps=4))
    for optimizer in (outer, inner):
        fabric.backward(weight.sum() * torch.inf)
        optimizer.step()
    assert torch.equal(weight, torch.ones(2, 2))
    assert (outer.factors, inner.factors) == ([0.5], [0.25])


def test_a_copied_lookahead_poisons_its_class() -> None:
    """An upstream bug: deepcopy of one Lookahead breaks the step of all others."""
    code = (
        "import copy, torch, torch_optimizer as t\n"
        "def new(): return t.Lookahead(torch.optim.SGD([torch.zeros(1)], lr=0.1))\n"
        "new().step(); copy.deepcopy(new())\n"
        "try: new().step()\n"
        "except AttributeError as error: print(error)\n"
    )
    printed = run_python(code, "-W", "ignore")
    assert "no attribute '_optimizer_step_pre_hooks'" in printed
