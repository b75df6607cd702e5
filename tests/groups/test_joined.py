"""`Joined`: several optimizers that are stepped, saved and scheduled as one."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import state_dict as dcp
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer, RAdam
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR

from tests.support.features import Muon, needs_muon
from tests.support.reference import effective, lrs, stepped_at, watch
from warmopt import Joined, Warmed
from warmopt.joined import parts_of

STEPS = 4
INPUTS = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(1))


def new_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def build(net: nn.Module, second: Any = AdamW, **options: Any) -> list[Optimizer]:
    matrices = [param for param in net.parameters() if param.ndim == 2]
    others = [param for param in net.parameters() if param.ndim < 2]
    first: Any = SGD(matrices, lr=0.25, momentum=0.5)
    return [first, second(others, lr=0.5, **options)]


def backward(net: nn.Module, update: int) -> None:
    net.zero_grad()
    net(INPUTS[update % len(INPUTS)]).square().mean().backward()


def train(net: nn.Module, optimizer: Optimizer, updates: range) -> None:
    for update in updates:
        backward(net, update)
        optimizer.step()


def by_hand(net: nn.Module, optimizers: list[Optimizer], updates: range) -> None:
    for update in updates:
        backward(net, update)
        for each in optimizers:
            factors = [min((update + 1) / STEPS, 1.0)] * len(each.param_groups)
            stepped_at(each, factors, each.step)


def assert_same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0.0, atol=0.0)


# --- the step -------------------------------------------------------------------------


def test_a_list_warms_as_each_by_hand() -> None:
    net, twin = new_net(), new_net()
    warmed = Warmed(build(net), steps=STEPS)
    train(net, warmed, range(6))
    by_hand(twin, build(twin), range(6))
    assert_same(net, twin)
    assert warmed.done


@needs_muon
def test_muon_for_matrices_and_adamw_for_the_rest() -> None:
    def pair(net: nn.Module) -> list[Optimizer]:
        matrices = [param for param in net.parameters() if param.ndim == 2]
        return [Muon(matrices, lr=0.25), build(net)[1]]

    net, twin = new_net(), new_net()
    train(net, Warmed(pair(net), STEPS), range(6))
    by_hand(twin, pair(twin), range(6))
    assert_same(net, twin)


def test_joined_without_a_warmup_steps_as_each_alone() -> None:
    net, twin = new_net(), new_net()
    joined, alone = Joined(build(net)), build(twin)
    train(net, joined, range(3))
    for update in range(3):
        backward(twin, update)
        for each in alone:
            each.step()
    assert_same(net, twin)
    joined.zero_grad()
    assert all(param.grad is None for param in net.parameters())


def test_a_closure_is_called_once_at_the_base_lr() -> None:
    net = new_net()
    warmed = Warmed(build(net), steps=STEPS)
    seen = []

    def closure() -> torch.Tensor:
        seen.append((lrs(warmed), torch.is_grad_enabled()))
        backward(net, 0)
        return torch.tensor(3.0)

    before = copy.deepcopy(net.state_dict())
    assert warmed.step(closure) == 3.0
    assert seen == [([0.25, 0.5], True)]
    assert any((before[key] != value).all() for key, value in net.state_dict().items())


def test_hooks_on_it_see_the_base_lr_and_run_once() -> None:
    net = new_net()
    warmed = Warmed(build(net), steps=STEPS)
    seen: list[list[float]] = []
    warmed.register_step_pre_hook(lambda *_: seen.append(lrs(warmed)))
    warmed.register_step_post_hook(lambda *_: seen.append(lrs(warmed)))
    train(net, warmed, range(1))
    assert seen == [[0.25, 0.5]] * 2


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler_skips_the_step_of_all(fused: bool) -> None:
    net, twin = new_net(), new_net()
    options = {"fused": True} if fused else {}
    warmed, scaler = Warmed(build(net, **options), STEPS), torch.amp.GradScaler("cpu")
    for update, is_infinite in enumerate([False, True, False]):
        net.zero_grad()
        loss = net(INPUTS[update]).square().mean()
        scaler.scale(loss).backward()
        if is_infinite:  # of the second optimizer alone
            net[0].bias.grad[0] = torch.inf
        before = copy.deepcopy(net.state_dict())
        scaler.step(warmed)
        scaler.update()
        if is_infinite:
            assert all(map(torch.equal, before.values(), net.state_dict().values()))
    assert warmed.factors == [0.75, 0.75]
    alone = build(twin, **options)
    for update, factor in ((0, 0.25), (2, 0.5)):
        backward(twin, update)
        for each in alone:
            stepped_at(each, [factor], each.step)
    assert_same(net, twin)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_compiled_step_warms() -> None:
    net, twin = new_net(), new_net()
    warmed = Warmed(build(net, SGD), steps=STEPS)  # a compiled AdamW rounds otherwise
    step = torch.compile(warmed.step, backend="eager")
    for update in range(6):
        backward(net, update)
        step()
    by_hand(twin, build(twin, SGD), range(6))
    assert_same(net, twin)


# --- groups and schedulers ------------------------------------------------------------


def test_its_groups_and_its_state_are_those_of_the_parts() -> None:
    net = new_net()
    first, second = parts = build(net)
    joined = Joined(parts)
    train(net, joined, range(1))
    assert joined.param_groups[0] is first.param_groups[0]
    assert joined.param_groups[1] is second.param_groups[0]
    state = joined.state
    assert list(state) == [*first.state, *second.state]
    assert len(state) == 4
    weight, bias = net[0].weight, net[0].bias
    assert state[bias] is second.state[bias]
    state[bias] = {"step": 0}
    assert second.state[bias] == {"step": 0}
    assert bias not in first.state
    del state[weight]
    assert weight not in first.state
    assert state.get(weight) is None
    state[weight] = {"new": 1}
    assert first.state[weight] == {"new": 1}
    stranger = nn.Parameter(torch.zeros(1))
    for act in (
        lambda: state[stranger],
        lambda: state.__setitem__(stranger, {}),
        lambda: state.__delitem__(stranger),
    ):
        with pytest.raises(KeyError):
            act()
    joined.param_groups = [{**group, "lr": 7.0} for group in joined.param_groups]
    assert (lrs(first), lrs(second)) == ([7.0], [7.0])


@pytest.mark.parametrize("on", ["warmed", "joined", "part"])
def test_a_scheduler_on_any_of_them(on: str) -> None:
    net = new_net()
    parts = build(net)
    warmed = Warmed(parts, steps=STEPS)
    target = {"warmed": warmed, "joined": warmed.wrapped, "part": parts[1]}[on]
    scheduler = ExponentialLR(target, 0.5)
    used = watch(parts[1], lambda part: lrs(part)[0])
    for update in range(4):
        train(net, warmed, range(update, update + 1))
        scheduler.step()
    assert used == [0.5 * 0.5**t * (t + 1) / STEPS for t in range(4)]
    assert lrs(parts[0]) == [0.25 if on == "part" else 0.25 / 16]


def test_only_options_that_all_have_are_its_defaults() -> None:
    """So that nobody looks for the betas of one in the groups of another."""
    parts = build(new_net())
    defaults = Joined(parts).defaults
    assert "betas" not in defaults
    assert "momentum" not in defaults
    assert defaults["weight_decay"] == parts[0].defaults["weight_decay"]
    with pytest.raises(ValueError, match="momentum"):
        OneCycleLR(Joined(parts), max_lr=1.0, total_steps=9)
    OneCycleLR(Joined(parts), max_lr=1.0, total_steps=9, cycle_momentum=False)


def test_a_group_has_a_length_of_its_own_and_one_added_to_a_part_warms() -> None:
    net = new_net()
    parts = build(net)
    parts[1].param_groups[0]["warmup_steps"] = 2
    warmed = Warmed(parts, steps=STEPS)
    assert warmed.factors == [0.25, 0.5]
    train(net, warmed, range(2))
    late = {"params": [nn.Parameter(torch.zeros(1))]}
    with pytest.raises(ValueError, match="must be added to one of the optimizers"):
        warmed.add_param_group({**late, "lr": 1.0})
    parts[0].add_param_group(late)
    assert warmed.factors == [0.75, 0.25, 1.0]


def test_an_untuned_mode_asks_the_part_of_each_group() -> None:
    net = new_net()
    matrices, others = (build(net)[i].param_groups[0]["params"] for i in (0, 1))
    parts = [Adam(matrices, betas=(0.9, 0.75)), torch.optim.RMSprop(others, alpha=0.5)]
    warmed = Warmed(parts, mode="untuned_linear")
    assert warmed.factors == [1 / 8, 1 / 4]
    with pytest.raises(ValueError, match="SGD has no beta2"):
        Warmed(build(net), mode="untuned_linear")


# --- saving and loading ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["warmed", "joined", "each", "pickle", "copy"])
def test_a_run_resumed_in_mid_warmup_goes_on_bit_equal(
    how: str, tmp_path: Path
) -> None:
    whole, net = new_net(), new_net()
    train(whole, Warmed(build(whole), STEPS), range(6))
    first = Warmed(build(net), STEPS)
    train(net, first, range(2))
    if how in ("pickle", "copy"):
        pair = net, first
        again = pickle.loads(pickle.dumps(pair)) if how == "pickle" else None
        net, second = again or copy.deepcopy(pair)
    else:
        second = Warmed(build(net), STEPS)
        pairs: Any = [(first, second)]
        if how == "joined":
            pairs = [(first.wrapped, second.wrapped)]
        elif how == "each":
            parts = parts_of(first.wrapped), parts_of(second.wrapped)
            pairs = zip(*parts, strict=True)
        for old, new in pairs:
            torch.save(old.state_dict(), tmp_path / "saved")
            new.load_state_dict(torch.load(tmp_path / "saved", weights_only=True))
    assert second.factors == [0.75, 0.75]
    train(net, second, range(2, 6))
    assert_same(whole, net)


def test_a_distributed_checkpoint_resumes() -> None:
    whole, net = new_net(), new_net()
    train(whole, Warmed(build(whole), STEPS), range(6))
    first = Warmed(build(net), STEPS)
    train(net, first, range(2))
    saved = dcp.get_optimizer_state_dict(net, first)
    assert saved["param_groups"][1]["params"] == ["0.bias", "1.bias"]
    net.zero_grad()  # older torches ask for it
    second = Warmed(build(net), STEPS)
    dcp.set_optimizer_state_dict(net, second, saved)
    train(net, second, range(2, 6))
    assert_same(whole, net)


def test_the_state_dict_numbers_the_parameters_on() -> None:
    net = new_net()
    joined = Joined(build(net))
    train(net, joined, range(1))
    saved = joined.state_dict()
    assert list(saved) == ["state", "param_groups"]
    assert [group["params"] for group in saved["param_groups"]] == [[0, 1], [2, 3]]
    assert list(saved["state"]) == [0, 1, 2, 3]
    assert "exp_avg" in saved["state"][2]


def test_what_belongs_to_no_parameter_is_kept_for_its_optimizer() -> None:
    class Counting(SGD):
        calls = 0

        def state_dict(self) -> dict[str, Any]:
            saved = super().state_dict()
            return {**saved, "calls": self.calls}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.calls = state_dict["calls"]
            super().load_state_dict(state_dict)

    def pair() -> list[Any]:
        parts = [Counting([nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
        for number, part in enumerate(parts):
            part.calls = number + 5
            part.state["k"] = number + 7
        return parts

    saved = Joined(pair()).state_dict()
    fresh = [Counting([nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    Joined(fresh).load_state_dict(saved)
    assert [(part.calls, part.state["k"]) for part in fresh] == [(5, 7), (6, 8)]


def test_hooks_on_saving_and_loading_run() -> None:
    joined = Joined(build(new_net()))
    calls: list[str] = []
    joined.register_state_dict_pre_hook(lambda _: calls.append("before save"))
    joined.register_state_dict_post_hook(lambda _, saved: {**saved, "mine": 1})
    joined.register_load_state_dict_pre_hook(
        lambda _, saved: {k: v for k, v in saved.items() if k != "mine"}
    )
    joined.register_load_state_dict_post_hook(lambda _: calls.append("loaded"))
    saved = joined.state_dict()
    assert saved["mine"] == 1
    joined.load_state_dict(saved)
    assert calls == ["before save", "loaded"]


def test_a_state_of_another_shape_is_refused_and_nothing_is_loaded() -> None:
    net = new_net()
    warmed = Warmed(build(net), STEPS)
    saved = copy.deepcopy(warmed.state_dict())
    saved["param_groups"][0]["lr"] = 9.0
    saved["param_groups"][1]["params"].pop()
    with pytest.raises(ValueError, match="param_groups") as refused:
        warmed.load_state_dict(saved)
    assert str(refused.value) == (
        "param_groups must hold [2, 2] parameters, as the optimizers do, got [2, 1]. "
        "Build the same optimizers as when they were saved."
    )
    assert lrs(warmed) == [0.25, 0.5]
    assert warmed.factors == [0.25, 0.25]


# --- what is refused ------------------------------------------------------------------


def test_what_cannot_be_joined_is_told() -> None:
    wrong: Any = Joined
    net = new_net()
    with pytest.raises(TypeError, match="must be a list of optimizers, got 3"):
        wrong(3)
    with pytest.raises(TypeError, match="must be a list of optimizers"):
        wrong([*net.parameters()])
    with pytest.raises(ValueError, match="must not be empty"):
        Joined([])
    with pytest.raises(ValueError, match=r"\(4, 3\) in optimizers 0 and 1"):
        Joined([SGD(net.parameters(), 0.1), Adam(net.parameters())])
    with pytest.raises(TypeError, match="optimizer must be"):
        Warmed([*net.parameters()], steps=4)  # type: ignore[list-item]


def test_parts_that_warm_already_or_that_a_warmup_harms_are_told() -> None:
    with pytest.raises(ValueError, match="holds one that is Warmed already"):
        Warmed([Warmed(build(new_net())[0], 4)], steps=4)
    assert effective(Warmed(build(new_net())[0], 4), 1) == [0.0625]
    with pytest.warns(UserWarning, match="RAdam rectifies") as told:
        Warmed(build(new_net(), RAdam), steps=4)
    assert len(told) == 1
    with warnings.catch_warnings():
        Warmed(build(new_net(), RAdam), steps=0)


def test_modes_that_read_the_state_are_refused() -> None:
    for options in ({"mode": "adaptive"}, {"mode": "aligned"}):
        parts = build(new_net())
        with pytest.raises(ValueError, match="must be a single one") as refused:
            Warmed(parts, 4, **options)
        assert str(refused.value).endswith("Use a fixed mode, or wrap each of them.")
        assert "warmup_updates" not in parts[0].param_groups[0]


def test_one_that_needs_a_closure_fails_as_it_does_alone() -> None:
    joined = Joined([LBFGS([nn.Parameter(torch.zeros(1))])])
    with pytest.raises(TypeError, match="closure"):
        joined.step()


def test_a_group_that_wants_the_name_of_our_key_keeps_it() -> None:
    class Own(SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=1.0)
            self.defaults["warmup_steps"] = 0
            for group in self.param_groups:
                group["warmup_steps"] = 0

    parts = [*build(new_net()), Own([nn.Parameter(torch.zeros(1))])]
    assert Warmed(parts, steps=4).factors == [0.25, 0.25, 0.25]


def test_it_says_what_it_joins() -> None:
    warmed = Warmed(build(new_net()), steps=4)
    assert type(warmed).__name__ == "Joined"
    assert repr(warmed.wrapped).startswith("Joined([SGD (")
    assert "0 of 4 updates done" in repr(warmed)
    CosineAnnealingLR(warmed, 9)
