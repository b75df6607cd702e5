"""What is known of optimizers by their name: where and how they keep a second moment.

Names, not types, so no library is imported: a class of the same name in another one
keeps the same. Where two differ, the entry is "module root:name". Subclasses inherit.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch.optim import Optimizer

__all__ = ["is_one_of", "names", "of_class"]

T = TypeVar("T")

# State keys that mean the same wherever they occur; the first one present counts.
# Never a bare letter: `v` is also a velocity, a sum or a matrix. Nor a `max_...` of
# amsgrad: a maximum always looks settled.
KEYS = (
    "exp_avg_sq_row",
    "exp_avg_sq",
    "exp_avg_var",
    "square_avg",
    "exp_hessian_diag_sq",
)
KEYS_OF_CLASS = {
    "Adafactor": ("row_var", "variance", *KEYS),  # torch's, then everyone else's
    "AdamG": ("v",),
    "AdamMini": ("v_mean", "v"),
    "Adam_mini": ("vmean", "v"),
    "FAdam": ("fim",),
    "NovoGrad": ("grads_ema", *KEYS),
    "Ranger21": ("variance_ma",),
}

# (key in the group, index in its tuple) of the decay; None: it changes by itself.
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
DECAYS_TWICE = "RangerVA"  # its step multiplies the average by the decay twice

# Used as stored: either unbiased from the first update on, or biased also where the
# optimizer divides by it. Everyone else corrects the bias, or (LAMB, CAME) normalizes
# the update, which comes to the same.
AS_STORED = """
    ADOPT AdaDelta AdaFactor AdaSmooth AdaTAM Adadelta Adafactor DAdaptAdam DAdaptAdan
    EmoFact EmoNavi FAdam GaLoreAdafactor NovoGrad Prodigy QHAdam RMSprop RangerQH
    StableAdamW
"""
# Updates that go by before the average begins.
LATE: dict[str, Callable[[dict[str, Any]], int]] = {
    "AdaShift": lambda group: int(group["keep_num"]),
    "SOAP": lambda group: 1,
}
# Their `exp_avg` averages what they apply to the parameters, not gradients; or (SOAP)
# it lies in another basis than the second moment.
AVERAGES_UPDATES = """
    ADOPT AdaFactor Adafactor CAME DAdaptAdam DAdaptAdan GaLoreAdafactor LaProp NovoGrad
    SOAP
"""

# Those without a second moment, and what they keep instead.
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
    """The names an optimizer may be known by: of its class and bases, nearest first."""
    return _names_of(type(optimizer))  # type: ignore[arg-type]  # it has a hash


def of_class(optimizer: Optimizer, table: Mapping[str, T], default: T) -> T:
    """Returns what a table says of an optimizer's class."""
    return next((table[n] for n in names(optimizer) if n in table), default)


def is_one_of(optimizer: Optimizer, classes: str) -> bool:
    """Whether the optimizer's class is in a list of names."""
    return _is_one_of(type(optimizer), classes)  # type: ignore[arg-type]


# Asked for every parameter, so kept for every class.
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
