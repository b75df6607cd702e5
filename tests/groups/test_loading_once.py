"""Whichever object loads, the state is checked once, begun once and planned once."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from warmopt import Adaptive, Warmed
from warmopt._groups.state import States
from warmopt._update import planner


def build(mode: Any) -> Warmed:
    params = [Parameter(torch.ones(4)) for _ in range(2)]
    for param in params:
        param.grad = torch.ones(4)
    groups = [{"params": [param]} for param in params]
    return Warmed(torch.optim.Adam(groups), steps=20, mode=mode)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the state was checked, begun and planned."""
    seen: Counter[str] = Counter()

    def note(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def noted(*args: Any) -> Any:
            seen[name] += 1
            return function(*args)

        monkeypatch.setattr(owner, name, noted)

    for name in ("check", "rehearse", "begin_all"):
        note(States, name)
    note(planner, "Plan")
    return seen


@pytest.mark.parametrize("mode", ["linear", Adaptive()], ids=["linear", "adaptive"])
@pytest.mark.parametrize("into", ["warmed", "wrapped"])
def test_a_load_is_done_once(mode: Any, into: str, calls: Counter[str]) -> None:
    warmed = build(mode)
    warmed.step()
    state = copy.deepcopy(warmed.state_dict())
    calls.clear()
    (warmed if into == "warmed" else warmed.wrapped).load_state_dict(state)
    # Each of the two groups is checked, and rehearsed.
    assert calls == {"check": 2, "rehearse": 2, "begin_all": 1, "Plan": 1}
    assert [group["warmup_updates"] for group in warmed.param_groups] == [1, 1]


def test_a_load_that_torch_refuses_is_no_excuse_not_to_check_the_next() -> None:
    warmed = build("linear")
    warmed.step()
    good, bad = (copy.deepcopy(warmed.state_dict()) for _ in range(2))
    del good["param_groups"][1:], good["state"][1]
    with pytest.raises(ValueError, match="different number of parameter groups"):
        warmed.load_state_dict(good)
    bad["param_groups"][0]["warmup_updates"] = -1
    with pytest.raises(ValueError, match="warmup_updates of param group 0"):
        warmed.load_state_dict(bad)
    assert warmed.factors == [0.1, 0.1]


def test_a_state_that_a_hook_of_the_user_changes_is_checked_after_that() -> None:
    """A hook from before the wrapping, which reads a format of its own."""
    warmed = build("linear")
    adam = torch.optim.Adam([{"params": [Parameter(torch.ones(4))]} for _ in range(2)])

    def spoil(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        groups = [{**group, "warmup_updates": -1} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    adam.register_load_state_dict_pre_hook(spoil)
    other = Warmed(adam, steps=20)
    with pytest.raises(ValueError, match="warmup_updates of param group 0"):
        other.load_state_dict(warmed.state_dict())
