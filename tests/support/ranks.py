"""Process groups that live in worker processes and run one function after another."""

from __future__ import annotations

import datetime
import faulthandler
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from tests.support.features import WARNINGS_OF_TORCH
from tests.support.processes import FORKS


@dataclass
class Skipped:
    """What a rank returns that cannot run the test."""

    reason: str


class Ranks:
    """A process group of `size` ranks (gloo), which starts when it is first used.

    Args:
        size: How many ranks.
        timeout: Seconds that a collective may wait for the other ranks.
    """

    def __init__(self, size: int, timeout: float = 30.0) -> None:
        self.size = size
        self._timeout = timeout
        self._workers: list[tuple[Any, Connection]] = []

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What the function returns on each rank.

        The first rank that fails ends all of them, since the others may be waiting for
        it. The next call starts new ones.

        Raises:
            AssertionError: It failed on a rank; the message has the traceback.
            pytest.skip.Exception: A rank has skipped the test.
        """
        if not self._workers:
            self._start()
        for _, pipe in self._workers:
            pipe.send((function, args))
        ranks = {pipe: rank for rank, (_, pipe) in enumerate(self._workers)}
        results: dict[int, Any] = {}
        deadline = time.monotonic() + 2 * self._timeout
        while len(results) < self.size:
            left = [pipe for pipe, rank in ranks.items() if rank not in results]
            for pipe in wait(left, deadline - time.monotonic()) or left:
                try:
                    result, error = pipe.recv() if pipe.poll() else (None, "It hangs.")
                except EOFError:
                    error = "The process has died."
                if error:
                    self.stop()
                    raise AssertionError(f"rank {ranks[pipe]} of {self.size}: {error}")
                results[ranks[pipe]] = result
        if skipped := [r for r in results.values() if isinstance(r, Skipped)]:
            pytest.skip(skipped[0].reason)
        return [results[rank] for rank in range(self.size)]

    def stop(self) -> None:
        for process, pipe in self._workers:
            process.kill()
            process.join()
            pipe.close()
        if self._workers:
            self._folder.cleanup()
        self._workers = []

    def _start(self) -> None:
        # They meet at a file, since a port could be taken.
        self._folder = tempfile.TemporaryDirectory()
        store = Path(self._folder.name) / "store"
        for rank in range(self.size):
            pipe, theirs = FORKS.Pipe()
            args = (theirs, store, rank, self.size, self._timeout)
            process = FORKS.Process(target=_serve, args=args, daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, pipe))


def _serve(pipe: Connection, store: Path, rank: int, size: int, seconds: float) -> None:
    faulthandler.enable()  # else a crash of torch says nothing
    warnings.simplefilter("error")
    for start in WARNINGS_OF_TORCH:
        warnings.filterwarnings("ignore", start)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=seconds),
    )
    while True:
        function, args = pipe.recv()
        try:
            pipe.send((function(*args), None))
        except pytest.skip.Exception as skipped:
            pipe.send((Skipped(str(skipped)), None))
        except BaseException:
            pipe.send((None, traceback.format_exc()))


def on_all_ranks(value: Any) -> list[Any]:
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def alike(of_ranks: list[Any]) -> Any:
    """What all ranks have said; they must have said the same."""
    assert len(set(map(repr, of_ranks))) == 1
    return of_ranks[0]
