"""FSDP2 and its tensors, which have moved between releases of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

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
    if torch.__version__ < "2.7":
        pytest.skip("this torch has no FSDP2 on a CPU")
    from torch.distributed import fsdp

    return fsdp.fully_shard(model, **options)
