"""What somebody sees, or breaks off, in the middle of a step.

A handler of a signal may save the optimizer at any line, and Ctrl-C may come at any
line. A saved state has the base LR, and a count that fits it. After Ctrl-C the LR is
the base again, and the next step is scaled as it should be.
"""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import state_dict as dcp
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from tests.support.lines import at_each_line, interrupted_at
from warmopt import Adaptive, Warmed

STEPS = 20
LRS = (1.0, 2.0, 3.0)  # of the groups


@pytest.fixture(autouse=True)
def _grad_mode() -> Iterator[None]:
    """An interrupt in a line of torch may leave the gradients off."""
    yield
    torch.set_grad_enabled(True)


def two_params() -> list[Parameter]:
    params = [Parameter(torch.ones(2)) for _ in LRS]
    for param in params:
        param.grad = torch.ones(2)
    return params


class WritesLr(SGD):
    """Halves its own LRs in each step, in effective units."""

    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            group["lr"] = group["lr"] * 0.5


class Kind:
    """A way in which steps are run.

    Attributes:
        before: Updates that are done before the step that is looked at.
    """

    def __init__(
        self,
        cls: type[Optimizer] = SGD,
        lrs: tuple[Any, ...] = LRS,
        before: int = 3,
        hooked: bool = False,
        closure: bool = False,
        **options: Any,
    ) -> None:
        self.cls, self.lrs, self.before = cls, lrs, before
        self.hooked, self.closure, self.options = hooked, closure, options

    def build(self) -> Warmed:
        # An LR that groups share is one object.
        groups = [
            {"params": [param], "lr": lr}
            for param, lr in zip(two_params(), self.lrs, strict=False)
        ]
        momentum = {"momentum": 0.9} if issubclass(self.cls, SGD) else {}
        warmed = Warmed(self.cls(groups, **momentum), STEPS, **self.options)
        if self.hooked:
            warmed.register_step_pre_hook(lambda *_: None)
            warmed.register_step_post_hook(lambda *_: None)
        for _ in range(self.before):
            self.step(warmed)
        return warmed

    def step(self, warmed: Warmed) -> None:
        if self.closure:
            warmed.step(lambda: 1.0)
        else:
            warmed.step()


