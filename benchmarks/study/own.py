"""A study of one's own, from a Python file. docs/research.md has an example.

    study = Study("build/mine", tasks={...}, warmups={...}, lrs=[...], updates=400)
    if __name__ == "__main__":
        run(study, workers=4)
        report(study)

In its folder are the results, the report, and the pictures of the report.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.study import config, pages, pool
from benchmarks.study.data import Data, of_samples
from benchmarks.study.store import Row, Store, key_of
from benchmarks.study.tasks import TASKS, Task, always
from benchmarks.study.train import train
from benchmarks.study.warmups import WARMUPS, Facts

__all__ = ["Data", "Facts", "Study", "Task", "always", "of_samples", "report", "run"]


@dataclass(frozen=True)
class Study:
    """Every task with every LR, optimizer and warmup, once for each seed.

    Attributes:
        folder: Where all that it writes goes. It is made if it is not there.
        tasks: What is trained, by name. `TASKS` has those of our studies.
        warmups: By name, the settings of a warmup: its `kind`, which is a function or a
            name of `WARMUPS`, and the options of that. An option that is a list stands
            for one warmup with each of its values; `steps` may be a share of the run.
            `controls` lists the controls that are made from each run: see core.toml.
        lrs: Learning rates.
        updates: Length of a run.
        optimizers: Names of `OPTIMIZERS`.
        beta2: Values for the optimizers; by default their own.
        seeds: One run for each.
        tuning_seeds: Others, on which the best fixed length is chosen. Without them the
            report has no regret.
        evaluations: Of how many evaluations at the end the final loss is the mean.
        timeout: Seconds that a run may take, if it runs in a process of its own.
    """

    folder: str | Path
    tasks: Mapping[str, Task]
    warmups: Mapping[str, Mapping[str, Any]]
    lrs: Sequence[float]
    updates: int
    optimizers: Sequence[str] = ("Adam",)
    beta2: Sequence[float] = ()
    seeds: Sequence[int] = (0, 1, 2)
    tuning_seeds: Sequence[int] = ()
    evaluations: int = 1
    timeout: float = 600.0

    @property
    def results(self) -> Path:
        """JSON lines: the machine, then one line for each run."""
        return Path(self.folder) / "results.jsonl"

    @property
    def kinds(self) -> dict[str, Callable[..., dict[str, Any]]]:
        """The functions among the kinds of warmups, by their names."""
        found: dict[str, Callable[..., dict[str, Any]]] = {}
        for name, settings in self.warmups.items():
            kind = settings.get("kind")
            if callable(kind):
                own = kind.__name__
                if own in WARMUPS or found.get(own, kind) is not kind:
                    raise config.wrong(
                        f"warmups.{name}: kind",
                        kind,
                        "a function with a name that no other kind has",
                    )
                found[own] = kind
        return found

    def plan(self) -> config.Config:
        """Its runs; call it while the study is `known`."""
        warmups = {
            name: {**settings, "kind": getattr(kind, "__name__", kind)}
            for name, settings in self.warmups.items()
            for kind in [settings.get("kind")]
        }
        grid: dict[str, Any] = {"tasks": list(self.tasks), "warmups": list(warmups)}
        for key in ("lrs", "optimizers", "beta2", "seeds", "tuning_seeds"):
            if values := list(getattr(self, key)):
                grid[key] = values
        grid |= {"updates": self.updates, "evaluations": self.evaluations}
        content = {"grid": [grid], "warmups": warmups, "timeout": self.timeout}
        folder = Path(self.folder)
        return config.of(folder.resolve().name, content, folder / "report.md")

    @contextmanager
    def known(self) -> Iterator[config.Config]:
        """Its tasks and warmups are among the known ones for a while."""
        kinds = self.kinds
        kept = [(table, dict(table)) for table in (TASKS, WARMUPS)]
        TASKS.update(self.tasks)
        WARMUPS.update(kinds)
        try:
            yield self.plan()
        finally:
            for table, before in kept:
                table.clear()  # type: ignore[attr-defined]
                table.update(before)  # type: ignore[attr-defined]


def run(study: Study, workers: int = 1) -> list[Row]:
    """Runs what is missing, and returns all rows. Stop it and go on at any time.

    A row is known by its settings: if you change what a function of yours does, take
    another folder, or another name.

    Args:
        study: What to run.
        workers: How many processes train. With one it is this process: what goes wrong
            is raised at once. With more, `run` must be called below
            `if __name__ == "__main__":`, and a run that fails is recorded as that.

    Raises:
        RuntimeError: Some runs had an error. They run again the next time.
        ValueError: A setting is wrong, or the functions cannot be sent to processes.
    """
    if multiprocessing.parent_process() is not None:
        raise RuntimeError(
            'run must be called below `if __name__ == "__main__":`, since each worker '
            "imports the file."
        )
    where = pool.Where(
        workers, timeout=study.timeout, tasks=dict(study.tasks), kinds=study.kinds
    )
    with study.known() as plan, Store(study.results, retry=True) as store:
        if workers == 1:
            _run_here(plan, store)
        else:
            _check_can_be_sent(where)
            from benchmarks.study.__main__ import run as run_in_processes

            run_in_processes(plan, store, where)
        rows = list(store.rows.values())
    if errors := [row["error"] for row in rows if row.get("error")]:
        raise RuntimeError(
            f"{len(errors)} of {len(rows)} runs had an error; call run again to repeat "
            f"them. The first: {errors[0]}"
        )
    return rows


def _run_here(plan: config.Config, store: Store) -> None:
    """One run after the other, each followed by its controls."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    left = deque(plan.plan)
    try:
        while left:
            planned = left.popleft()
            key = key_of(planned.run)
            if key not in store.rows:
                store.add({**planned.run, **train(planned.run)})
            left.extendleft(reversed(pool.follow(planned, store.rows[key])))
    finally:
        torch.set_num_threads(threads)


def _check_can_be_sent(where: pool.Where) -> None:
    try:
        pickle.dumps((where.tasks, where.kinds))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            "workers must be 1 unless tasks and warmups are made of functions that "
            f"stand at the top of a file, got {where.workers}: {error}."
        ) from error


def report(study: Study) -> Path:
    """Writes the tables and figures of what has run so far, and returns the page.

    Only what stands between the markers is written. So a page that is there keeps the
    text around them, and has the tables that it names.
    """
    with study.known() as plan:
        Path(study.folder).mkdir(parents=True, exist_ok=True)
        pages.write(plan, study.results)
        return plan.pages[0]
