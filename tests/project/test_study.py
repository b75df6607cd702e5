"""The study: no run is lost or made twice, its numbers are right, docs quote it."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

pytest.importorskip("tomllib")  # Python 3.11

from benchmarks.study import cifar, config, measures, pages, pool, short, tables
from benchmarks.study.quick import killed_and_resumed
from benchmarks.study.rules import Agreement, Calm, LossCalm, LossFalls, surges
from benchmarks.study.short import ADAPTIVE, Cell, Group, Warmup
from benchmarks.study.store import Store, environment, key_of, name_of, read
from benchmarks.study.tasks import TASKS
from benchmarks.study.train import optimizer_of, train, warmed
from benchmarks.study.warmups import Facts, controls, factors, ramp_of
from warmopt import Trace
from warmopt.criteria import Reading

OF_CIFAR = ("ResNet-20", "WRN-16-4")
DOCS = config.ROOT / "docs"
STUDIES = config.ROOT / "benchmarks" / "study"

TINY = """
pages = ["{page}"]
seeds = [0, 1]
[[grid]]
tasks = ["digits MLP"]
lrs = [0.003, 0.03]
updates = 60
beta2 = [0.95]
tuning_seeds = [10, 11]
warmups = ["fixed", "adaptive"]
[[grid]]
tasks = ["ResNet-20"]
lrs = [0.1]
updates = 5
warmups = ["broken"]
[warmups.fixed]
kind = "linear"
steps = [0, 0.1, 1.0]
[warmups.adaptive]
kind = "adaptive"
steps = 0.8
every = 2
fast = 10
controls = ["length", "replay", "area"]
[warmups.broken]
kind = "gi"
"""


def settings(**changes: Any) -> dict[str, Any]:
    return {
        **{"task": "digits MLP", "optimizer": "Adam", "beta2": 0.99, "lr": 0.01},
        **{"updates": 60, "evaluations": 2, "seed": 0, "code": 1},
        "warmup": {"kind": "linear", "steps": 10},
        **changes,
    }


# --- the harness ----------------------------------------------------------------------


def test_a_study_survives_a_kill_and_renders(tmp_path: Path) -> None:
    """Nothing is lost or made twice after a kill. An error is a result too."""
    file, out = tmp_path / "tiny.toml", tmp_path / "tiny.jsonl"
    file.write_text(TINY.format(page=tmp_path / "tiny.md"))
    told = killed_and_resumed(file, out, workers=1)  # starting one takes seconds
    # 2 seeds x 2 LRs x (3 fixed, 1 adaptive, 3 controls), 2 x 2 x 3 tuning, 2 broken
    assert re.fullmatch(
        r"killed after \d+ runs, resumed to 42: none lost, none twice", told
    )
    rows = read(out)[1]
    errors = [row for row in rows if "error" in row]
    assert {row["task"] for row in errors} == {"ResNet-20"}
    assert "--data must be the folder" in errors[0]["error"]
    study = config.read(file)
    pages.write(study, out)
    text = study.pages[0].read_text()
    assert "| adaptive 80 % every=2 fast=10 |" in text
    assert "| fixed 10 % | 2 |" in text
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "study-tiny-every_lr.svg",
        "study-tiny-every_length.svg",
    }
    # A run alone in this process gives the same as it gave in a worker.
    adaptive = next(row for row in rows if row["warmup"]["kind"] == "adaptive")
    again = train({name: adaptive[name] for name in settings()})
    timeless = {"seconds": 0, "cpu_seconds": 0}
    assert {**adaptive, **again, **timeless} == {**adaptive, **timeless}


def test_a_run_that_takes_too_long_is_recorded_as_that(tmp_path: Path) -> None:
    planned = config.Planned(settings(updates=10**7))
    with Store(tmp_path / "out.jsonl") as store:
        where = pool.Where(timeout=0.2)
        pool.fill([planned], store, where, lambda **_: None)
    assert read(store.path)[1] == [{**planned.run, "error": "took longer than 0.2 s"}]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    path, run = tmp_path / "out.jsonl", settings()
    with Store(path) as store:
        store.add({**run, "loss": 1.0})
        with pytest.raises(ValueError, match="is being written by another run"):
            Store(path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-20:-1])
    assert len(read(path)[1]) == 1
    with Store(path) as store:
        assert list(store.rows) == [key_of(run)]
        assert path.read_bytes() == whole
    path.write_bytes(whole[:-5] + b"\n")
    with pytest.raises(ValueError, match=r"out\.jsonl must be JSON lines"):
        Store(path)


def test_errors_run_again_if_asked(tmp_path: Path) -> None:
    with Store(tmp_path / "out.jsonl") as store:
        store.add({**settings(), "error": "no luck"})
    with Store(store.path) as again:
        assert again.rows
    with Store(store.path, retry=True) as again:
        assert not again.rows


def test_a_record_of_another_machine_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    other = {"machine": {**environment(), "torch": "1.0"}, "commit": ""}
    path.write_text(json.dumps(other) + "\n")
    with pytest.raises(ValueError, match="must be of this machine"):
        Store(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0, 1]", "seeds = 3", "seeds must be a list, got 3."),
        ("seeds", "seed", r"seed must be left out; known are seeds, .* got \[0, 1\]."),
        ("digits MLP", "digits", "grid 1: tasks must be one of .*, got 'digits'."),
        ("0.03]", "-0.03]", "grid 1: lrs must be floats > 0, got -0.03."),
        ("[0.95]", "[1.5]", r"grid 1: beta2 must be floats in \(0, 1\), got 1.5."),
        ("updates = 60", "updates = 0", "grid 1: updates must be >= 1, got 0."),
        ("updates = 60", "", "grid 1: updates must be given, got None."),
        ("[10, 11]", "[1]", "grid 1: tuning_seeds must be others than seeds"),
        ('"linear"', '"bent"', "warmups.fixed: kind must be one of .*, got 'bent'."),
        ("every = 2", "evry = 2", "warmups.adaptive: evry must be one of .*, got 2."),
        ("every = 2", "every = 0", "warmups.adaptive: every must be >= 1, got 0."),
        ("0.8", "1.8", "warmups.adaptive: steps must be an int, or a share"),
        ('"area"', '"aria"', "warmups.adaptive: controls must be one of .*'aria'"),
        ("every = 2", 'criterion = "x"', "warmups.adaptive: criterion must be .*'x'"),
        ("[[grid]]", "[grid", "tiny.toml must be TOML: "),
    ],
)
def test_a_wrong_config_is_told_by_key_and_value(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    file = tmp_path / "tiny.toml"
    assert old in TINY
    file.write_text(TINY.format(page="page.md").replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        config.read(file)


@pytest.mark.parametrize(
    "name", [*("core", "quick", "short", "published"), *("aligned", "aligned-tuning")]
)
def test_the_configs_are_valid_and_seed_major(name: str) -> None:
    plan = config.read(STUDIES / f"{name}.toml").plan
    keys = [key_of(planned.run) for planned in plan]
    assert len(set(keys)) == len(keys) > 0
    turns = [planned.run["seed"] % 10 for planned in plan]  # tuning seeds are 10 + n
    assert turns == sorted(turns)


# --- controls -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "warmup"),
    [
        ("digits MLP", {"steps": 50, "every": 2, "fast": 7}),
        ("digits MLP", {"steps": 50, "every": 2, "fast": 7, "on_settled": "ramp"}),
        ("digits MLP", {"steps": 50, "every": 2, "on_settled": "end"}),
        ("fine-tuning", {"steps": 30, "every": 2, "fast": 7, "shape": "cosine"}),
    ],
)
def test_controls_match_the_run_that_they_follow_from(
    task: str, warmup: dict[str, Any]
) -> None:
    """The same length, sum or factors. A replay is exactly the same run."""
    warmup = {"kind": "adaptive", **warmup}
    run = settings(task=task, warmup=warmup, updates=90)
    row = {**run, **train(run)}
    made = controls(row)
    lengths = [group["length"] for group in row["groups"]]
    assert all(0 < length < warmup["steps"] for length in lengths)
    length = train({**run, "warmup": made["length"]})
    assert [group["length"] for group in length["groups"]] == lengths
    assert train({**run, "warmup": made["replay"]})["loss"] == row["loss"]
    assert length["loss"] != row["loss"]
    shortfalls = [group["shortfall"] for group in row["groups"]]
    assert made["area"]["shortfall"] in (shortfalls, *shortfalls)
    for group in row["groups"]:
        own = factors(Facts(0.99, 90), warmup, group["spans"], group["length"])
        ramp = ramp_of(group["shortfall"])
        assert math.fsum(1 - f for f in own) == group["shortfall"]
        assert math.fsum(1 - f for f in ramp) == pytest.approx(
            group["shortfall"], abs=1e-9
        )
        steps = [b - a for a, b in itertools.pairwise(ramp[:-2])]
        assert steps == pytest.approx([ramp[0]] * len(steps))  # a straight line
        assert ramp[-1] == 1.0


def test_the_factors_of_a_row_are_those_that_were_applied() -> None:
    run = settings(warmup={"kind": "adaptive", "steps": 50, "every": 2, "fast": 7})
    torch.manual_seed(0)
    task = TASKS[run["task"]]
    model = task.model(data := task.data(None))
    optimizer, _ = warmed(
        run, optimizer_of(run, task, model), facts := Facts(0.99, run["updates"])
    )
    draw, applied = torch.Generator().manual_seed(0), []
    while not optimizer.done:
        applied += optimizer.factors
        x, y = data.batch(draw, 64)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    row = train(run)
    (group,) = row["groups"]
    assert factors(facts, run["warmup"], group["spans"], len(applied)) == applied


def test_a_trace_changes_nothing_and_can_be_read(tmp_path: Path) -> None:
    run = settings(warmup={"kind": "linear", "steps": 50})
    assert train(run, traces=tmp_path)["loss"] == train(run)["loss"]
    trace = Trace.load(tmp_path / f"{name_of(run)}.jsonl")
    assert [row["update"] for row in trace] == list(range(5, 50, 5))


def test_readings_do_not_know_the_peak_lr() -> None:
    """Up to the jump, the LRs are the same. Then one is at 0.003, one goes to 0.1."""

    def jump(lr: float, steps: int) -> dict[str, Any]:
        warmup = {"kind": "jump", "steps": steps, "at": 30}
        return train(settings(lr=lr, warmup=warmup, updates=60))

    low, high = jump(0.1 / 32, 30), jump(0.1, 960)
    assert low["reading"] == high["reading"]
    assert None not in low["reading"].values()
    assert low["loss"] != high["loss"]


def test_adaptive_is_fixed_before_the_first_verdict_acts() -> None:
    """So the study does not have to run it with such a short cap."""
    losses = [
        train(settings(beta2=0.999, warmup={"kind": kind, "steps": steps}))["loss"]
        for steps in (tables.BLIND, 2 * tables.BLIND)
        for kind in ("linear", "adaptive")
    ]
    assert losses[0] == losses[1]
    assert losses[2] != losses[3]


def test_a_run_that_did_not_end_has_no_controls() -> None:
    run = settings(warmup={"kind": "adaptive", "steps": 50}, updates=9)
    assert controls({**run, **train(run)}) == {}


# --- candidate rules ------------------------------------------------------------------


def reading(drifts: tuple[float, ...] = (), **changes: Any) -> Reading:
    nan = math.nan
    base = Reading(100, 20, 5, 5, 0.9, 0.99, 0.0, nan, nan, drifts, (90, 10))
    return base._replace(**changes)


def test_a_surge_is_the_mean_square_of_the_window_over_what_was_before() -> None:
    """With a moving average of known squares: 1 for 80 updates, then 3 for 20."""
    v, of = 0.0, {}
    for update in range(1, 101):
        v = 0.99 * v + 0.01 * (1.0 if update <= 80 else 3.0)
        of[update] = v / (1 - 0.99**update)
    drift = math.log(of[100] / of[80])
    (surge, _), (still, _) = surges(reading((drift, 0.0)))
    assert (surge, still) == (pytest.approx(3.0), pytest.approx(1.0))
    assert not Calm(limit=2.9)(reading((drift, 0.0)))
    assert Calm(limit=3.1)(reading((drift, 0.0)))
    assert Calm(limit=2.9, quantile=0.1)(reading((drift, 0.0)))  # by elements
    assert not Agreement(factor=2.9, quantile=0.2)(reading((drift, 0.0)))


@pytest.mark.parametrize("rule", [LossCalm, LossFalls])
def test_a_loss_that_rises_holds(rule: type[LossCalm]) -> None:
    up = [float(update % 2 + update // 4) for update in range(40)]
    for losses, settled in ((up, False), (up[::-1], True), ([math.nan] * 40, False)):
        watching = rule()
        watching.losses.extend(losses)
        assert watching(reading()) is settled
        assert not watching(reading(inverse_root_variance=0.03))
    assert not rule()(reading())  # has seen no loss


# --- data -----------------------------------------------------------------------------


def test_cifar_is_read_as_its_authors_ship_it(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    kept = {}
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        shape = (4, cifar.RECORD)
        records = torch.randint(256, shape, generator=random, dtype=torch.uint8)
        records[:, 0] = torch.arange(4)
        (tmp_path / f"{name}.bin").write_bytes(records.numpy().tobytes())
        kept[name] = records
    data = cifar.cifar10(tmp_path)
    x, y = data.validation
    assert y.tolist() == [0, 1, 2, 3]
    green = kept["test_batch"][2, 1 + 1024 : 1 + 2048].view(32, 32).double() / 255
    assert x[2, 1].double() == pytest.approx((green - 0.4822) / 0.2435, abs=1e-6)
    crops, labels = data.batch(torch.Generator().manual_seed(1), 64)
    assert crops.shape == (64, 3, 32, 32)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    whole, _ = cifar.read([tmp_path / f"data_batch_{i}.bin" for i in (1, 2)])
    for crop in crops:  # shifted by up to 4 pixels, half of them mirrored
        inner = crop[:, 8:24, 8:24]
        assert any(
            torch.equal(inner, seen[:, top : top + 16, left : left + 16])
            for image in whole
            for seen in (image, image.flip(2))
            for top in range(4, 13)
            for left in range(4, 13)
        )
    for model, count in ((cifar.resnet20, 269_722), (cifar.wrn16_4, 2_748_890)):
        network = model(data)
        assert sum(p.numel() for p in network.parameters()) == count
        assert network(crops[:2]).shape == (2, 10)
    run = settings(task="ResNet-20", updates=1, evaluations=1)
    assert train(run, folder=tmp_path)["loss"] is not None
    with pytest.raises(ValueError, match="--data must be the folder"):
        cifar.read([])
    (tmp_path / "test_batch.bin").write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"test_batch\.bin must be CIFAR-10"):
        cifar.read([tmp_path / "test_batch.bin"])


@pytest.mark.parametrize("name", [name for name in TASKS if name not in OF_CIFAR])
def test_every_task_trains(name: str) -> None:
    row = train(settings(task=name, updates=3, evaluations=1))
    assert row["loss"] is not None
    assert row["initial"] != row["loss"]


# --- measures -------------------------------------------------------------------------


def result(lr: float, steps: int, seed: int, loss: float | None) -> dict[str, Any]:
    run = settings(lr=lr, seed=seed, warmup={"kind": "linear", "steps": steps})
    told = {"loss": loss, "failed": loss is None, "chance": 2.0, "initial": 1.0}
    return {**run, **told, "groups": [{"length": steps}]}


def test_regret_and_sensitivity_have_known_answers() -> None:
    """Tuning seeds choose the best length; failures do not change the spread."""
    losses = {  # steps -> of tuning seeds 10 and 11, of seeds 0, 1, 2
        0: ((0.9, 0.9), (0.5, 0.7, None)),
        6: ((0.3, 0.5), (0.4, 0.5, 0.6)),
        18: ((0.5, 0.6), (0.1, 0.2, 0.6)),
        60: ((0.1, 0.1), (0.7, 0.8, 0.9)),  # the whole run: no candidate
    }
    rows, plan = [], []
    for lr, (steps, (tuning, deciding)) in itertools.product(
        (0.01, 0.1), losses.items()
    ):
        seeds = [*zip((10, 11), tuning, strict=True), *enumerate(deciding)]
        for seed, value in seeds:
            worse = value if lr == 0.01 or value is None else value + 0.7
            rows.append(row := result(lr, steps, seed, worse))
            plan.append(config.Planned(row))
    study = config.Config("made up", (Path("page.md"),), 1.0, plan, {10, 11})
    low, high = measures.grouped(measures.Results(study, {}, rows))
    assert low.best == high.best == "fixed 10 %"
    # Variances .01 at 6 and .07 at 18 updates; "none" has failed once.
    assert low.spread == pytest.approx(math.sqrt(0.04))
    assert low.regret("fixed 30 %") == pytest.approx({0: -1.5, 1: -1.5, 2: 0.0})
    assert low.regret("none") == pytest.approx({0: 0.5, 1: 1.0, 2: 7.0})  # a guess
    assert (low.failed("none"), low.failed("fixed 10 %")) == (1, 0)
    # The lowest loss is .5, at 6 updates and LR .01; at LR .1 each counts 1.0 at most.
    assert measures.sensitivity([low, high], "fixed 100 %") == pytest.approx(
        {seed: ((value - 0.5) + 0.5) / 2 for seed, value in enumerate((0.7, 0.8, 0.9))}
    )
    line = tables.regrets([low, high], ["fixed 30 %"]).splitlines()[-1]
    assert line == (
        "| fixed 30 % | 2 | -1.00 ± 2.15 | -1.0 (digits MLP, β₂ 0.99, LR 0.01) | 0 "
        "| 0 of 6 | 0 | +0.100 ± 0.448 | 18 (18 to 18) |"
    )


def test_a_candidate_wins_only_by_all_that_was_registered() -> None:
    """Better than the default and the clock, no cell worse, and no more failures."""
    cell = measures.Cell("digits MLP", "Adam", 0.99, 0.01, 60)
    fixed = [0.40, 0.50, 0.60]  # a seed standard deviation of 0.1

    def group(**losses: list[float]) -> measures.Group:
        made = measures.Group(cell)
        named = {"fixed 10 %": fixed, tables.DEFAULT: [0.50, 0.60, 0.70], **losses}
        named[tables.CLOCK] = named.pop("clock", named[tables.DEFAULT])
        for name, values in named.items():
            made.rows[name] = {
                seed: {**result(0.01, 6, seed, value), "failed": value > 0.9}
                for seed, value in enumerate(values)
            }
        made.tuning["fixed 10 %"] = {10: result(0.01, 6, 10, 0.5)}
        return made

    def wins(**losses: list[float]) -> bool:
        return tables.wins([group(**losses)], "new")[1]

    assert wins(new=[0.41, 0.50, 0.61])
    assert not wins(new=[0.30, 0.70, 0.61])  # too close to say
    assert not wins(new=[0.41, 0.50, 0.61], clock=[0.41, 0.50, 0.61])
    assert not wins(new=[0.51, 0.60, 0.71])
    told, _ = tables.wins([group(new=[0.41, 0.50, 0.61])], "new")
    assert told.startswith("minus the default **-0.93 ± 0.14**, the clock **-0.93")
    assert told.endswith("worst cell +0.1 (+1.0); failed 0 (0)")


def test_what_orders_safe_jumps_has_known_answers() -> None:
    def order(*pairs: tuple[float | None, bool]) -> float | None:
        rows = [({"x": x}, is_safe) for x, is_safe in pairs]
        return tables.ordered(rows, lambda row: row["x"])

    assert order((1, True), (2, True), (3, False)) == 1.0
    assert order((1, False), (2, True), (2, False), (None, True)) == 0.25
    assert order((1, True), (2, True), (None, False)) is None


def test_intervals_are_those_of_student() -> None:
    assert measures.margin([0.1, 0.2, 0.1, 0.2]) == pytest.approx(3.182 * 0.0288675)
    assert measures.margin([1.0] * 4 + [2.0]) == pytest.approx(2.776 * 0.2)
    cells: list[dict[int, float]] = [{0: 1.0, 1: 2.0, 2: 5.0}, {0: 3.0, 1: 4.0}, {}]
    assert measures.over_seeds(cells) == [2, 3]


# --- the pages ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["short", "core"])
def test_the_pages_are_made_from_their_record(name: str) -> None:
    study = config.read(STUDIES / f"{name}.toml")
    known = short.TABLES if name == "short" else tables.TABLES
    results = pages.results_of(study, study.results)
    named = []
    for path in study.pages:
        page = path.read_text(encoding="utf-8")
        named += re.findall(r"<!-- table: (\w+) -->", page)
        assert pages.rendered(page, results, None) == page
    assert sorted(named) == sorted(known)


def study_short() -> config.Config:
    return config.read(STUDIES / "short.toml")


def short_record() -> dict[Cell, dict[str, Any]]:
    return short.by_cell(read(study_short().results)[1])


def test_the_figures_of_the_text_are_those_of_the_record() -> None:
    docs = [config.ROOT / "docs" / "adaptive.md", *study_short().pages]
    text = " ".join(" ".join(page.read_text("utf-8").split()) for page in docs)
    found = short.ladders(short_record())
    groups = [group for levels in found for group in levels]
    ends = [
        sorted(n for group in groups for n in group.lengths(Warmup("adaptive", cap)))
        for cap in short.CAPS
    ]
    assert all(max(own) < cap for own, cap in zip(ends, short.CAPS, strict=True))
    first, soon = zip(*((own[0], own[len(own) * 3 // 4]) for own in ends), strict=True)
    assert "{} with cap 300 and {} with cap 3000".format(*first) in text
    assert "ended by update {} and {}.".format(*soon) in text
    assert f"ended between updates {first[0]} and {soon[0]}," in text

    def verdicts(groups: list[Group]) -> list[int]:
        return [short.verdict(g.minus(ADAPTIVE, g.best())) for g in groups]

    told, low = verdicts(groups), verdicts([levels[0] for levels in found])
    assert -1 not in told
    assert f"of the {len(told)} combinations" in text
    assert f"Of the {len(told)} combinations" in text
    assert f"clearly worse in {told.count(1)}." in text
    assert f"clearly worse in {told.count(1)}, and" in text
    assert f"clearly worse in {low.count(1)} of {len(low)} combinations" in text

    post = [g for *_, g in found if g.task == "char-LM post-LN"]
    fails = [
        sum(group.failed(warmup) for group in post)
        for warmup in (ADAPTIVE, short.ADAPTIVE_LONG, Warmup("fixed", 300))
    ]
    told_of = "{} of {} runs failed with cap 300 and {} with cap 3000".format
    assert told_of(fails[0], sum(len(g.seeds) for g in post), fails[1]) in text
    assert f"over 300 updates {fails[2]} did, over 3000 none." in text
    assert not any(group.failed(short.TOO_LONG) for group in post)

    modes = " ".join((DOCS / "modes.md").read_text(encoding="utf-8").split())
    assert f"In {len(short_record())} small runs" in modes
    assert f"of {len(told)} combinations of task, optimizer and" in modes
    assert f"it was worse in {told.count(1)}, and no difference" in modes
    assert f"could be shown in {told.count(0)}." in modes
    assert f"ended between updates {first[0]} and {soon[0]}." in modes


def test_the_findings_of_the_study_are_those_of_the_record() -> None:
    """What the pages say in words."""
    study = config.read(STUDIES / "core.toml")
    results = pages.results_of(study, study.results)
    modes = " ".join((DOCS / "modes.md").read_text(encoding="utf-8").split())
    assert f"before its {len(results.rows)} runs" in modes
    groups = measures.grouped(results)
    ladders = tables.ladders(groups)
    regret = {
        name: fmean(measures.over_seeds(group.regret(name) for group in groups))
        for name in tables.names(groups)
        if tables.is_plain(name)
    }
    assert min(regret, key=regret.__getitem__) == "fixed 30 %"
    assert 0.3 < regret[tables.DEFAULT] < 0.37  # a third
    failed = [
        sum(group.failed(group.best if which == "best" else which) for group in groups)
        for which in (tables.DEFAULT, "best", "none")
    ]
    assert failed == [12, 11, 27]
    above = [g for g in groups if fmean(g.regret(tables.DEFAULT).values()) > 2]
    assert (len(above), len(groups), len(ladders)) == (2, 44, 11)
    assert all(group in [ladder[0] for ladder in ladders] for group in above)

    def told(which: list[measures.Group], name: str, other: str) -> int:
        spreads = tables.spreads(which, name, other)
        return measures.verdict(measures.over_seeds(spreads))

    deciding = list(itertools.filterfalse(tables.tunes, groups))
    tuning = list(filter(tables.tunes, groups))
    assert told(groups, "fixed 30 %", "fixed 10 %") == -1
    assert told(groups, tables.DEFAULT, "fixed 30 %") == 0
    assert told(deciding, "gi", tables.DEFAULT) == 1
    for which, other in (
        *((deciding, "loss_calm spreads=0.0"), (deciding, "clock updates=25")),
        *((tuning, "clock updates=25"), (tuning, "every=1"), (tuning, "every=20")),
        *((tuning, "window=3"), (tuning, "window=10")),
        *((tuning, "fast=20"), (tuning, "fast=300")),
    ):
        assert told(which, f"{tables.DEFAULT} {other}", tables.DEFAULT) == 0, other

    length, replay = (
        [tables.beats(ladder[-2:], control) for ladder in ladders]
        for control in ("length", "replay")
    )
    assert sum(map(all, zip(length, replay, strict=True))) == 1
    post_ln = [ladder[0].cell.task == "char-LM post-LN" for ladder in ladders]
    assert list(itertools.compress(length, post_ln)) == [True, True]
    assert list(itertools.compress(replay, post_ln)) == [False, False]


def test_the_figures_of_the_page_on_choosing_are_those_of_the_record() -> None:
    page = config.ROOT / "docs" / "choosing.md"
    text = " ".join(page.read_text(encoding="utf-8").split())
    found = short.ladders(short_record())
    first = [levels[0].best().steps for levels in found]
    edge = [levels[-1].best().steps for levels in found]
    best_soon = f"{first.count(0) + first.count(20)} of {len(first)} cases"
    assert f"was 0 or 20 in {best_soon}" in text
    assert f"it was 300 in {edge.count(300)} of {len(edge)}." in text
    lost = [fmean(low.minus(short.TOO_LONG, low.best())) for low, *_ in found]
    assert f"lost {min(lost):.1f} to {max(lost):.1f} nats" in text


def test_the_short_record_holds_the_whole_grid_and_every_control() -> None:
    study = config.read(STUDIES / "short.toml")
    rows = {key_of(row): row for row in read(study.results)[1]}
    expected = set()
    for planned in study.plan:
        expected.add(key := key_of(planned.run))
        expected |= {key_of(each.run) for each in pool.follow(planned, rows[key])}
    assert set(rows) == expected


def made_up(losses: dict[Warmup, list[float | None]]) -> Group:
    rows = {}
    for (warmup, own), seed in itertools.product(losses.items(), range(4)):
        kind, length = "linear", warmup.steps
        if warmup.kind == "adaptive":
            kind, length = "adaptive", 130 + seed  # whose fixed runs are the controls
        steps = 130 + seed if warmup.kind == "control" else warmup.steps
        rows[Cell("task", "Adam", 0.1, seed, kind, steps)] = {
            "loss": own[seed],
            "failed": own[seed] is None,
            "chance": 2.0,
            "groups": [{"length": length}],
        }
    return Group(rows, "task", "Adam", 0.1)


def test_the_statistics_of_the_short_record_have_known_answers() -> None:
    """Runs are paired by seed; a lost run counts as a guess; the best mean wins."""
    group = made_up(
        {
            Warmup("fixed", 0): [None, 3.0, 0.1, 0.1],
            Warmup("fixed", 20): [0.2, 0.2, 0.2, 0.7],
            Warmup("fixed", 100): [0.3, 0.3, 0.3, 0.3],
            Warmup("fixed", 300): [0.9, 0.9, 0.9, 0.9],
            ADAPTIVE: [0.4, 0.5, 0.4, 0.5],
            Warmup("control", 300): [0.4, 0.6, 0.2, 0.6],
        }
    )
    assert group.losses(Warmup("fixed", 0)) == [2.0, 2.0, 0.1, 0.1]
    assert group.failed(Warmup("fixed", 0)) == 1
    assert group.best() == Warmup("fixed", 100)  # 0.3 to 0.325
    assert group.best(but=3) == Warmup("fixed", 20)
    assert short.difference(group.minus(ADAPTIVE, group.best())) == (
        "**+0.150 ± 0.029**"  # 0.1, 0.2, 0.1, 0.2; t is 5.2, beyond 3.182
    )
    assert group.minus_best_of_others(ADAPTIVE) == pytest.approx([0.1, 0.2, 0.1, -0.2])
    same_length = group.minus(ADAPTIVE, Warmup("control", 300))
    assert same_length == pytest.approx([0, -0.1, 0.2, -0.1])
    assert short.difference(same_length) == "+0.000 ± 0.071"
    assert short.by_seed([[0.1, 0.3], [0.3, 0.5]]) == pytest.approx([0.2, 0.4])
    assert [short.verdict([v, v, v + 0.1]) for v in (-1.0, 0.0, 1.0)] == [-1, 0, 1]
