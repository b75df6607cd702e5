"""Trains in parallel processes of one thread each; only the parent writes results.

If a run fails, takes too long or ends its process, that is its result. If the parent
ends, its workers end at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.study.config import Planned
from benchmarks.study.store import Row, Store, key_of
from benchmarks.study.tasks import TASKS, Task
from benchmarks.study.warmups import WARMUPS, controls

SPAWN = get_context("spawn")  # CUDA does not work after a fork


class Where(NamedTuple):
    """Where the runs run: processes, device, folders, time limit.

    The tasks and kinds of warmups are those of one's own: a worker must be told.
    """

    workers: int = 1
    device: str = "cpu"
    folder: Path | None = None
    traces: Path | None = None
    timeout: float = 600.0
    tasks: dict[str, Task] | None = None
    kinds: dict[str, Callable[..., dict[str, Any]]] | None = None


def follow(planned: Planned, row: Row) -> list[Planned]:
    """Returns the controls of a run, which can be made once its result is known."""
    if row.get("error") or not planned.controls:
        return []
    made = controls(row)
    return [
        Planned(
            {
                **planned.run,
                "warmup": made[name],
                "seed": planned.next_seed if name == "replay" else planned.run["seed"],
            }
        )
        for name in planned.controls
        if name in made
    ]


def fill(
    plan: Iterable[Planned], store: Store, where: Where, tell: Callable[..., None]
) -> None:
    """Runs what the store does not have; calls `tell` with rows and counts.

    The controls of a run come directly after it, so that the results can be compared
    at any time.
    """
    left = deque(plan)
    for planned in left:
        tell(found=1 + len(planned.controls))
    workers: list[Worker] = []
    busy: dict[Worker, Planned] = {}
    running: set[str] = set()
    later: list[Planned] = []  # the same as one that is running

    def next_missing() -> Planned | None:
        while left:
            planned = left.popleft()
            key = key_of(planned.run)
            if key in store.rows:
                finished(planned, store.rows[key], new=False)
            elif key in running:
                later.append(planned)
            else:
                return planned
        return None

    def finished(planned: Planned, row: Row, new: bool) -> None:
        follows = follow(planned, row)
        left.extendleft(reversed(follows))
        tell(done=row, new=new, dropped=len(planned.controls) - len(follows))

    try:
        while True:
            while len(busy) < where.workers and (planned := next_missing()):
                worker = next((w for w in workers if w not in busy), None)
                if worker is None:
                    worker = Worker(len(workers), where)
                    workers.append(worker)
                worker.begin(planned.run)
                busy[worker] = planned
                running.add(key_of(planned.run))
            if not busy:
                if not later:
                    return
                left.extend(later)
                later.clear()
                continue
            for worker in ended(busy, where.timeout):
                planned, result = busy.pop(worker), worker.result
                if worker.is_lost:
                    workers.remove(worker)
                row = {**planned.run, **result}
                store.add(row)
                running.discard(key_of(planned.run))
                finished(planned, row, new=True)
                left.extendleft(reversed(later))
                later.clear()
    finally:
        for worker in workers:
            worker.kill()


def ended(busy: Iterable[Worker], timeout: float) -> list[Worker]:
    """Waits until a worker is ready; kills those that take too long."""
    by_pipe = {worker.pipe: worker for worker in busy}
    soonest = min(worker.began for worker in by_pipe.values()) + timeout
    ready = connection.wait(by_pipe, max(0.0, soonest - time.monotonic()))
    for pipe in ready:
        by_pipe[pipe].take()  # type: ignore[index]
    if ready:
        return [by_pipe[pipe] for pipe in ready]  # type: ignore[index]
    late = [w for w in busy if time.monotonic() >= w.began + timeout]
    for worker in late:
        worker.kill()
        worker.result = {"error": f"took longer than {timeout:g} s"}
    return late


class Worker:
    """A process that trains the runs that it gets."""

    def __init__(self, number: int, where: Where) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(theirs, number, where))
        self.process.start()
        theirs.close()
        self.began, self.is_lost = 0.0, False
        self.result: dict[str, Any] = {}

    def begin(self, run: dict[str, Any]) -> None:
        self.began = time.monotonic()
        self.pipe.send(run)

    def take(self) -> None:
        try:
            self.result = self.pipe.recv()
        except EOFError:
            self.kill()
            code = self.process.exitcode
            self.result = {"error": f"its process ended with exit code {code}"}

    def kill(self) -> None:
        self.is_lost = True
        self.process.kill()
        self.process.join()


def serve(pipe: connection.Connection, number: int, where: Where) -> None:
    """The loop of a worker: receives a run, sends back its results or its error."""
    threading.Thread(target=die_with_parent, daemon=True).start()
    import torch

    from benchmarks.study.train import train

    torch.set_num_threads(1)
    TASKS.update(where.tasks or {})
    WARMUPS.update(where.kinds or {})
    device = where.device
    if device == "cuda":
        device = f"cuda:{number % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    while True:
        try:
            run = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(train(run, device, where.folder, where.traces))
        except Exception as error:  # an error is a result too
            pipe.send({"error": f"{type(error).__name__}: {error}"})


def die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
