"""`torch.compile` of our step, of the wrapped step, and of a whole training step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.optim import Optimizer

from tests.support.optimizers import assert_same, snapshot
from tests.support.reference import lrs, stepped_at
from warmopt import Warmed
from warmopt._torch import in_compiled_region

# What dynamo imports at its first compilation gives warnings.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

STEPS, UPDATES = 12, 20  # more than dynamo's limit of 8

SGD = partial(torch.optim.SGD, momentum=0.9)
AdamW, RMSprop = torch.optim.AdamW, torch.optim.RMSprop
FLOAT = {
    "sgd-foreach": partial(SGD, foreach=True),
    "adamw-loop": partial(AdamW, foreach=False),
    "adamw-foreach": partial(AdamW, foreach=True),
    "adamw-fused": partial(AdamW, fused=True),
    "rmsprop-foreach": partial(RMSprop, eps=0.1, foreach=True),
}
TENSOR = {  # on a CPU, Adam's foreach path takes no tensor
    "sgd-foreach": partial(SGD, foreach=True),
    "adamw-loop": partial(AdamW, foreach=False),
    "adamw-fused": partial(AdamW, fused=True),
    "rmsprop-foreach": partial(RMSprop, eps=0.1, foreach=True),
}
CASES = {
    **{f"{name}-float": (make, lambda: 0.1) for name, make in FLOAT.items()},
    **{
        f"{name}-tensor": (make, lambda: torch.tensor(0.1))
        for name, make in TENSOR.items()
    },
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Training:
    """A small regression, one update at a time."""

    def __init__(self, make: Callable[..., Optimizer], lr: Any) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
        self.inputs = torch.randn(UPDATES, 16, 4)
        self.optimizer = make(list(self.model.parameters()), lr)

    def set_grads(self, inputs: Tensor) -> None:
        self.optimizer.zero_grad()
        self.model(inputs).square().mean().backward()

    def snapshot(self) -> Any:
        return snapshot(self.optimizer, list(self.model.parameters()))


def hand_scaled(case: str) -> list[Any]:
    make, lr = CASES[case]
    training = Training(make, lr())
    seen = []
    for update, inputs in enumerate(training.inputs, start=1):
        training.set_grads(inputs)
        factor = min(update / STEPS, 1.0)
        stepped_at(training.optimizer, [factor], training.optimizer.step)
        seen.append(training.snapshot())
    return seen


@pytest.mark.parametrize(
    "what", ["step", "wrapped_step", "wrapped_step_later", "training_step"]
)
@pytest.mark.parametrize("case", CASES)
def test_a_compiled_step_is_the_eager_one(case: str, what: str) -> None:
    """While a float LR ramps, nothing is compiled. A tensor LR is compiled once."""
    expected = hand_scaled(case)
    make, lr = CASES[case]
    training = Training(make, lr())
    compiler = CompileCounterWithBackend("aot_eager")
    if what == "wrapped_step":
        inner = training.optimizer
        inner.step = torch.compile(inner.step, backend=compiler)
    warmed = training.optimizer = Warmed(training.optimizer, steps=STEPS)
    step = warmed.step
    if what == "wrapped_step_later":
        warmed.wrapped.step = torch.compile(warmed.wrapped.step, backend=compiler)

    def train(inputs: Tensor) -> None:
        training.set_grads(inputs)
        step()

    if what == "step":
        step = torch.compile(step, backend=compiler)
    elif what == "training_step":
        train = torch.compile(train, backend=compiler)

    frames = []
    for update, inputs in enumerate(training.inputs, start=1):
        train(inputs)
        frames.append(compiler.frame_count)
        assert lrs(warmed) == pytest.approx([0.1])
        assert int(warmed.param_groups[0]["warmup_updates"]) == min(update, STEPS)
        seen, same = training.snapshot(), expected[update - 1]
        # Compiled kernels round in another order.
        torch.testing.assert_close(seen, same, rtol=1e-3, atol=1e-4)
        if case.endswith("float") and what != "training_step" and update < STEPS:
            assert_same(same, seen)
    assert warmed.done
    second, at_end, last = frames[1], frames[STEPS - 1], frames[-1]
    if case.endswith("float"):
        assert at_end == second == (1 if what == "training_step" else 0)
        assert last - at_end == (0 if "fused" in case else 1)  # torch compiles no fused
        assert frames[STEPS] == last
    else:
        assert last == second <= 3


NEVER_FREED = sys.version_info >= (3, 12)  # None has no count of references there


@pytest.mark.skipif(NEVER_FREED, reason="from Python 3.12 on None is never freed")
def test_a_warming_step_loses_no_reference_to_none() -> None:
    """torch.compiler's private functions of some releases give away a borrowed one."""
    training = Training(SGD, 0.1)
    training.set_grads(training.inputs[0])
    warmed = Warmed(training.optimizer, steps=100_000)
    for _ in range(10):
        warmed.step()
    tracer = sys.gettrace()
    sys.settrace(None)  # what measures coverage adds references of its own
    try:
        before = sys.getrefcount(None)
        for _ in range(5_000):
            warmed.step()
        after = sys.getrefcount(None)
    finally:
        sys.settrace(tracer)
    assert abs(after - before) < 1_000


def test_to_ask_for_the_compiler_loses_no_reference_to_it() -> None:
    counts = []

    @torch._dynamo.disable(recursive=False)
    def ask() -> None:
        counts.append(sys.getrefcount(in_compiled_region()))

    @torch.compile(backend="eager")
    def compiled(inputs: Tensor) -> Tensor:
        ask()
        return inputs + 1

    for _ in range(100):
        compiled(torch.zeros(2))
    assert len(counts) == 100
    assert max(counts[10:]) - min(counts[10:]) <= 1
