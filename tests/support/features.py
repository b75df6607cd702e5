"""What not every release of torch has, said once: tests that need it are marked."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import optim
from torch.nn import Parameter

Adafactor: Any = getattr(optim, "Adafactor", None)
Muon: Any = getattr(optim, "Muon", None)
# Before 2.9 it asks for streams and fails, or adds up gradients and does not average.
FSDP2_ON_CPU = torch.__version__ >= "2.9"
NO_FSDP2 = "this torch has no right FSDP2 on a CPU"

WARNINGS_OF_TORCH = [
    "The epoch parameter in",  # its SequentialLR steps its schedulers in that way
    "You are using `torch.load` with `weights_only=False`",  # so does Lightning
    "Guards may run slower on Python 3.13.0",
    "FSDP.state_dict_type.. and FSDP.set_state_dict_type.. are being deprecated",
    "Warning. Profiler clears events",  # a colon would end the pattern
    "TypedStorage is deprecated",  # its distributed checkpoints use one
    "DTensor random operators may not have complete support",
    "torch.distributed is .*un(available|initialized)",  # a checkpoint of one process
]
"""How the warnings begin that some releases give about their own code."""


def imports(name: str) -> bool:
    """Whether a module can be imported. One made for another torch may fail anyhow."""
    try:
        import_module(name)
    except Exception:
        return False
    return True


def force_eager() -> contextlib.AbstractContextManager[None]:
    """Ignores torch.compile inside other libraries, if this torch can do that."""
    stance: Any = getattr(torch.compiler, "set_stance", None)
    return stance("force_eager") if stance else contextlib.nullcontext()


def needs(feature: Any, why: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not feature, reason=why)


def adagrad_takes_late_groups() -> bool:
    """Whether Adagrad can step a group that was added later."""
    optimizer = optim.Adagrad([Parameter(torch.zeros(1))])
    late = Parameter(torch.zeros(1))
    late.grad = torch.ones(1)
    optimizer.add_param_group({"params": [late]})
    try:
        optimizer.step()
    except KeyError:
        return False
    return True


def sgd_takes_differentiable_lr() -> bool:
    """Whether SGD can be differentiated by its LR."""
    weight = Parameter(torch.zeros(1))
    lr = torch.tensor(0.1, requires_grad=True)
    optimizer = optim.SGD([weight], lr=lr, differentiable=True)
    optimizer.param_groups[0]["params"] = [weight.clone()]
    optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
    try:
        optimizer.step()
    except TypeError:
        return False
    return True


needs_adafactor = needs(Adafactor, "this torch has no optim.Adafactor")
needs_muon = needs(Muon, "this torch has no optim.Muon")
needs_differentiable_lr = needs(
    sgd_takes_differentiable_lr(), "SGD of this torch takes no differentiable LR"
)
needs_fsdp2 = needs(FSDP2_ON_CPU, NO_FSDP2)
needs_exported_names = needs(
    hasattr(optim, "__all__"), "type checkers do not see the names of this torch.optim"
)
needs_torchao = needs(imports("torchao.optim"), "torchao wants another torch")
