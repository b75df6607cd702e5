"""A third pace fits without a change elsewhere: it moves the factor itself, and holds.

`Climb` is the smallest pace of this kind: it doubles its factor at every reading, and
stops below 1 where it is told to.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import ExponentialLR

from tests.support.optimizers import assert_same, snapshot
from tests.support.reference import lrs, watch
from warmopt import Trace, Warmed
from warmopt._pace import Pace, Ramp, Sampling
from warmopt.criteria import Reading

pytestmark = pytest.mark.filterwarnings("ignore:The warmup of param group")

FACTOR = "warmup_factor"
Group = dict[str, Any]


class Climb(Pace):
    keys: ClassVar[tuple[str, ...]] = (FACTOR,)
    is_cap: ClassVar[bool] = True
    on_device: ClassVar[bool] = False

    def __init__(self, top: float = 0.5, every: int = 2, per_group: bool = False):
        self.top, self.sampling_ = top, Sampling(every, 2, per_group)

    @property
    def sampling(self) -> Sampling:
        return self.sampling_

    def mode(self, shape: str) -> str:
        return "climb"

    def begin(self, group: Group) -> None:
        group.setdefault(FACTOR, 0.125)

    def check(self, group: Group, name: str) -> None:
        if type(group.get(FACTOR, 0.125)) is not float:
            raise TypeError(f"{FACTOR} of {name} must be a float")

    def follow(self, group: Group, ramp: Ramp) -> Callable[[int], float]:
        return lambda update: group[FACTOR]

    def is_over(self, group: Group, ramp: Ramp) -> bool:
        return group[FACTOR] >= self.top or super().is_over(group, ramp)

    def held(self, group: Group) -> float:
        return group.get(FACTOR, 1.0)

    def done_reason(self, group: Group, ramp: Ramp) -> str:
        return "held" if group[FACTOR] < 1.0 else "full"

    def judge(self, groups: Sequence[Group], reading: Reading) -> bool:
        for group in groups:
            group[FACTOR] = min(2 * group[FACTOR], self.top)
        return group[FACTOR] == self.top


def build(
    pace: Pace, groups: int = 1, steps: int = 20, **options: Any
) -> tuple[Warmed, list[Parameter]]:
    params = [Parameter(torch.ones(4)) for _ in range(groups)]
    each = [{"params": [param]} for param in params]
    adam = torch.optim.Adam(each, lr=1.0, betas=(0.5, 0.5))
    return Warmed(adam, steps, pace, **options), params


def step(warmed: Warmed, params: list[Parameter], update: int) -> None:
    for param in params:
        param.grad = torch.full_like(param, 1.0 + update)
    warmed.step()


# Read after 2, judged after 4: fast from update 5 on, and so on.
CLIMB = [0.125] * 4 + [0.25] * 2 + [0.5] * 14


@pytest.mark.parametrize("groups", [1, 2])
def test_it_climbs_and_then_holds_for_good(groups: int) -> None:
    warmed, params = build(Climb(), groups)
    seen, used = watch(warmed.wrapped, lrs), []
    for update in range(20):
        assert warmed.factors == [CLIMB[update]] * groups
        assert warmed.done == (update >= 6)
        step(warmed, params, update)
        used.append(warmed.get_last_lr())
        assert lrs(warmed) == [1.0] * groups
    assert seen == used == [[factor] * groups for factor in CLIMB]
    assert warmed.done_reason == "held"
    assert "done, held at factor 0.5" in repr(warmed)


def test_it_may_end_at_the_full_lr() -> None:
    warmed, params = build(Climb(top=1.0))
    for update in range(12):
        step(warmed, params, update)
    assert warmed.done_reason == "full"
    assert warmed.factors == warmed.get_last_lr() == [1.0]


def test_at_the_cap_it_holds_where_it_is() -> None:
    warmed, params = build(Climb(), steps=5)
    for update in range(9):
        step(warmed, params, update)
    assert warmed.done
    assert warmed.factors == [0.25]
    assert warmed.param_groups[0]["warmup_updates"] == 5


def test_a_schedule_goes_on_while_it_holds() -> None:
    warmed, params = build(Climb())
    scheduler = ExponentialLR(warmed, 0.5)
    seen = watch(warmed.wrapped, lrs)
    for update in range(9):
        step(warmed, params, update)
        scheduler.step()
    assert [lr for (lr,) in seen] == [
        factor * 0.5**update for update, factor in enumerate(CLIMB[:9])
    ]


@pytest.mark.parametrize("at", range(12))
@pytest.mark.parametrize("into_wrapped", [False, True])
def test_it_is_resumed_to_the_bit(at: int, into_wrapped: bool) -> None:
    """While it climbs, and while it holds."""
    whole, params = build(Climb(), groups=2)
    for update in range(at):
        step(whole, params, update)
    resumed, again = build(Climb(), groups=2)
    for mine, theirs in zip(again, params, strict=True):
        mine.data.copy_(theirs)
    target = resumed.wrapped if into_wrapped else resumed
    target.load_state_dict(copy.deepcopy(whole.state_dict()))
    for update in range(at, 20):
        step(whole, params, update)
        step(resumed, again, update)
        assert resumed.factors == whole.factors
    assert_same(snapshot(whole, params), snapshot(resumed, again))


def test_its_own_keys_are_checked_before_anything_is_loaded() -> None:
    warmed, params = build(Climb())
    step(warmed, params, 0)
    state = copy.deepcopy(warmed.state_dict())
    state["param_groups"][0][FACTOR] = "high"
    with pytest.raises(TypeError, match="warmup_factor of param group 0"):
        warmed.load_state_dict(state)
    assert warmed.factors == [0.125]


def test_rewarm_begins_again() -> None:
    warmed, params = build(Climb())
    for update in range(10):
        step(warmed, params, update)
    warmed.rewarm()
    assert warmed.factors == [0.125]
    assert not warmed.done


def test_after_an_exception_the_lr_is_the_base_while_it_holds_too() -> None:
    warmed, params = build(Climb())
    for update in range(10):
        step(warmed, params, update)

    def fail() -> None:
        assert lrs(warmed) == [1.0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        warmed.step(fail)
    assert lrs(warmed) == [1.0]


@pytest.mark.parametrize("per_group", [False, True])
def test_a_late_group_climbs_on_its_own(per_group: bool) -> None:
    warmed, params = build(Climb(per_group=per_group))
    for update in range(6):
        step(warmed, params, update)
    params.append(Parameter(torch.ones(4)))
    warmed.add_param_group({"params": params[1:]})
    for update in range(6, 26):
        assert warmed.factors == [0.5, CLIMB[update - 6]]
        step(warmed, params, update)


def test_it_is_recorded_in_a_trace() -> None:
    trace = Trace()
    warmed, params = build(Climb(), trace=trace)
    for update in range(10):
        step(warmed, params, update)
    assert [(row["judged_after"], row["factor"]) for row in trace] == [
        (4, 0.25),
        (6, 0.5),
    ]


def test_a_plain_pace_is_the_fixed_one() -> None:
    warmed, params = build(Pace(), steps=4)
    for update in range(5):
        assert warmed.factors == [min((update + 1) / 4, 1.0)]
        step(warmed, params, update)
