"""Checkpoints: killed runs resume; broken files are refused and change nothing."""

from __future__ import annotations

import copy
import itertools
import math
import os
import pickletools
import random
import re
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer, lr_scheduler

from tests.support.optimizers import ROWS, Row, assert_same, snapshot
from tests.support.processes import FORKS
from warmopt import Adaptive, Warmed
from warmopt.shapes import MODES, polynomial

UPDATES = 12

# --- killed and resumed -----------------------------------------------------------


def train(folder: Path, every: int, kill_at: int) -> None:
    """Trains from the last checkpoint to the end, or until it is killed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "warmup_steps": 3}]
    optimizer = Warmed(torch.optim.AdamW(groups, lr=0.1), steps=8)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    used: list[list[float]] = []
    if (file := folder / "checkpoint.pt").exists():
        saved = torch.load(file, weights_only=True)
        used = saved["used"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])

    calls = itertools.count(1)  # of every function, torch's too
    sys.setprofile(
        lambda *_: next(calls) == kill_at and os.kill(os.getpid(), signal.SIGKILL)
    )
    for update in range(len(used) + 1, UPDATES + 1):
        torch.manual_seed(update)
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        used.append(optimizer.get_last_lr())
        scheduler.step()
        if update % every == 0 or update == UPDATES:
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**state, "used": used}, folder / "new.pt")
            os.replace(folder / "new.pt", file)
    sys.setprofile(None)
    (folder / "calls").write_text(str(next(calls)))


def run(folder: Path, every: int, kill_at: int = 0) -> int | None:
    """The exit code of a process that trains. It is forked from one that has torch."""
    process = FORKS.Process(target=train, args=(folder, every, kill_at))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("points", [10, pytest.param(200, marks=pytest.mark.long)])
def test_a_run_killed_anywhere_and_resumed_ends_bit_equal(
    points: int, tmp_path: Path
) -> None:
    """SIGKILL at a random call: in a step with a scaled LR, in a half-written file."""
    calls, at = {}, set()
    for every in (1, 3):
        (whole := tmp_path / f"every {every}").mkdir()
        assert run(whole, every) == 0
        calls[every] = int((whole / "calls").read_text())
        expected = torch.load(whole / "checkpoint.pt", weights_only=True)
    for seed in range(points):
        draw = random.Random(seed)
        every = draw.choice([1, 3])
        kill_at = draw.randrange(1, calls[every])
        print(f"{seed=}: {every=}, {kill_at=} of {calls[every]}")  # shown on failure
        (folder := tmp_path / str(seed)).mkdir()
        assert run(folder, every, kill_at) == -signal.SIGKILL
        file = folder / "checkpoint.pt"
        at.add(len(torch.load(file)["used"]) if file.exists() else 0)
        assert run(folder, every) == 0
        assert_same(expected, torch.load(file, weights_only=True))
    assert len(at) > 4, "killed at too few different updates"


# --- what is in the file ----------------------------------------------------------

ROW = ROWS["adamw-loop"]


def started(
    wrap: bool = True, mode: Any = "linear", row: Row = ROW, **options: Any
) -> tuple[Any, list[Parameter]]:
    """An optimizer of two groups after two updates."""
    params = row.params()
    groups = [row.group([param]) for param in params]
    if mode not in MODES or MODES[mode].steps_from_beta2 is None:
        options["steps"] = 8
    optimizer = row.wrap(groups, mode=mode, **options) if wrap else row.build(groups)
    for update in (1, 2):
        row.step(optimizer, params, update)
    return optimizer, params


def leaves(value: Any) -> set[type]:
    """The types of everything in it: dicts, lists, tuples and leaves."""
    if type(value) is dict:
        inside = [*value.keys(), *value.values()]
    else:
        inside = list(value) if type(value) in (list, tuple) else []
    return {type(value)}.union(*map(leaves, inside))


def globals_of(state: dict[str, Any], file: Path) -> set[str]:
    """What unpickling the file would import, so everything that it could execute."""
    torch.save(state, file)
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        operations = list(pickletools.genops(archive.read(name)))
    assert not any(opcode.name == "STACK_GLOBAL" for opcode, *_ in operations)
    return {str(name) for opcode, name, _ in operations if opcode.name == "GLOBAL"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "untuned_linear"},
        {"mode": partial(polynomial, power=3)},
        {"mode": lambda t, n: t / n, "start": 0.5, "momentum_start": 0.9},
    ],
)
def test_a_file_holds_plain_values_and_nothing_to_execute(
    options: dict[str, Any], tmp_path: Path
) -> None:
    bare, _ = started(wrap=False)
    warmed, _ = started(**options)
    warmed.rewarm(steps=5)
    warmed.step()
    added = globals_of(warmed.state_dict(), tmp_path / "warmed.pt")
    assert added == globals_of(bare.state_dict(), tmp_path / "bare.pt")
    loaded = torch.load(tmp_path / "warmed.pt", weights_only=True)
    plain = {dict, list, tuple, str, int, float, bool, type(None), Tensor}
    assert leaves(loaded) <= plain
    assert_same(warmed.state_dict(), loaded)


def test_the_warmup_outlasts_a_run_without_it() -> None:
    """Warmed, then bare, then warmed again: the warmup continues where it was."""
    bare, params = started(wrap=False)
    bare.load_state_dict(started()[0].state_dict())
    ROW.step(bare, params, 3)
    warmed, _ = started()
    warmed.rewarm()
    warmed.load_state_dict(bare.state_dict())
    assert warmed.factors == [3 / 8, 3 / 8]
    assert_same(snapshot(bare, params)[0][0], params[0])


def test_a_state_of_which_one_group_is_bare_moves_the_other() -> None:
    state = copy.deepcopy(started()[0].state_dict())
    state["param_groups"][1] = started(wrap=False)[0].state_dict()["param_groups"][1]
    warmed, params = started()
    ROW.step(warmed, params, 3)
    with pytest.warns(UserWarning, match="goes on from where it was"):
        warmed.load_state_dict(state)
    assert warmed.factors == [3 / 8, 4 / 8]


@pytest.mark.parametrize(
    "lacks",
    [
        ["warmup_length"],
        ["warmup_done", "warmup_mode", "warmup_length"],
    ],
)
@pytest.mark.parametrize("updates", [2, 8])
def test_a_state_that_lacks_some_of_our_keys_resumes_by_its_count(
    lacks: list[str], updates: int
) -> None:
    """As in a state from before warmopt had these keys, for any live count."""
    old, params = started()
    for update in range(3, updates + 1):
        ROW.step(old, params, update)
    state = copy.deepcopy(old.state_dict())
    for group, key in itertools.product(state["param_groups"], lacks):
        del group[key]
    for live in (2, 8):
        new, params = started()
        for update in range(3, live + 1):
            ROW.step(new, params, update)
        new.load_state_dict(state)
        assert new.factors == old.factors
        assert new.done == old.done


@pytest.mark.parametrize("loader", ["warmed", "wrapped"])
@pytest.mark.parametrize("hooked", ["warmed", "wrapped", "wrapped_before"])
def test_each_state_dict_hook_runs_once(hooked: str, loader: str) -> None:
    """It runs on the wrapped optimizer, no matter which one was hooked, or when."""
    calls: list[tuple[str, Optimizer]] = []

    def hook(target: Optimizer) -> None:
        for kind in ("state_dict_pre", "state_dict_post", "load_state_dict_pre"):
            register = getattr(target, f"register_{kind}_hook")
            register(lambda each, *_, kind=kind: calls.append((kind, each)))
        target.register_load_state_dict_post_hook(
            lambda each: calls.append(("load_state_dict_post", each))
        )

    inner = ROW.build(ROW.params())
    if hooked == "wrapped_before":
        hook(inner)
    warmed = Warmed(inner, steps=8)
    if hooked != "wrapped_before":
        hook(warmed if hooked == "warmed" else inner)
    loading = warmed if loader == "warmed" else inner
    loading.load_state_dict(loading.state_dict())
    assert calls == [
        ("state_dict_pre", inner),
        ("state_dict_post", inner),
        ("load_state_dict_pre", inner),
        ("load_state_dict_post", inner),
    ]


# --- broken states ----------------------------------------------------------------

State = dict[str, Any]
Place = tuple[Any, ...]  # keys from the outside to the inside
DELETE = ...


def changed(state: State, place: Place, value: Any) -> None:
    """Puts the value at the place, or deletes what is there."""
    *outer, last = place
    at: Any = state
    for key in outer:
        at = at[key]
    if value is DELETE:
        del at[last]
    else:
        at[last] = value


def everything(optimizer: Optimizer, params: list[Parameter]) -> list[Any]:
    """Everything that loading may change."""
    number = {id(param): index for index, param in enumerate(params)}
    groups = [
        {**group, "params": [number[id(param)] for param in group["params"]]}
        for group in optimizer.param_groups
    ]
    where = [optimizer.factors, optimizer.done] if isinstance(optimizer, Warmed) else []
    return [snapshot(optimizer, params), copy.deepcopy(groups), where]


def raised(function: Callable[[], Any]) -> Exception | None:
    try:
        function()
    except Exception as error:
        return error
    return None


def loaded(
    state: State, **as_built: Any
) -> tuple[Exception | None, bool, Exception | None, Any]:
    """Loads and steps. Returns the error of the load, whether everything stayed the
    same, the error of the step, and the optimizer.
    """
    optimizer, params = started(**as_built)
    expected, expected_params = started(**as_built)
    given = copy.deepcopy(state)
    error = raised(lambda: optimizer.load_state_dict(state))
    assert_same(given, state)  # it belongs to the caller
    same = not raised(
        lambda: assert_same(
            everything(expected, expected_params), everything(optimizer, params)
        )
    )
    failed = raised(lambda: ROW.step(optimizer, params, 3))
    if same and error:
        ROW.step(expected, expected_params, 3)
        assert_same(
            everything(expected, expected_params), everything(optimizer, params)
        )
    return error, same, failed, optimizer


GROUPS = ("param_groups",)
GROUP = (*GROUPS, 1)
COUNT = (*GROUP, "warmup_updates")
MINE = "of param group 1 of the loaded state must be"

# Place, the value to put there, the error and its text. Where torch refuses it too, the
# text is torch's. What one value may be is tested in test_errors.py.
BROKEN: list[tuple[Place, Any, type[Exception], str]] = [
    (
        COUNT,
        torch.tensor(3.0),
        TypeError,
        f"warmup_updates {MINE} an int, got tensor(3",
    ),
    (COUNT, torch.ones(2, 2), TypeError, f"warmup_updates {MINE} an int, got tensor"),
    (COUNT, "3", TypeError, f"warmup_updates {MINE} an int, got '3'"),
    (COUNT, True, TypeError, f"warmup_updates {MINE} an int, got True"),
    (COUNT, None, TypeError, f"warmup_updates {MINE} an int, got None"),
    (COUNT, [{"a": []}], TypeError, f"warmup_updates {MINE} an int, got [{{"),
    (COUNT, 10**400, ValueError, f"warmup_updates {MINE} in [0, 2**53], got 1000"),
    (COUNT, DELETE, TypeError, f"warmup_updates {MINE} an int"),
    ((*GROUP, "warmup_done"), torch.tensor(1), TypeError, f"warmup_done {MINE} a bool"),
    ((*GROUP, "warmup_done"), "no", TypeError, f"warmup_done {MINE} a bool, got 'no'"),
    ((*GROUP, "warmup_mode"), ["linear"], ValueError, "'linear'] (warmup_mode of"),
    ((*GROUP, "warmup_mode"), torch.ones(2), ValueError, "(warmup_mode of param group"),
    ((*GROUP, "warmup_length"), -1, ValueError, f"warmup_length {MINE} in [0, 2"),
    ((*GROUP, "warmup_length"), math.inf, ValueError, f"warmup_length {MINE} in [0, 2"),
    ((*GROUP, "warmup_length"), "9", TypeError, f"warmup_length {MINE} a number, got"),
    ((*GROUP, "warmup_steps"), math.nan, ValueError, f"warmup_steps {MINE} an int of"),
    ((*GROUP, "warmup_steps"), torch.tensor(3), TypeError, f"warmup_steps {MINE} an"),
    ((*GROUP, "warmup_start"), [0.5], TypeError, f"warmup_start {MINE} a finite num"),
    (GROUPS, DELETE, KeyError, "param_groups"),
    (GROUPS, 5, TypeError, ""),
    (GROUPS, None, TypeError, ""),
    (GROUPS, "groups", ValueError, "a different number of parameter groups"),
    (GROUPS, {0: {}, 1: {}}, TypeError, ""),
    (GROUPS, [], ValueError, "a different number of parameter groups"),
    (GROUP, DELETE, ValueError, "a different number of parameter groups"),
    (GROUP, 5, TypeError, ""),
    (GROUP, None, TypeError, ""),
    (GROUP, ["params"], TypeError, ""),
    ((*GROUP, "params"), DELETE, KeyError, "params"),
    ((*GROUP, "params"), 5, TypeError, "has no len()"),
    ((*GROUP, "params"), [0, 7], ValueError, "doesn't match the size of optimizer's"),
    (("state",), DELETE, KeyError, "state"),
    (("state",), [1, 2], AttributeError, "'list' object has no attribute 'items'"),
]


@pytest.mark.parametrize(
    ("place", "value", "kind", "words"),
    [pytest.param(*case, id=f"{case[0][-1]}-{n}") for n, case in enumerate(BROKEN)],
)
def test_a_broken_state_is_refused_and_changes_nothing(
    place: Place, value: Any, kind: type[Exception], words: str
) -> None:
    """Parameters, state, groups and warmup are bit-equal, now and an update later."""
    state = copy.deepcopy(started()[0].state_dict())
    changed(state, place, value)
    error, same, failed, _ = loaded(state)
    assert isinstance(error, kind)
    assert words in str(error)
    assert same
    assert failed is None


@pytest.mark.parametrize("key", ["warmup_steps", "warmup_start"])
def test_a_length_or_start_beyond_all_floats_is_refused_by_its_name(key: str) -> None:
    state = copy.deepcopy(started()[0].state_dict())
    state["param_groups"][1][key] = 10**400
    error, same, _, _ = loaded(state)
    assert same
    assert isinstance(error, ValueError)
    assert f"{key} {MINE}" in str(error)


MOST = 2**53
BIG = 1e30  # times an LR, it still fits in float32
WINDOWS = st.builds(  # right and wrong sizes, any type
    torch.full,
    st.sampled_from([(256,), (5,), (4, 64), (0,), ()]),
    st.sampled_from([0, 1, -1, math.nan, math.inf]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.complex64]),
)
ALLOWED: dict[str, st.SearchStrategy[Any]] = {
    "warmup_updates": st.integers(0, 9) | st.integers(0, MOST),
    "warmup_done": st.booleans(),
    "warmup_mode": st.sampled_from(list(MODES)),
    "warmup_length": st.integers(0, 9) | st.floats(0, MOST),
    "warmup_steps": st.integers(0, 9) | st.integers(0, 2 * MOST),
    "warmup_start": st.floats(0, 1) | st.floats(0, BIG),
    "warmup_fast": st.integers(0, 9) | st.integers(0, MOST),
    "warmup_settled": st.booleans(),
    "warmup_ring": WINDOWS,
    "warmup_latest": WINDOWS,
}
PLACES: list[Place] = [
    *((*GROUPS, index, key) for index in (0, 1) for key in (*ALLOWED, "lr", "betas")),
    *[(*GROUP, "new"), (*GROUP, "params"), (*GROUPS, 0), GROUP, GROUPS, ("new",)],
    *[("state",), ("state", 0), ("state", 1, "step"), ("state", 1, "exp_avg")],
]
JUNK = st.recursive(
    st.sampled_from([DELETE, None, True, False, *MODES, math.nan, math.inf])
    | st.integers(-(2**70), 2**70)
    | st.floats(-BIG, BIG)
    | st.builds(torch.tensor, st.floats(width=32) | st.lists(st.integers(0, 9)))
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
CHANGE = st.tuples(st.sampled_from(PLACES), JUNK) | st.sampled_from(
    list(ALLOWED)
).flatmap(lambda key: st.tuples(st.just((*GROUP, key)), ALLOWED[key]))


@given(
    mode=st.sampled_from([*MODES, Adaptive(every=1, window=2)]),
    row=st.sampled_from([ROW, ROWS["adam-tensor_lr"]]),
    changes=st.lists(CHANGE, min_size=1, max_size=3),
)
@settings(max_examples=300)
def test_whatever_is_loaded_is_refused_whole_or_steps_as_the_bare_one_does(
    mode: str | Adaptive, row: Row, changes: list[tuple[Place, Any]]
) -> None:
    state = copy.deepcopy(started(mode=mode, row=row)[0].state_dict())
    for place, value in changes:
        raised(partial(changed, state, place, value))  # its place may be gone
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what junk does in torch
        bare_error, bare_same, bare_failed, _ = loaded(
            copy.deepcopy(state), wrap=False, row=row
        )
        error, same, failed, warmed = loaded(state, mode=mode, row=row)
    if error:
        # torch casts the state last, and may fail there.
        assert same or (bare_error and not bare_same)
        if not bare_error:
            assert isinstance(error, (TypeError, ValueError))
            assert re.search("warmup_|lr", str(error))
        return
    assert not bare_error
    assert (failed is None) == (bare_failed is None)
    if not failed:
        starts = [group.get("warmup_start", 0) for group in warmed.param_groups]
        assert all(0 <= factor <= max(1, *starts) for factor in warmed.factors)


@pytest.mark.parametrize(
    ("name", "mode", "key", "value"),
    [
        ("adamw-loop", "linear", "lr", DELETE),
        ("adamw-loop", "radam", "warmup_length", 1),
        ("adam-tensor_lr", "linear", "warmup_length", 2_000_000),
        ("adamw-loop", "exponential", "warmup_length", 1e-195),
    ],
)
def test_what_could_not_be_stepped_is_refused_before_it_is_loaded(
    name: str, mode: str, key: str, value: Any
) -> None:
    built: dict[str, Any] = {"mode": mode, "row": ROWS[name]}
    state = copy.deepcopy(started(**built)[0].state_dict())
    changed(state, (*GROUP, key), value)
    error, same, _, _ = loaded(state, **built)
    assert error
    assert same
