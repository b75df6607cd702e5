"""What only a GPU can show; on other machines these tests are skipped."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch

from tests.optimizers import TORCH_ROWS, Row, assert_same, snapshot
from tests.reference import stepped_at

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CAPTURABLE = [
    Row(f"{name}-capturable", row.make, {"capturable": True}, warns=row.warns)
    for name, row in TORCH_ROWS.items()
    if name.endswith("-loop") and "capturable" in inspect.signature(row.make).parameters
]


@pytest.mark.parametrize(
    "row", [*TORCH_ROWS.values(), *CAPTURABLE], ids=lambda row: row.name
)
def test_every_update_on_cuda_is_that_of_a_hand_scaled_loop(row: Row) -> None:
    twins = [row.params(), row.params()]
    for params in twins:
        for param in params:
            param.data = param.data.cuda()
    warmed, bare = row.wrap(twins[0], steps=4), row.build(twins[1])
    for update in range(1, 7):
        row.step(warmed, twins[0], update)
        stepped_at(
            bare, [min(update / 4, 1.0)], partial(row.step, bare, twins[1], update)
        )
        assert_same(snapshot(bare, twins[1]), snapshot(warmed, twins[0]))
    assert warmed.done
