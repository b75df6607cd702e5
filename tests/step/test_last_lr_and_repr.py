"""What a wrapper tells the user: `get_last_lr` and its repr."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import sgd
from tests.support.reference import lrs, watch
from warmopt import Adaptive, Trace, Warmed, replay
from warmopt.criteria import InverseRootVariance


def test_get_last_lr_is_what_the_step_used() -> None:
    _, optimizer = sgd(lr=2.0)
    warmed = Warmed(optimizer, steps=4)
    assert warmed.get_last_lr() == [0.5]  # what the first step will use
    warmed.step()
    optimizer.param_groups[0]["lr"] = 8.0
    assert warmed.get_last_lr() == [0.5]
    warmed.rewarm()
    assert warmed.get_last_lr() == [2.0]  # as before the first step
    while not warmed.done:
        warmed.step()
    optimizer.param_groups[0]["lr"] = 3.0
    assert warmed.get_last_lr() == [8.0]  # the last step was before that
    warmed.step()
    assert warmed.get_last_lr() == [3.0]


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("closure", [(), (lambda: 1.0,)])
@pytest.mark.usefixtures("with_and_without_the_plain_step")
def test_get_last_lr_means_the_same_before_and_after_the_scheduler_and_the_end(
    tensor_lr: bool, closure: tuple[Any, ...]
) -> None:
    """For groups that end at different times; and what was given stays as it is."""
    params = [Parameter(torch.zeros(1)) for _ in range(3)]
    groups = [{"params": [param], "warmup_steps": n} for n, param in enumerate(params)]
    groups[1]["warmup_steps"] = 4
    lr: Any = torch.tensor(1.0) if tensor_lr else 1.0
    warmed = Warmed(torch.optim.SGD(groups, lr=lr), steps=2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(warmed, 0.5)
    used = watch(warmed.wrapped, lambda inner: list(map(float, lrs(inner))))
    told: list[Any] = []
    for _ in range(8):
        for moment in ("none", "update", "scheduler"):
            if moment == "update":
                warmed.step(*closure)
            elif moment == "scheduler":
                scheduler.step()
            told.append(warmed.get_last_lr())
    seen = [list(map(float, each)) for each in told]
    assert seen[1::3] == seen[2::3] == used
    assert seen[3::3] == used[:-1]


def test_get_last_lr_of_a_mode_that_jumps_at_its_end() -> None:
    for ask_always in (True, False):
        warmed = Warmed(sgd()[1], steps=3, mode=lambda t, n: 0.5 * t / n)
        used = watch(warmed.wrapped, lambda inner: lrs(inner)[0])
        for _ in range(3):
            warmed.step()
            assert not ask_always or warmed.get_last_lr() == [used[-1]]
        assert warmed.get_last_lr() == [0.5] == [used[-1]]
        warmed.step()
        assert warmed.get_last_lr() == [1.0] == [used[-1]]


def test_a_first_get_last_lr_after_the_end_is_of_the_groups_and_then_of_the_steps() -> (
    None
):
    warmed = Warmed(sgd()[1], steps=1)
    for _ in range(3):
        warmed.step()
    warmed.param_groups[0]["lr"] = 0.5
    assert warmed.get_last_lr() == [0.5]
    warmed.step()
    warmed.param_groups[0]["lr"] = 0.25
    assert warmed.get_last_lr() == [0.5]


def test_get_last_lr_of_a_group_that_took_another_ones_place_is_its_own() -> None:
    params = [Parameter(torch.zeros(1)) for _ in range(3)]
    warmed = Warmed(torch.optim.SGD([{"params": [p]} for p in params[:2]], 1.0), 10)
    for _ in range(3):
        warmed.step()
    warmed.param_groups.pop()
    warmed.add_param_group({"params": params[2:]})
    assert warmed.get_last_lr() == [0.3, 0.1]


def test_get_last_lr_of_a_group_not_yet_stepped_is_what_it_will_step_at() -> None:
    warmed = Warmed(sgd()[1], steps=4)
    warmed.step()
    warmed.add_param_group({"params": [Parameter(torch.zeros(1))]})
    assert warmed.get_last_lr() == [0.25, 0.25]


def test_repr_tells_where_the_warmup_stands() -> None:
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "warmup_steps": 1}]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=3)
    warmed.step()
    head = (
        "Warmed (\n"
        "    mode: linear\n"
        "    group 0: 1 of 3 updates done, next factor 0.6667\n"
        "    group 1: done\n"
        ") SGD (\n"
    )
    assert repr(warmed).startswith(head)
    warmed.rewarm(groups=[0], steps=0)
    assert repr(warmed).startswith("Warmed (\n    mode: linear\n    done\n) SGD (\n")


class Named(torch.optim.SGD):
    def __repr__(self) -> str:
        return "mine"


def test_repr_shows_each_thing_once_and_no_state_of_the_warmup() -> None:
    """Above all not the window of samples, which has many lines."""
    params = [Parameter(torch.zeros(16)) for _ in range(40)]
    adam = torch.optim.AdamW([{"params": params, "name": "body"}], lr=0.5)
    bare = repr(adam)
    warmed = Warmed(adam, steps=1000, mode=Adaptive(lambda reading: False, every=1))
    for _ in range(8):
        for param in params:
            param.grad = torch.randn(16)
        warmed.step()
    assert repr(warmed) == (
        "Warmed (\n"
        "    mode: adaptive(linear)\n"
        "    8 of at most 1000 updates done, next factor 0.009\n"
        "    watching 100% of the parameters\n"
        f") {bare}"
    )
    untuned = Warmed(torch.optim.AdamW(params), mode="untuned_linear")
    assert "0 of 2000 updates done" in repr(untuned)
    assert "warmup_" not in repr(untuned)
    own = Named([{"params": params, "warmup_steps": 7}], lr=1.0)
    assert repr(Warmed(own, steps=3)).endswith(") mine")
    kept = Warmed(torch.optim.SGD([{"params": params, "warmup_steps": 7}], 1.0), 3)
    assert "warmup_steps: 7" in repr(kept)


def test_a_notebook_shows_where_the_warmup_stands() -> None:
    from xml.etree import ElementTree

    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": params[:1], "warmup_steps": 0}, {"params": params[1:]}]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=4)
    for done in range(5):
        shown = ElementTree.fromstring(f"<div>{warmed._repr_html_()}</div>")
        words = shown.findtext("pre")
        drawn = shown.find("{*}svg")
        if done == 4:
            assert words == "Warmed\nmode: linear\ndone"
            assert drawn is None
        else:
            assert f"group 1: {done} of 4 updates done" in words
            dot, line = drawn.find("{*}circle"), drawn.find("{*}polyline")
            points = line.get("points").split()
            assert f"{dot.get('cx')},{dot.get('cy')}" == points[15 * done]
        warmed.step()
    assert "svg" not in Warmed(sgd()[1], steps=0)._repr_html_()


def test_traces_and_replays_have_a_short_repr() -> None:
    trace, param = Trace(), Parameter(torch.zeros(8))
    assert repr(trace) == "Trace(no readings)"
    warmed = Warmed(torch.optim.Adam([param]), steps=60, trace=trace)
    for _ in range(60):
        param.grad = torch.ones(8)
        warmed.step()
    assert repr(trace) == "Trace(11 readings, updates 5 to 55, pools [0])"
    result = replay(trace, InverseRootVariance())
    assert repr(result) == (
        f"Replay(end=40, reason='settled', settled in {sum(result.verdicts)} of "
        f"{len(result.verdicts)} readings)"
    )
