"""The study of aligned mode: its kinds, controls, optimizers, grids and tables."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

pytest.importorskip("tomllib")  # Python 3.11

from benchmarks.study import aligned_tables, config, measures, pages, tables
from benchmarks.study.hands import CHANGES, Climbing, LossGap
from benchmarks.study.optimizers import OPTIMIZERS
from benchmarks.study.store import Store, environment, key_of
from benchmarks.study.train import train
from benchmarks.study.warmups import controls
from tests.project.test_study import STUDIES, reading, settings
from warmopt.criteria import InverseRootVariance, Steady

ALIGNED = {"kind": "aligned", "steps": 40}


def of(row: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of the only group."""
    (group,) = row["groups"]
    found: dict[str, Any] = group
    return found


# --- kinds and controls ---------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The warmup of param group")
def test_an_aligned_run_records_how_it_ended_and_its_controls_follow_it() -> None:
    run = settings(lr=3.0, warmup=ALIGNED)
    row = {**run, **train(run)}
    group, made = of(row), controls(row)
    assert (row["done_reason"], group["reason"]) == ("held", "held")
    assert group["factor"] < 0.01
    assert len(group["factors"]) in (39, 40)  # those of the updates while it climbs
    assert made["replay"]["factors"] == [[*group["factors"], group["factor"]]]
    assert made["held_ramp"]["factor"] == group["factor"]
    again = train({**run, "warmup": made["replay"]})
    assert again["loss"] == pytest.approx(row["loss"], abs=0.01)  # 6 digits are kept
    ramp = train({**run, "warmup": made["held_ramp"]})
    assert ramp["loss"] < row["chance"] < train({**run, "warmup": NONE})["loss"]


NONE = {"kind": "linear", "steps": 0}


def test_a_fast_climb_is_told_to_be_full() -> None:
    """Where the LR is low the climb is at 1 before the cap."""
    warmup = {**ALIGNED, "steps": 150, "signal": "adam", "rule": "E1", "gain": 0.5}
    group = of(train(settings(lr=1e-4, updates=150, warmup=warmup)))
    assert (group["reason"], group["factor"]) == ("full", 1.0)
    assert group["length"] < 150


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_climb_ends_and_is_recorded(change: str) -> None:
    warmup = {"kind": "climbing", "steps": 30, "change": change}
    group = of(train(settings(lr=1.0, warmup=warmup)))
    assert 0.0 < group["factor"] < 1.0
    assert group["length"] <= 30
    assert group["reason"] == "held"


def test_gradients_of_the_same_batch_agree_too_well() -> None:
    fresh, same = (
        of(train(settings(warmup={"kind": "climbing", "steps": 40, "change": change})))
        for change in ("fresh", "same_batch")
    )
    assert same["factor"] > fresh["factor"]


def test_a_hand_reads_the_share_of_the_slope_that_is_left() -> None:
    """On x^2 / 2 a step of length s of the gradient leaves 1 - s."""
    x = torch.ones(1, requires_grad=True)
    hand = Climbing(100, "fresh", 0)
    for step in (0.25, 0.0):
        x.grad = x.detach().clone()
        hand.before([x], 0.0)
        with torch.no_grad():
            x -= step * x.grad
        hand.after([x], lambda: None)
    limits = hand.limits
    assert hand.factor == pytest.approx(limits.start * math.exp(limits.gain * 0.75))


def test_a_second_climb_goes_on_after_the_stall_until_a_falls() -> None:
    hand = Climbing(1000, "second", 0)
    step, one = torch.ones(1), torch.ones(1)
    readings = [0.6] * 8 + [0.0] * 31  # a signal, then a stall
    for a in [*readings, *[0.0] * 20]:
        hand.last = step, one
        hand._read(a * one)
        hand.done += 1
    stalled = hand.factor
    for _ in range(20):
        hand.last = step, one
        hand._read(0.0 * one)
    assert not hand.is_over
    assert hand.factor == pytest.approx(stalled * math.exp(20 * Climbing.RISE))
    for _ in range(40):
        hand.last = hand.last or (step, one)
        if not hand.is_over:
            hand._read(-one)
    assert hand.is_over


def test_the_loss_gap_rule_is_at_1_where_its_peak_is() -> None:
    hand = LossGap(1.0)
    hand.before([torch.zeros(30, 10)], 4.0)
    assert hand.factor == pytest.approx(0.01)
    assert hand.length is None
    peak = torch.tensor(hand.peak, dtype=torch.float64)
    assert float(hand._eta(peak, hand.peak)) == pytest.approx(1.0)
    hand.before([], 1.0 + (3.0 + hand.peak) / 2)
    assert 0.01 < hand.factor < 1.0
    hand.before([], 1.0 + hand.peak)
    hand.before([], 9.0)  # it is over for good
    assert (hand.factor, hand.length) == (1.0, 0)