SHARED = 1.0
KINDS = {
    "one-group": Kind(lrs=(1.0,)),
    "own-lrs": Kind(),
    "one-lr": Kind(lrs=(SHARED, SHARED, SHARED)),
    "one-lr-but-one": Kind(lrs=(SHARED, 2.0, SHARED)),
    "first-step": Kind(before=0),
    "last-step": Kind(before=STEPS - 1),
    "done": Kind(before=STEPS),
    "hooks": Kind(hooked=True),
    "hooks-last-step": Kind(hooked=True, before=STEPS - 1),
    "closure": Kind(closure=True),
    "hooks-and-closure": Kind(hooked=True, closure=True),
    "momentum": Kind(momentum_start=0.5),
    "tensor-lr": Kind(AdamW, tuple(map(torch.tensor, LRS)), before=2),
    "tensor-lr-hooks": Kind(AdamW, (torch.tensor(0.5),), hooked=True),
    "adaptive": Kind(AdamW, before=4, mode=Adaptive(every=5)),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


def groups_of(state: Any) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = state["param_groups"]
    return groups


LOOKS: dict[str, Callable[[Warmed], list[dict[str, Any]]]] = {
    "state_dict": lambda warmed: groups_of(warmed.state_dict()),
    "state_dict of the wrapped": lambda warmed: groups_of(warmed.wrapped.state_dict()),
    "pickle": lambda warmed: pickle.loads(pickle.dumps(warmed)).param_groups,
    "deepcopy": lambda warmed: copy.deepcopy(warmed).param_groups,
}


SLOW = ("one-group", "own-lrs", "momentum", "tensor-lr", "hooks")  # pickle is slow


@pytest.mark.parametrize(
    ("look", "kind"),
    [
        pytest.param(look, kind, id=f"{how}-{name}")
        for how, look in LOOKS.items()
        for name, kind in KINDS.items()
        if how.startswith("state_dict") or name in SLOW
    ],
)
def test_what_is_saved_at_any_line_is_from_between_two_steps(
    look: Callable[[Warmed], list[dict[str, Any]]], kind: Kind
) -> None:
    warmed = kind.build()
    counts: list[list[int]] = []
    bases = [float(lr) for lr in kind.lrs]
    momenta = [group.get("momentum") for group in warmed.param_groups]

    def see() -> None:
        saved = look(warmed)
        assert [float(group["lr"]) for group in saved] == bases
        assert [group.get("momentum") for group in saved] == momenta
        counts.append([int(group["warmup_updates"]) for group in saved])

    assert at_each_line(lambda: kind.step(warmed), see) > 10
    see()
    first, last = min(kind.before, STEPS), min(kind.before + 1, STEPS)
    assert counts[0] == [first] * len(bases)
    assert counts[-1] == [last] * len(bases)
    if not isinstance(kind.lrs[0], torch.Tensor):  # those are counted one by one
        whole = [[first] * len(bases), [last] * len(bases)]
        assert all(each in whole for each in counts)
    assert counts == sorted(counts)


def test_what_an_optimizer_saves_itself_goes_on_as_if_it_had_been_saved_before() -> (
    None
):
    saved: list[Any] = []

    class Saving(SGD):
        def step(self, closure: Any = None) -> None:
            saved.append(copy.deepcopy(self.state_dict()))
            super().step()

    def build(cls: type[SGD]) -> Warmed:
        groups = [{"params": [param]} for param in two_params()]
        return Warmed(cls(groups, lr=1.0, momentum=0.9), STEPS, momentum_start=0.5)

    warmed = build(Saving)
    for update in range(STEPS + 2):
        before = copy.deepcopy(warmed.state_dict())
        warmed.step()
        assert groups_of(saved[-1]) == groups_of(before)
        resumed = build(SGD)
        resumed.load_state_dict(saved[-1])
        assert resumed.factors == [min(1.0, (update + 1) / STEPS)] * len(LRS)


def test_a_distributed_checkpoint_in_a_step_has_the_base_lr() -> None:
    model = torch.nn.Linear(2, 1)
    seen = []

    class Saving(AdamW):
        def step(self, closure: Any = None) -> None:
            super().step()
            for flatten in (False, True):
                options = dcp.StateDictOptions(flatten_optimizer_state_dict=flatten)
                seen.append(
                    dcp.get_optimizer_state_dict(model, warmed, options=options)
                )

    warmed = Warmed(Saving(model.parameters(), lr=1.0), steps=STEPS)
    for _ in range(2):
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        warmed.step()
    for plain, flat in (seen[:2], seen[2:]):
        assert plain["param_groups"][0]["lr"] == 1.0
        assert flat["param_groups.weight.lr"] == 1.0
    assert [each["param_groups.weight.warmup_updates"] for each in seen[1::2]] == [0, 1]


def test_what_an_optimizer_has_written_is_saved_in_units_of_the_base() -> None:
    warmed = Kind(WritesLr, before=1).build()
    seen: list[list[float]] = []

    def see() -> None:  # rounded, since a product is divided again
        seen.append([round(g["lr"], 9) for g in groups_of(warmed.state_dict())])

    at_each_line(warmed.step, see)
    see()
    expected = [
        [0.5 * lr * 0.5**done for lr, done in zip(LRS, each, strict=True)]
        for each in ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1))
    ]
    assert [each for each in expected if each in seen] == expected
    assert all(each in expected for each in seen)


