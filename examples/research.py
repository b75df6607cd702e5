# %% [markdown]
"""# A research session: record a warmup, replay it, and try rules of your own.

When has the second moment of Adam settled, and what would another rule have done? A
fixed warmup is recorded while criteria watch it, and replayed under other rules without
training again. Then a criterion and a pace of your own steer a second run, and both are
drawn in one picture.

To install: `pip install '.[cli]'` in a clone of warmopt, and
`pip install scikit-learn`.
"""

# %%
from typing import Any

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from warmopt import Adaptive, Trace, Warmed, replay
from warmopt.criteria import Drift, InverseRootVariance, Reading, UpdateRMS

STEPS = 200
digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)


def train(mode: Any, watch: Any = ()) -> Trace:
    """Trains a small network for the length of its warmup, and returns the record."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    adamw = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    trace = Trace()
    optimizer = Warmed(adamw, steps=STEPS, mode=mode, watch=watch, trace=trace)
    while not optimizer.done:
        chosen = torch.randint(len(images), (16,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return trace


# %% [markdown]
# **Record.** Watching changes nothing. Every fifth update there is a reading, and each
# criterion says yes or no.

# %%
fixed = train("linear", watch=[InverseRootVariance(), Drift(), UpdateRMS()])
for row in fixed.rows[4::8]:
    said = [name.partition("(")[0] for name, yes in row["watched"].items() if yes]
    print(
        f"update {row['update']}: variance of 1/sqrt(v) "
        f"{row['inverse_root_variance']:.4f}, settled: {', '.join(said) or 'no'}"
    )


# %% [markdown]
# **Replay.** When would an adaptive warmup have ended that acts on one of them? A
# criterion of your own is any function of a `Reading`.


# %%
def quiet(reading: Reading) -> bool:
    """Whether no tensor's second moment has changed much within the window."""
    return reading.samples == reading.window and all(
        abs(drift) < 0.7 for drift in reading.drifts
    )


for rule in (InverseRootVariance(), InverseRootVariance(0.005), Drift(), quiet):
    name = getattr(rule, "__name__", rule)
    print(f"{name} would end it at update {replay(fixed, rule).end}")


# %% [markdown]
# **A pace of your own.** "Settled" does not mean that the full learning rate is safe.
# So this pace goes fast in the lower half of the ramp only, and waits in the middle for
# the fixed warmup to come after it.


# %%
class HalfFast(Adaptive):
    """Fast to the middle of the ramp; the upper half is that of the fixed warmup."""

    def position(self, update: int, fast_done: int, steps: float, last: float) -> float:
        """Where in the ramp an update is."""
        fast = super().position(update, fast_done, steps, last)
        return max(min(fast, last / 2), update)

    def mode(self, shape: str) -> str:
        """The name under which it is saved."""
        return f"half_fast({shape})"


own = train(HalfFast(criterion=quiet))

# %%
figure = Figure(figsize=(7, 3), layout="constrained")
axis = figure.subplots()
for name, trace in (("fixed", fixed), ("half fast", own)):
    updates = [row["judged_after"] + 1 for row in trace]
    axis.plot(updates, [row["factor"] for row in trace], label=name)
axis.set(xlabel="update", ylabel="factor")
axis.legend(frameon=False)
figure.savefig("research.png")
at_half = next(row["judged_after"] for row in own if row["factor"] >= 0.5)
print(f"half fast is at factor 0.5 from update {at_half + 1} on, fixed at {STEPS // 2}")