def test_the_target_of_the_loss_gap_is_the_end_of_the_ramp() -> None:
    run = settings(warmup={"kind": "linear", "steps": 18})
    row = {**run, **train(run)}
    made = controls(row)
    assert made["loss_gap"] == {"kind": "loss_gap", "target": row["loss"]}
    assert made["loss_gap_off"]["target"] == pytest.approx(0.8 * row["loss"], abs=1e-5)
    assert of(train({**run, "warmup": made["loss_gap"]}))["factor"] >= 0.01


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.filterwarnings("ignore")  # old optimizers, and what the climb holds at
def test_every_optimizer_trains(name: str) -> None:
    warmup = {"kind": "linear", "steps": 0 if name == "Prodigy" else 2}
    updates, lr = (60, 1.0) if name == "Prodigy" else (8, 0.01)  # it begins slowly
    run = settings(optimizer=name, beta2=None, lr=lr, updates=updates, warmup=warmup)
    row = train(run)
    assert row["loss"] is not None
    assert row["loss"] != row["initial"]


def test_hypergradients_raise_the_lr_while_gradients_agree() -> None:
    x = torch.full((4,), 5.0, requires_grad=True)
    optimizer: Any = OPTIMIZERS["AdamHD"]([x], lr=1e-3)
    for _ in range(5):
        x.grad = x.detach().clone()
        optimizer.step()
    assert optimizer.added > 0.0
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_a_steady_growth_does_not_count_as_settled() -> None:
    """2 % an update is 0.4 over the window, in which 1 / sqrt(v) varies little."""
    grows = reading((0.4, 0.4), inverse_root_variance=0.005)
    rests = reading((0.1, 0.4), inverse_root_variance=0.005)  # nine tenths rest
    assert InverseRootVariance()(grows)
    assert [Steady()(each) for each in (grows, rests)] == [False, True]
    assert not Steady()(reading((0.0, 0.0), inverse_root_variance=0.03))


# --- the record -----------------------------------------------------------------------


def test_rows_of_another_record_do_not_run_again(tmp_path: Path) -> None:
    run, old = settings(), tmp_path / "old.jsonl"
    for machine, count in ((environment(), 1), ({"cpu": "another"}, 0)):
        lines = [{"machine": machine, "commit": ""}, {**run, "loss": 1.0}]
        old.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with Store(tmp_path / f"{count}.jsonl", reuse=old) as store:
            assert len(store.rows) == count
            assert (key_of(run) in store.rows) is bool(count)


def row(warmup: dict[str, Any], seed: int, loss: float, **more: Any) -> dict[str, Any]:
    group = {"length": 9, "reason": "held", "factor": 0.5, "factors": [0.1, 0.5]}
    return {
        **settings(lr=more.pop("lr", 0.01), seed=seed, warmup=warmup, updates=1000),
        **{"task": "batch 8, then 64", "loss": loss, "failed": loss > 1.0},
        **{"chance": 2.3, "initial": 2.3, "cpu_seconds": 36.0, "groups": [group]},
        **more,
    }


def record() -> measures.Results:
    """Two LRs of one ladder: aligned is .1 better than each ramp where it is hot."""
    rows = []
    for lr, worse in ((0.01, 0.0), (0.1, 0.1)):
        for seed in (0, 1, 2, 10, 11):
            noise = 0.05 * (seed % 10)
            for steps in (30, 300, 1000):
                ramp = {"kind": "linear", "steps": steps}
                rows.append(row(ramp, seed, 0.3 + worse + noise, lr=lr))
            if seed < 10:
                for more in ({}, {"threshold": -0.99}):
                    climb = {"kind": "aligned", "steps": 300, **more}
                    rows.append(row(climb, seed, 0.3 + noise, lr=lr))
                for criterion in ("inverse_root_variance", "steady"):
                    rule = {"kind": "adaptive", "steps": 300, "criterion": criterion}
                    rows.append(row(rule, seed, 0.3 + noise, lr=lr))
    plan = [config.Planned(each) for each in rows]
    study = config.Config("aligned", (Path("page.md"),), 1.0, plan, {10, 11})
    return measures.Results(study, {}, rows)


def test_the_targets_have_known_answers() -> None:
    """Regret is 0 at the low LR and -2 at the high one; sensitivity 0 of 0.05."""
    lines = aligned_tables.aligned_targets(record()).splitlines()[2:]
    assert [line.split(" | ")[1:] for line in lines] == [
        ["mean regret ≤ 0.5", "-1.00", "yes |"],
        ["no cell above 2.5", "+0.0", "yes |"],
        ["no failure", "0", "yes |"],
        ["LR sensitivity ≤ half", "0.000, best fixed 0.050", "yes |"],
        ["cold: nowhere told > 1 sd worse", "0 of 2 cells", "yes |"],
    ]


def test_the_fallback_is_a_confusion_table() -> None:
    text = aligned_tables.aligned_fallback(record())
    assert "| climbed | 0 | 6 |" in text
    assert "| fell back on the ramp | 0 | 0 |" in text


@pytest.mark.parametrize("share", [0, 4, 20, None])
def test_every_table_can_be_made_from_a_part_of_the_record(share: int | None) -> None:
    results = record()
    part = results._replace(rows=results.rows[:share])
    for make in aligned_tables.TABLES.values():
        assert make(part).startswith("| ")


