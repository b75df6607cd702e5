"""CUDA graphs without CUDA: a stand-in records a step's operators and repeats them.

Like a captured graph, it works on the memory of the capture and runs no Python. It
fails if the step reads a value on the host. The real thing is in test_cuda.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support.graphs import StandInGraph, pretend_to_capture
from tests.support.optimizers import assert_same, snapshot
from tests.support.reference import stepped_at
from warmopt import Warmed

STEPS, REPLAYS = 8, 12


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether a capture is running, as `Warmed` sees it. Adam then accepts a CPU."""
    return pretend_to_capture(monkeypatch)


def parameters() -> list[Parameter]:
    torch.manual_seed(0)
    params = [Parameter(torch.randn(3, 2)), Parameter(torch.randn(4))]
    for param in params:
        param.grad = torch.zeros_like(param)
    return params


def set_grads(params: list[Parameter], update: int) -> None:
    torch.manual_seed(update)
    for param in params:
        param.grad.copy_(torch.randn(param.shape))


OPTIMIZERS = {
    "adamw-loop": (torch.optim.AdamW, {"foreach": False}),
    "adamw-foreach": (torch.optim.AdamW, {"foreach": True}),
    "adam-amsgrad": (torch.optim.Adam, {"foreach": False, "amsgrad": True}),
    "rmsprop-foreach": (torch.optim.RMSprop, {"foreach": True}),
    "nadam-foreach": (torch.optim.NAdam, {"foreach": True}),
    "adamax-loop": (torch.optim.Adamax, {"foreach": False}),
}
MODES = {"linear": {}, "cosine": {"start": 0.1}, "offset": {"offset": 2}}


def build(name: str, params: list[Parameter]) -> Optimizer:
    make, options = OPTIMIZERS[name]
    lr = torch.tensor(0.1)
    groups = [{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.1}]
    return make(groups, lr=lr, capturable=True, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replays_of_one_captured_step_go_through_the_warmup(
    name: str, mode: str, capturing: dict[str, bool]
) -> None:
    twins = [parameters(), parameters()]
    options = {"mode": mode} if mode != "offset" else {}
    warmed = Warmed(build(name, twins[0]), STEPS, **options, **MODES[mode])
    factors = Warmed(
        torch.optim.SGD([Parameter(torch.zeros(1))], lr=1.0),
        STEPS,
        **options,
        **MODES[mode],
    )
    bare = build(name, twins[1])

    def step_bare(update: int) -> None:
        set_grads(twins[1], update)
        stepped_at(bare, factors.factors * 2, bare.step)
        factors.param_groups[0]["params"][0].grad = torch.ones(1)
        factors.step()

    for update in (1, 2):  # eagerly, as torch asks before a capture
        set_grads(twins[0], update)
        warmed.step()
        step_bare(update)
    set_grads(twins[0], 3)
    capturing["capturing"] = True
    with StandInGraph() as graph:
        warmed.step()
    capturing["capturing"] = False
    step_bare(3)
    for update in range(4, 4 + REPLAYS):
        if update == 6:  # a scheduler writes into the tensor
            for optimizer in (warmed, bare):
                optimizer.param_groups[0]["lr"].fill_(0.05)
        set_grads(twins[0], update)
        graph.replay()
        step_bare(update)
        assert_same(snapshot(bare, twins[1]), snapshot(warmed, twins[0]))
    last = STEPS + MODES[mode].get("offset", 0)
    saved = warmed.state_dict()["param_groups"]
    assert [int(group["warmup_updates"]) for group in saved] == [last, last]
    assert warmed.done
    assert warmed.factors == [1.0, 1.0]


def test_a_captured_graph_warms_again_after_rewarm(capturing: dict[str, bool]) -> None:
    params = parameters()
    warmed = Warmed(build("adamw-loop", params), steps=4)
    set_grads(params, 1)
    warmed.step()
    capturing["capturing"] = True
    with StandInGraph() as graph:
        warmed.step()
    capturing["capturing"] = False
    for _ in range(6):
        graph.replay()
    assert warmed.done
    warmed.rewarm()
    assert warmed.factors == [0.25, 0.25]
    graph.replay()
    assert warmed.factors == [0.5, 0.5]


@pytest.mark.parametrize(
    ("lr", "options", "named"),
    [
        (0.1, {}, r"lr=0\.1"),
        (torch.tensor(0.1), {"momentum_start": 0.5}, "momentum_start"),
        (torch.tensor(0.1), {"mode": "adaptive"}, r"'adaptive\(linear\)'"),
    ],
    ids=["float_lr", "momentum", "adaptive"],
)
def test_what_a_graph_would_freeze_is_refused(
    lr: Any, options: dict, named: str, capturing: dict[str, bool]
) -> None:
    params = parameters()
    warmed = Warmed(torch.optim.Adam(params, lr, foreach=False), steps=4, **options)
    before = snapshot(warmed, params)
    capturing["capturing"] = True
    with pytest.raises(RuntimeError, match=f"captured in a CUDA graph, got {named}"):
        warmed.step()
    assert_same(before, snapshot(warmed, params))
    assert warmed.factors == [0.25]


@pytest.mark.parametrize(
    ("device", "named"),
    [("cpu", "a param group that was never stepped"), ("meta", r"lr=tensor\(0\.1")],
)
def test_a_group_that_is_not_yet_ready_to_be_captured_is_refused(
    device: str, named: str, capturing: dict[str, bool]
) -> None:
    """Added after the last step, or with a parameter on another device than the LR."""
    warmed = Warmed(torch.optim.SGD(parameters(), torch.tensor(0.1)), steps=4)
    late = [Parameter(torch.zeros(1)), Parameter(torch.zeros(1, device=device))]
    # `Warmed` makes it known, the wrapped optimizer does not.
    adder = warmed if device == "meta" else warmed.wrapped
    adder.add_param_group({"params": late})
    assert warmed.factors == [0.25, 0.25]
    capturing["capturing"] = True
    with pytest.raises(RuntimeError, match=f"captured in a CUDA graph, got {named}"):
        warmed.step()


def test_a_float_lr_is_captured_when_the_warmup_is_done(
    capturing: dict[str, bool],
) -> None:
    params = parameters()
    warmed = Warmed(torch.optim.Adam(params, lr=0.1), steps=1)
    warmed.step()
    capturing["capturing"] = True
    warmed.step()


@pytest.mark.parametrize("how", ["adaptive", "momentum", "loaded"])
def test_right_after_the_end_any_warmup_is_captured(
    how: str, capturing: dict[str, bool]
) -> None:
    options: dict[str, Any] = {
        "adaptive": {"mode": "adaptive"},
        "momentum": {"momentum_start": 0.5},
        "loaded": {},
    }[how]
    params = parameters()
    warmed = Warmed(build("adamw-loop", params), steps=2, **options)
    for update in (1, 2):
        set_grads(params, update)
        warmed.step()
    if how == "loaded":
        warmed.load_state_dict(warmed.state_dict())
    capturing["capturing"] = True
    with StandInGraph():
        warmed.step()
    assert warmed.done


def test_eager_steps_at_a_tensor_lr_read_nothing_on_the_host(
    capturing: dict[str, bool],
) -> None:
    """Except for one look, when the warmup may be over."""
    params = parameters()
    warmed = Warmed(build("adamw-loop", params), steps=6)
    warmed.step()
    with StandInGraph():
        for _ in range(4):
            warmed.step()
    warmed.step()
    assert warmed.done
