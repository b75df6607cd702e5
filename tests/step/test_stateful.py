"""Random sequences of operations: `Warmed` must agree with a model of ten lines.

Hypothesis draws the sequences. The parameters are float64, start at 0 and have gradient
1 before every step of SGD. So the distance that they move is exactly the LR that was
used.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch.nn import Parameter
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from tests.support.optimizers import assert_same
from warmopt import Warmed

pytestmark = pytest.mark.usefixtures("with_and_without_the_plain_step")

GAMMA = 0.7
LRS = st.sampled_from([0.1, 0.3, 0.7, 1.7, 3.0, 0.0])
LENGTHS = st.integers(0, 5) | st.just(10)
WHICH = st.integers(0, 9)  # modulo how many groups there are


@dataclass(frozen=True)
class Group:
    """The model of a param group: a warmup without torch."""

    lr: float
    steps: int  # as the optimizer was built
    length: int  # of the ramp it is in now
    count: int = 0
    frozen: bool = False
    on_device: bool = False  # its count is a tensor
    asked: int = 0  # the length of the last rewarm that had one

    @property
    def factor(self) -> float:
        return min(1.0, (self.count + 1) / max(self.length, 1))

    @property
    def found_frozen(self) -> bool:
        """A count on the host is asked only where it is a multiple of 8."""
        return self.frozen and (self.on_device or self.count % 8 == 0)

    def stepped(self) -> Group:
        moves = self.lr and not self.found_frozen and self.count < self.length
        return replace(self, count=self.count + bool(moves))

    def rewarmed(self, steps: int | None) -> Group:
        length = (self.asked or self.steps) if steps is None else steps
        return replace(self, length=length, count=0, asked=steps or self.asked)


class Sequences(RuleBasedStateMachine):
    @initialize(
        steps=st.integers(1, 6),
        lr=LRS,
        tensor=st.booleans(),
        fused=st.booleans(),
        asks=st.sampled_from([False, False, True]),
        on_wrapped=st.booleans(),
    )
    def build(
        self,
        steps: int,
        lr: float,
        tensor: bool,
        fused: bool,
        asks: bool,
        on_wrapped: bool,
    ) -> None:
        self.steps, self.tensor, self.fused, self.asks = steps, tensor, fused, asks
        self.model = [Group(lr, steps, steps, on_device=tensor)]
        self.was_done = False
        self.warmed = self.wrap([{"params": [self.param()], "lr": self.real(lr)}])
        self.schedule(on_wrapped)
        self.save(on_wrapped)

    def param(self) -> Parameter:
        return Parameter(torch.zeros(1, dtype=torch.float64))

    def real(self, lr: float) -> Any:
        """The LR in the form that the optimizer gets."""
        return torch.tensor(lr, dtype=torch.float64) if self.tensor else lr

    def wrap(self, groups: list[dict[str, Any]]) -> Warmed:
        return Warmed(SGD(groups, lr=1.0, fused=self.fused), steps=self.steps)

    def moves(self) -> list[float]:
        """How far the parameter of each group has moved."""
        return [-group["params"][0].item() for group in self.warmed.param_groups]

    def reset(self, gradient: float = 1.0) -> None:
        for group in self.warmed.param_groups:
            (param,) = group["params"]
            param.data.zero_()
            param.grad = (
                torch.full_like(param, gradient) if param.requires_grad else None
            )

    # --- steps --------------------------------------------------------------------

    @rule(times=st.integers(1, 4), hooked=st.booleans())
    def step(self, times: int, hooked: bool = False) -> None:
        register = (
            self.warmed.register_step_pre_hook,
            self.warmed.register_step_post_hook,
        )
        handles = [each(self.look) for each in register if hooked]
        for _ in range(times):
            self.moves_as_the_model_says(self.warmed.step)
        for handle in handles:
            handle.remove()

    @rule(times=st.integers(1, 4))
    def step_with_closure(self, times: int) -> None:
        for _ in range(times):
            self.moves_as_the_model_says(lambda: self.warmed.step(self.look))

    @precondition(lambda self: not all(group.frozen for group in self.model))
    @rule(times=st.integers(1, 4))
    def step_by_scaler(self, times: int) -> None:
        for _ in range(times):
            self.moves_as_the_model_says(self.scaler_steps)

    def moves_as_the_model_says(self, step: Callable[[], Any]) -> None:
        self.reset()
        step()
        used = [group.lr * group.factor for group in self.model]
        assert [float(lr) for lr in self.warmed.get_last_lr()] == used
        assert self.moves() == [
            0.0 if group.frozen else lr
            for group, lr in zip(self.model, used, strict=True)
        ]
        self.model = [group.stepped() for group in self.model]

    def look(self, *_: Any) -> None:
        """Called as a closure or a hook, like code of a user."""
        self.the_lr_is_that_of_the_user()

    def lrs(self) -> list[float]:
        return [float(group["lr"]) for group in self.warmed.param_groups]

    def scaler_steps(self) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        scaler.scale(torch.ones(()))
        scaler.step(self.warmed)
        scaler.update()

    @precondition(lambda self: not all(group.frozen for group in self.model))
    @rule()
    def skipped_step(self) -> None:
        self.reset(gradient=torch.inf)
        self.scaler_steps()
        assert not any(self.moves())

    @rule(where=st.sampled_from(["closure", "hook", "step"]), which=WHICH)
    def failing_step(self, where: str, which: int) -> None:
        self.reset()
        before = copy.deepcopy(self.warmed.state_dict())
        group = self.warmed.param_groups[which % len(self.model)]
        nesterov = group.pop("nesterov") if where == "step" else False
        if where == "hook":
            handle = self.warmed.register_step_pre_hook(self.fail)
        else:
            handle = self.warmed.register_step_post_hook(self.look)
        with pytest.raises((ZeroDivisionError, KeyError)):
            self.warmed.step(self.fail if where == "closure" else None)
        handle.remove()
        group["nesterov"] = nesterov
        assert_same(before, self.warmed.state_dict())

    def fail(self, *_: Any) -> None:
        raise ZeroDivisionError

    # --- what users and frameworks do between steps ---------------------------------

    @rule()
    def scheduler_step(self) -> None:
        self.scheduler.step()
        self.model = [replace(group, lr=group.lr * GAMMA) for group in self.model]

    def schedule(self, on_wrapped: bool) -> None:
        target = self.warmed.wrapped if on_wrapped else self.warmed
        self.scheduler = ExponentialLR(target, GAMMA)

    @rule(which=WHICH, lr=LRS)
    def edit(self, which: int, lr: float) -> None:
        which %= len(self.model)
        self.warmed.param_groups[which]["lr"] = self.real(lr)
        self.model[which] = replace(self.model[which], lr=lr)

    @rule(which=WHICH, frozen=st.booleans())
    def freeze(self, which: int, frozen: bool) -> None:
        which %= len(self.model)
        (param,) = self.warmed.param_groups[which]["params"]
        param.requires_grad_(not frozen)
        self.model[which] = replace(self.model[which], frozen=frozen)

    @precondition(lambda self: len(self.model) < 4)
    @rule(lr=LRS, steps=LENGTHS, on_wrapped=st.booleans())
    def add_group(self, lr: float, steps: int, on_wrapped: bool) -> None:
        group = {"params": [self.param()], "lr": self.real(lr), "warmup_steps": steps}
        target = self.warmed.wrapped if on_wrapped else self.warmed
        target.add_param_group(group)
        self.model.append(Group(lr, steps, steps, on_device=self.tensor))
        self.was_done = False
        self.step(times=1)  # before anyone asks

    @rule(which=st.none() | WHICH, steps=st.none() | LENGTHS)
    def rewarm(self, which: int | None, steps: int | None) -> None:
        groups = range(len(self.model)) if which is None else [which % len(self.model)]
        self.warmed.rewarm(steps, None if which is None else list(groups))
        for index in groups:
            self.model[index] = self.model[index].rewarmed(steps)
        self.was_done = False
        self.step(times=1)

    # --- saved, loaded, copied -------------------------------------------------------

    @rule(from_wrapped=st.booleans())
    def save(self, from_wrapped: bool) -> None:
        source: Optimizer = self.warmed.wrapped if from_wrapped else self.warmed
        torch.save(source.state_dict(), file := io.BytesIO())
        self.saved = file.getvalue(), list(self.model)

    @rule(afresh=st.booleans(), into_wrapped=st.booleans())
    def load(self, afresh: bool, into_wrapped: bool) -> None:
        file, model = self.saved
        params = [group["params"] for group in self.warmed.param_groups]
        if afresh or len(model) != len(self.model):
            params = params[: len(model)] + [
                [self.param()] for _ in range(len(model) - len(params))
            ]
            self.warmed = self.wrap([{"params": each} for each in params])
        target = self.warmed.wrapped if into_wrapped else self.warmed
        target.load_state_dict(torch.load(io.BytesIO(file), weights_only=True))
        self.model = [
            replace(group, frozen=not param.requires_grad)  # not in the file
            for group, (param,) in zip(model, params, strict=True)
        ]
        self.was_done = False
        self.schedule(into_wrapped)
        self.step(times=1)

    @rule(lr=LRS)
    def load_of_a_bare_optimizer(self, lr: float) -> None:
        groups = [
            {"params": group["params"], "lr": self.real(lr)}
            for group in self.warmed.param_groups
        ]
        self.warmed.load_state_dict(SGD(groups, fused=self.fused).state_dict())
        self.model = [replace(group, lr=lr) for group in self.model]

    @rule(how=st.sampled_from([copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]))
    def replace_by_a_copy(self, how: Any) -> None:
        old, before = self.warmed, copy.deepcopy(self.warmed.state_dict())
        self.warmed, self.scheduler = how((old, self.scheduler))
        self.step(times=1)
        assert_same(before, old.state_dict())

    # --- what always holds ------------------------------------------------------------

    @invariant()
    def the_lr_is_that_of_the_user(self) -> None:
        assert self.lrs() == [group.lr for group in self.model]
        kinds = [type(group["lr"]) for group in self.warmed.param_groups]
        assert set(kinds) == {torch.Tensor if self.tensor else float}

    def ask(self) -> None:
        assert self.warmed.factors == [group.factor for group in self.model]
        done = all(group.count >= group.length for group in self.model)
        assert self.warmed.done == done
        assert done or not self.was_done
        self.was_done = done
        assert [int(group["warmup_updates"]) for group in self.warmed.param_groups] == [
            group.count for group in self.model
        ]

    @invariant()
    def its_answers_are_right(self) -> None:
        if self.asks:  # only in some runs: to ask could hide a bug
            self.ask()

    def teardown(self) -> None:
        self.ask()


@pytest.mark.filterwarnings("ignore::UserWarning")  # about their random order
@pytest.mark.parametrize("runs", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_any_sequence_of_operations_keeps_the_invariants(runs: int) -> None:
    run_state_machine_as_test(
        Sequences,
        settings=settings(
            max_examples=runs, stateful_step_count=30, report_multiple_bugs=False
        ),
    )


@pytest.mark.filterwarnings("ignore:The loaded state is of an optimizer without warmup")
@pytest.mark.parametrize(("act", "factor"), [("rewarm", 0.25), ("load_bare", 0.5)])
def test_what_follows_a_step_by_a_scaler_finds_it_counted(
    act: str, factor: float
) -> None:
    """A fused optimizer is counted late, once we know that the step was not skipped."""
    param = Parameter(torch.zeros(1))
    bare = SGD([param], lr=1.0)
    warmed = Warmed(SGD([param], lr=1.0, fused=True), steps=4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.ones(()))
    param.grad = torch.ones(1)
    scaler.step(warmed)
    if act == "rewarm":
        warmed.rewarm()
    else:
        warmed.load_state_dict(bare.state_dict())
    assert warmed.factors == [factor]
