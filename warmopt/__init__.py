"""Learning rate warmup for any torch optimizer, in one line.

The map, from the top down:
    warmed              Warmed, the wrapper: scale, step, restore, count
    plan, pool, probe   groups scaled together; those whose second moment is read
    clock, loading      where each param group stands, kept in the group, and loaded
    schedule, shapes    mode, length, start and offset, checked; the formulas
    adaptive, criteria, trace    when a warmup ends early; pure
    samples, sampling, readings    from an optimizer's state to a few numbers
    group_lr, on_device, compiling    an LR scaled: float, tensor, compiled
    second_moments, couplings, known_optimizers    what is known of other optimizers
    lightning, transformers, plots, demo, cli      on top, each imported where used
"""

__all__ = ["Adaptive", "Trace", "Warmed", "__version__", "replay"]

from warmopt.adaptive import Adaptive as Adaptive
from warmopt.trace import Trace as Trace
from warmopt.trace import replay as replay
from warmopt.warmed import Warmed as Warmed

__version__ = "0.1.0"
