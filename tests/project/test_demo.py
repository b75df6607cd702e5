"""What the demo promises, for several seeds: each warmup trains, no warmup fails."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from warmopt._tools.demo import WARMUPS, encoded_text, train


def test_a_run_is_seeded() -> None:
    first, second = (train(WARMUPS["linear"], seed=3, updates=3) for _ in range(2))
    other = train(WARMUPS["linear"], seed=4, updates=3)
    assert first.losses == second.losses
    assert first.lrs == second.lrs == [pytest.approx(5e-3 * t / 200) for t in (1, 2, 3)]
    assert first.losses != other.losses


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_only_the_warmed_runs_learn_more_than_letter_frequencies(seed: int) -> None:
    tokens, _ = encoded_text()
    counts = Counter(tokens.tolist())
    shares = [count / len(tokens) for count in counts.values()]
    entropy = -sum(share * math.log(share) for share in shares)
    for name, warmup in WARMUPS.items():
        loss = train(warmup, seed).final_loss
        if name == "no warmup":
            assert abs(loss - entropy) < 0.15
        else:
            assert loss < entropy - 0.5, name