def test_the_page_of_the_narrowing_has_its_table(tmp_path: Path) -> None:
    results, out = record(), tmp_path / "out.jsonl"
    lines = [{"machine": {}}, *results.rows]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = tmp_path / "page.md"
    study = results.study._replace(pages=(page,))
    pages.write(study, out)
    assert f"| {aligned_tables.ALIGNED} | 2 | 0 | 0.000 |" in page.read_text()


def test_the_pages_have_every_table_and_the_figures_are_drawn(tmp_path: Path) -> None:
    made = []
    for page in config.read(STUDIES / "aligned.toml").pages:
        text = page.read_text(encoding="utf-8")
        made.append(pages.rendered(text, record(), tmp_path))
    for name in {*aligned_tables.TABLES} - {"aligned_narrowing"}:
        assert f"<!-- table: {name} -->" in made[1]
    assert "| climbed | 0 | 6 |" in made[1]
    assert "<!-- figure: aligned_four -->" in made[0]
    drawn = [path.name for path in (tmp_path / "pictures").iterdir()]
    assert drawn == ["study-aligned-aligned_by_lr.svg"]  # the four tasks are not there


def test_the_findings_are_those_of_the_record() -> None:
    """What the pages say in words."""
    study = config.read(STUDIES / "aligned.toml")
    results = pages.results_of(study, study.results)
    every = aligned_tables.every(results)
    aligned, ramp = aligned_tables.ALIGNED, aligned_tables.RAMP
    one = [group for group in aligned_tables.at(every, 1) if group.losses(aligned)]
    four = [group for group in aligned_tables.at(every, 4) if group.losses(aligned)]
    docs = config.ROOT / "docs"
    page, guide, choosing, readme = (
        " ".join(path.read_text(encoding="utf-8").split())
        for path in (
            *(docs / f"{name}.md" for name in ("study-aligned", "aligned", "choosing")),
            config.ROOT / "README.md",
        )
    )

    def failed(groups: list[measures.Group], name: str) -> int:
        return sum(group.failed(name) for group in groups)

    def runs(groups: list[measures.Group], name: str) -> int:
        return sum(len(group.rows[name]) for group in groups if name in group.rows)

    lost = f"{failed(one, aligned)} of {runs(one, aligned)} runs"
    assert runs(one, aligned) == runs(one, ramp)
    for text in (page, guide, readme):
        assert lost in text
    assert f"a ramp over 30 % of the run in {failed(one, ramp)}" in readme
    for name, words in (("radam", "with RAdam's factor"), ("gi", "with GI")):
        assert f"{failed(one, name)} {words}" in page
    hot = [group for ladder in tables.ladders(one) for group in ladder[-2:]]
    best = sum(group.failed(group.best or "") for group in hot)
    told = f"{failed(hot, aligned)} of {runs(hot, aligned)} runs"
    assert f"{told} failed. With the best fixed length of each cell {best} did" in page
    assert f"in {told}, with the best length in {best}" in choosing

    at_one, at_four = (aligned_tables.asks(g, aligned) for g in (one, four))
    met = [sum(map(bool, (yes for *_, yes in asks))) for asks in (at_one, at_four)]
    told = f"{met[0]} are met at the usual length and {met[1]} at four times that"
    assert told in page
    above = [g for g in one if fmean(g.regret(aligned).values() or [0]) > 2.5]
    assert f"({len(above)} are, of {len(one)})" in page
    assert all(
        group in [ladder[0] for ladder in tables.ladders(one)] for group in above
    )
    for control in ("replay", "held_ramp"):
        name = f"{control} of {aligned}"
        spreads = tables.spreads(one, aligned, name)
        assert measures.verdict(measures.over_seeds(spreads)) == 0
    edge = tables.spreads(four, aligned, "climbing 30 % change=edge")
    assert measures.verdict(measures.over_seeds(edge)) <= 0

    of_steady = [
        g for g in measures.grouped(results) if g.losses(aligned_tables.STEADY)
    ]
    spreads = tables.spreads(of_steady, aligned_tables.STEADY, aligned_tables.DEFAULT)
    assert measures.verdict(measures.over_seeds(spreads)) == 0
    failures = [failed(of_steady, n) for n in (aligned_tables.STEADY, "adaptive 30 %")]
    assert "{} of 220 runs failed, {} before".format(*failures) in page


def test_the_narrowing_is_that_of_its_record() -> None:
    study = config.read(STUDIES / "aligned-tuning.toml")
    results = pages.results_of(study, study.results)
    plan = (config.ROOT / "docs" / "study-aligned-plan.md").read_text(encoding="utf-8")
    lines = aligned_tables.aligned_narrowing(results).splitlines()[2:]
    assert len(lines) == 6
    for line in lines:
        name, _, failed, excess = line.strip("| ").split(" | ")
        rule, signal = re.findall(r"=(\w+)", name)
        assert re.search(rf"\| {rule}, {signal}[^|]*\| {failed} \| {excess} \|", plan)
