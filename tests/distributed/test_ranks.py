"""The process groups that other tests use: what happens when a rank fails."""

from __future__ import annotations

import pytest
from torch import distributed

from tests.support.ranks import Ranks, on_all_ranks

pytestmark = pytest.mark.xdist_group("ranks")


def check_fails_on(rank: int) -> None:
    if distributed.get_rank() == rank:
        raise ValueError("of this rank alone")
    distributed.barrier()


def check_waits_for(rank: int) -> None:
    if distributed.get_rank() != rank:
        distributed.barrier()


def test_a_failure_of_one_rank_is_told_and_the_next_check_runs() -> None:
    ranks = Ranks(2, timeout=5.0)
    with pytest.raises(AssertionError, match=r"(?s)rank 1 of 2.*of this rank alone"):
        ranks.run(check_fails_on, 1)
    with pytest.raises(AssertionError, match=r"(?s)rank 0 of 2.*barrier.*Timed out"):
        ranks.run(check_waits_for, 1)
    assert ranks.run(on_all_ranks, 1) == [[1, 1], [1, 1]]
    ranks.stop()
