from __future__ import annotations

import pytest
import torch

from tests.optimizers import ROWS, Row


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=list(ROWS))
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@pytest.fixture(params=[name for name, row in ROWS.items() if not row.one_group])
def multi_group_row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]
