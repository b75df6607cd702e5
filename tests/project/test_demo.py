"""What the demo promises, for several seeds: what learns at which learning rate."""

from __future__ import annotations

import pytest

from warmopt._tools.demo import LRS, WARMUPS, letter_entropy, train


def test_a_run_is_seeded() -> None:
    name = "linear, half the run"
    first, second = (train(name, 5e-3, seed=3, updates=4) for _ in range(2))
    other = train(name, 5e-3, seed=4, updates=4)
    assert first.losses == second.losses
    assert first.lrs == second.lrs == [2.5e-3, *[5e-3] * 3]
    assert first.losses != other.losses


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The warmup of param group 0 holds")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lr", LRS)
def test_what_learns_more_than_letter_frequencies(lr: float, seed: int) -> None:
    entropy = letter_entropy()
    for name in WARMUPS:
        loss = train(name, lr, seed).final_loss
        if name == "aligned" or (name != "no warmup" and lr == LRS[0]):
            assert loss < entropy - 0.5, name
        else:
            assert abs(loss - entropy) < 0.25, name
