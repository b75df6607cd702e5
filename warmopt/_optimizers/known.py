"""Tables of optimizers by class name: where and how they keep a second moment.

The tables hold names and not classes, so that no library has to be imported. Classes
with the same name are expected to work alike in all libraries. If two differ, the entry
is "top-level module:name". A subclass inherits the entry of its base.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch.optim import Optimizer

__all__ = ["is_one_of", "names", "of_class"]

T = TypeVar("T")

# State keys that mean the same in every optimizer; the first one that is present is
# used. A single letter must not be here: `v` may also be a velocity, a sum or a matrix.
# The `max_...` of amsgrad must not be here either: a maximum always looks settled.
KEYS = (
    "exp_avg_sq_row",
    "exp_avg_sq",
    "exp_avg_var",
    "square_avg",
    "exp_hessian_diag_sq",
)
KEYS_OF_CLASS = {
    "Adafactor": ("row_var", "variance", *KEYS),  # first that of torch, then others
    "AdamG": ("v",),
    "AdamMini": ("v_mean", "v"),
    "Adam_mini": ("vmean", "v"),
    "FAdam": ("fim",),
    "NovoGrad": ("grads_ema", *KEYS),
    "Ranger21": ("variance_ma",),
}

# Where the decay is: (key in the param group, index in its tuple). The index is None if
# the value is no tuple. The entry is None if the decay changes by itself.
DECAY = ("betas", 1)
DECAY_OF_CLASS: dict[str, tuple[str, int | None] | None] = {
    "AdaDelta": ("rho", None),
    "AdaFactor": None,
    "AdaSmooth": None,
    "Adadelta": ("rho", None),
    "Adafactor": None,
    "Adam_mini": ("beta2", None),
    "Adan": ("betas", 2),
    "Amos": ("beta", None),
    "DAdaptAdan": ("betas", 2),
    "GaLoreAdafactor": None,
    "MSVAG": ("beta", None),
    "Nero": ("beta", None),
    "RMSprop": ("alpha", None),
    "bitsandbytes:RMSprop": ("betas", 0),
}
DECAYS_TWICE = "RangerVA"  # it multiplies the average by the decay twice per step

# These second moments are used as they are stored: either they have no bias from the
# first update on, or the optimizer does not correct the bias when it divides by them.
# All others correct it, or normalize the update (LAMB, CAME), which does the same.
AS_STORED = """
    ADOPT AdaDelta AdaFactor AdaSmooth AdaTAM Adadelta Adafactor DAdaptAdam DAdaptAdan
    EmoFact EmoNavi FAdam GaLoreAdafactor NovoGrad Prodigy QHAdam RMSprop RangerQH
    StableAdamW
"""
# How many updates go by before the average starts.
LATE: dict[str, Callable[[dict[str, Any]], int]] = {
    "AdaShift": lambda group: int(group["keep_num"]),
    "SOAP": lambda group: 1,
}
# The `exp_avg` of these averages the updates of the parameters, not the gradients. That
# of SOAP is in another basis than its second moment. So it is not read as a momentum.
AVERAGES_UPDATES = """
    ADOPT AdaFactor Adafactor CAME DAdaptAdam DAdaptAdan GaLoreAdafactor LaProp NovoGrad
    SOAP
"""

# Optimizers without a second moment, and what they keep instead, for error messages.
WITHOUT = {
    name: kept
    for kept, classes in {
        "a momentum at most": "ASGD AccSGD AggMo AliG DAdaptLion DAdaptSGD EmoLynx "
        "FOCUS Fromage Gravity LARS Lion PID PNM QHM ROSE SCION SCIONLight SGD SGDP "
        "SGDSaI SGDW SRMM ScheduleFreeSGD SignSGD SpectralSphere TAM Tiger torch:Muon",
        "a sum of squared gradients, which never settles": "A2Grad A2GradInc "
        "A2GradUni Adagrad DAdaptAdaGrad DeepSpeedCPUAdagrad FTRL FusedAdagrad Kate "
        "MADGRAD SM3",
        "a decayed maximum of gradients, which is no mean": "AdaMax Adamax",
        "the sizes of its own steps": "Rprop",
        "earlier gradients and directions": "LBFGS",
        "a matrix preconditioner": "Kron SPlus ScalableShampoo Shampoo",
        "an estimate of the Hessian, which is signed": "Apollo ApolloDQN",
    }.items()
    for name in classes.split()
}


def names(optimizer: Optimizer) -> tuple[str, ...]:
    """The names to look up in the tables: of the class and its bases, nearest first."""
    return _names_of(type(optimizer))  # type: ignore[arg-type]  # classes have a hash


def of_class(optimizer: Optimizer, table: Mapping[str, T], default: T) -> T:
    """Returns the entry for an optimizer's class in a table, or the default."""
    return next((table[n] for n in names(optimizer) if n in table), default)


def is_one_of(optimizer: Optimizer, classes: str) -> bool:
    """Whether the optimizer's class is in a list of names with spaces between them."""
    return _is_one_of(type(optimizer), classes)  # type: ignore[arg-type]


# These are called for every parameter, so the result is cached for each class.
@functools.cache
def _names_of(cls: Any) -> tuple[str, ...]:
    pairs = (
        (f"{each.__module__.partition('.')[0]}:{each.__name__}", each.__name__)
        for each in cls.__mro__
    )
    return tuple(itertools.chain.from_iterable(pairs))


@functools.cache
def _is_one_of(cls: Any, classes: str) -> bool:
    return not set(_names_of(cls)).isdisjoint(classes.split())
