"""FSDP2 and its tensors, which have moved between releases of torch."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from tests.support.features import FSDP2_ON_CPU, NO_FSDP2

try:
    from torch.distributed.tensor import DTensor as DTensor
    from torch.distributed.tensor import Shard as Shard
    from torch.distributed.tensor import distribute_tensor as distribute_tensor
except ImportError:  # 2.4
    from torch.distributed._tensor import DTensor as DTensor
    from torch.distributed._tensor import Shard as Shard
    from torch.distributed._tensor import distribute_tensor as distribute_tensor


def fully_shard(model: nn.Module, **options: Any) -> nn.Module:
    """FSDP2. Where this torch cannot do it on a CPU, the test is skipped."""
    if not FSDP2_ON_CPU:
        pytest.skip(NO_FSDP2)
    from torch.distributed import fsdp

    return fsdp.fully_shard(model, **options)