@pytest.mark.parametrize("kind", ["one-group", "own-lrs", "one-lr", "momentum"])
def test_what_another_thread_saves_is_from_between_two_steps(kind: str) -> None:
    # It wakes up between any two bytecodes, hundreds of times in a run.
    def run() -> list[Any]:
        warmed, seen, is_over = KINDS[kind].build(), [], threading.Event()

        def save() -> None:
            while not is_over.is_set():
                state = warmed.wrapped.state_dict()
                seen.append(
                    [
                        [g["lr"], g["momentum"], g["warmup_updates"]]
                        for g in state["param_groups"]
                    ]
                )

        thread = threading.Thread(target=save)
        thread.start()
        for _ in range(300):
            warmed.rewarm()
            for _ in range(5):
                warmed.step()
        is_over.set()
        thread.join()
        return seen

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        seen = run()
    finally:
        sys.setswitchinterval(interval)
    assert len(seen) > 100
    for groups in seen:
        assert [lr for lr, *_ in groups] == list(KINDS[kind].lrs)
        assert {momentum for _, momentum, _ in groups} == {0.9}


# --- Ctrl-C --------------------------------------------------------------------------


def hooks_of(warmed: Warmed) -> list[int]:
    """How many hooks it has, but for the one that waits for the first step."""
    names = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    each = [getattr(warmed.wrapped, name).values() for name in names]
    return [sum("before_step" not in hook.__name__ for hook in hooks) for hooks in each]


def used_next(warmed: Warmed) -> list[float]:
    """The LR of each group in the next step."""
    used: list[list[float]] = []
    step = warmed.wrapped.step

    def noting(*args: Any) -> Any:
        used.append([float(group["lr"]) for group in warmed.param_groups])
        return step(*args)

    noting.hooked = False  # type: ignore[attr-defined]
    warmed.wrapped.step = noting  # type: ignore[method-assign]
    for handle in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        getattr(warmed.wrapped, handle).clear()
    warmed.step()
    return used[0]


@kinds
def test_an_interrupt_at_any_line_leaves_base_and_count(kind: Kind) -> None:
    bases = [float(lr) for lr in kind.lrs]
    line = 0
    while True:
        warmed = kind.build()
        hooks = hooks_of(warmed)
        momenta = [group.get("momentum") for group in warmed.param_groups]
        was_interrupted = interrupted_at(lambda: kind.step(warmed), line)  # noqa: B023
        groups = warmed.param_groups
        assert [float(group["lr"]) for group in groups] == bases, line
        assert [group.get("momentum") for group in groups] == momenta, line
        counts = [int(group["warmup_updates"]) for group in groups]
        first, last = kind.before, min(kind.before + 1, STEPS)
        if isinstance(kind.lrs[0], torch.Tensor):  # each counts for itself
            assert set(counts) <= {first, last}, line
        else:
            assert counts in ([first] * len(counts), [last] * len(counts)), line
        assert hooks_of(warmed) == hooks, line
        assert [group["lr"] for group in warmed.state_dict()["param_groups"]] == bases
        assert used_next(warmed) == pytest.approx(
            [
                min(1.0, (n + 1) / STEPS) * lr
                for n, lr in zip(counts, bases, strict=True)
            ]
        ), line
        if not was_interrupted:
            break
        line += 1
    assert line > 10


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("number", [1, 3])
def test_an_interrupt_does_not_divide_twice_what_an_optimizer_has_written(
    number: int, shared: bool
) -> None:
    lrs = ((SHARED,) * 3 if shared else LRS)[:number]
    kind = Kind(WritesLr, lrs=lrs, before=2)
    line, seen = 0, set()
    while True:
        warmed = kind.build()
        bases = [group["lr"] for group in warmed.param_groups]
        was_interrupted = interrupted_at(warmed.step, line)
        ratios = [
            group["lr"] / base
            for group, base in zip(warmed.param_groups, bases, strict=True)
        ]
        ratios = [round(ratio, 9) for ratio in ratios]  # a product is divided again
        assert set(ratios) <= {1.0, 0.5}, line
        seen.add(tuple(ratios))
        if not was_interrupted:
            break
        line += 1
    assert {(1.0,) * number, (0.5,) * number} <= seen
