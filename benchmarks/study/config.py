"""Reads a TOML file and makes the runs of its grid. core.toml shows every key."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.study.optimizers import OPTIMIZERS
from benchmarks.study.rules import RULES
from benchmarks.study.store import key_of
from benchmarks.study.tasks import TASKS
from benchmarks.study.train import CODE
from benchmarks.study.warmups import WARMUPS, Settings
from warmopt import Adaptive

ROOT = Path(__file__).parent.parent.parent
CONTROLS = ("length", "replay", "area", "held_ramp", "loss_gap", "loss_gap_off")
TOP = {"seeds": list, "pages": list, "reuse": str, "timeout": (int, float)}
GRID = {
    **{"tasks": list, "lrs": list, "updates": int, "warmups": list},
    **{"optimizers": list, "beta2": list, "evaluations": int},
    **{"seeds": list, "tuning_seeds": list},
}
NEEDED = ("tasks", "lrs", "updates", "warmups")


class Planned(NamedTuple):
    """A run, and the controls that will be made from its result.

    The controls `length` and `area` use the same seed as the run. A `replay` uses the
    next seed: with the same seed it would repeat the run to the last bit.
    """

    run: Settings
    controls: tuple[str, ...] = ()
    next_seed: int = 0


class Config(NamedTuple):
    """A study.

    Attributes:
        name: Stem of the file.
        pages: The files that get the tables and figures.
        timeout: Seconds that a run may take.
        plan: The runs, beginning with those of the first seed.
        tuning: Seeds for fixed lengths only. On them the best length is chosen.
        reuse: A record whose rows need not run again.
    """

    name: str
    pages: tuple[Path, ...]
    timeout: float
    plan: list[Planned]
    tuning: set[int]
    reuse: Path | None = None

    @property
    def results(self) -> Path:
        return ROOT / "benchmarks" / "results" / f"study-{self.name}.jsonl"


def read(path: Path) -> Config:
    """Reads a study; a ValueError names the key and the value that are wrong."""
    import tomllib  # of Python 3.11; a study from a Python file does without

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} must be TOML: {error}.") from None
    return of(path.stem, content, ROOT / f"build/study-{path.stem}.md")


def of(name: str, content: dict[str, Any], page: Path) -> Config:
    """The study that has this content, which names other pages if it has some."""
    grids, warmups = content.pop("grid", []), content.pop("warmups", {})
    check("", content, TOP)
    if not grids:
        raise wrong("grid", grids, "one table [[grid]] or more")
    expanded = {key: list(warmups_of(key, each)) for key, each in warmups.items()}
    found: list[tuple[int, Planned]] = []
    tuning: set[int] = set()
    for number, grid in enumerate(grids, 1):
        where = f"grid {number}: "
        check(where, grid, GRID)
        if missing := [key for key in NEEDED if key not in grid]:
            raise wrong(where + missing[0], None, "given")
        seeds = grid.get("seeds", content.get("seeds", [0]))
        tuned = grid.get("tuning_seeds", [])
        if both := set(seeds) & set(tuned):
            raise wrong(where + "tuning_seeds", tuned, f"others than seeds, not {both}")
        tuning |= set(tuned)
        for own in (seeds, tuned):
            for turn, seed in enumerate(own):
                following = own[(turn + 1) % len(own)]
                for planned in runs(where, grid, expanded, seed, following):
                    if own is seeds:
                        found.append((turn, planned))
                    elif planned.run["warmup"]["kind"] == "linear":
                        found.append((turn, planned._replace(controls=())))
    # Runs all grids with one seed before the next seed. So even if the study is stopped
    # early, its results can be compared.
    plan: dict[str, Planned] = {}
    for _, planned in sorted(found, key=lambda each: each[0]):
        old = plan.get(key := key_of(planned.run), planned)
        every = tuple(dict.fromkeys(old.controls + planned.controls))
        plan[key] = planned._replace(controls=every)
    if "pages" in content:
        pages = tuple(ROOT / name for name in content["pages"])
    else:
        pages = (page,)
    limit = content.get("timeout", 600)
    reuse = content.get("reuse")
    other = None if reuse is None else ROOT / "benchmarks" / "results" / reuse
    return Config(name, pages, limit, list(plan.values()), tuning, other)


def runs(
    where: str,
    grid: dict[str, Any],
    warmups: dict[str, list[Any]],
    seed: int,
    next_seed: int,
) -> Iterator[Planned]:
    known = (
        ("tasks", TASKS, grid["tasks"]),
        ("optimizers", OPTIMIZERS, grid.get("optimizers", ["Adam"])),
        ("warmups", warmups, grid["warmups"]),
    )
    for key, allowed, values in known:
        for value in values:
            if value not in allowed:
                raise wrong(where + key, value, f"one of {', '.join(allowed)}")
    for key, least in (("updates", 1), ("evaluations", 1)):
        if grid.get(key, 1) < least:
            raise wrong(where + key, grid[key], f">= {least}")
    for task, optimizer, beta2, lr, name in itertools.product(
        grid["tasks"],
        grid.get("optimizers", ["Adam"]),
        grid.get("beta2", [None]),
        grid["lrs"],
        grid["warmups"],
    ):
        if not (isinstance(lr, float) and lr > 0):
            raise wrong(where + "lrs", lr, "floats > 0")
        if not (beta2 is None or 0 < beta2 < 1):
            raise wrong(where + "beta2", beta2, "floats in (0, 1)")
        for warmup, controls in warmups[name]:
            if isinstance(steps := warmup.get("steps"), float):  # a share of the run
                warmup = {**warmup, "steps": max(1, round(steps * grid["updates"]))}
            yield Planned(
                {
                    **{"task": task, "optimizer": optimizer, "beta2": beta2, "lr": lr},
                    **{"updates": grid["updates"], "seed": seed, "code": CODE},
                    **{"evaluations": grid.get("evaluations", 1), "warmup": warmup},
                },
                controls,
                next_seed,
            )


def warmups_of(
    name: str, table: dict[str, Any]
) -> Iterator[tuple[Settings, tuple[str, ...]]]:
    """Makes a warmup for every combination of the options that are lists."""
    where, options = f"warmups.{name}: ", dict(table)
    kind, controls = options.pop("kind", None), tuple(options.pop("controls", ()))
    if kind not in WARMUPS:
        raise wrong(where + "kind", kind, f"one of {', '.join(WARMUPS)}")
    if bad := [each for each in controls if each not in CONTROLS]:
        raise wrong(where + "controls", bad[0], f"one of {', '.join(CONTROLS)}")
    _, *parameters = inspect.signature(WARMUPS[kind]).parameters
    for key in options:
        if key not in parameters:
            raise wrong(where + key, options[key], f"one of {', '.join(parameters)}")
    lists = [v if isinstance(v, list) else [v] for v in options.values()]
    for values in itertools.product(*lists):
        warmup = dict(zip(options, values, strict=True))
        steps = warmup.get("steps", 0)
        if isinstance(steps, float) and not 0 < steps <= 1:
            raise wrong(where + "steps", steps, "an int, or a share of the run")
        if kind == "adaptive":
            check_adaptive(where, warmup)
        yield {"kind": kind, **warmup}, controls


def check_adaptive(where: str, options: dict[str, Any]) -> None:
    rule, constants = options.get("criterion", "drift"), options.get("constants", {})
    if rule not in RULES:
        raise wrong(where + "criterion", rule, f"one of {', '.join(RULES)}")
    own = {k: v for k, v in options.items() if k in ("fast", "every", "window")}
    try:
        settled = options.get("on_settled", "accelerate")
        Adaptive(RULES[rule](**constants), on_settled=settled, **own)
    except (TypeError, ValueError) as error:  # its text names the argument
        raise ValueError(f"{where}{error}") from None


def check(where: str, table: dict[str, Any], known: dict[str, Any]) -> None:
    for key, value in table.items():
        if key not in known:
            raise wrong(where + key, value, f"left out; known are {', '.join(known)}")
        if not isinstance(value, known[key]):
            kind = getattr(known[key], "__name__", "number")
            raise wrong(where + key, value, f"a {kind}")


def wrong(key: str, value: object, allowed: str) -> ValueError:
    return ValueError(f"{key} must be {allowed}, got {value!r}.")
