"""Learning rate warmup for any torch optimizer, in one line.

The map, from the top down:
    warmed          Warmed, the wrapper: scale, step, restore, count
    clock           where each param group stands, kept in the group
    schedule        mode, length, start and offset, checked: the factor of an update
    shapes          the formulas
    group_lr, second_moments, couplings, known_optimizers    what is known of others
"""

__all__ = ["Warmed", "__version__"]

from warmopt.warmed import Warmed as Warmed

__version__ = "0.1.0"
