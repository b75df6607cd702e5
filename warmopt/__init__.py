"""Learning rate warmup for any torch optimizer, in one line.

The map of the package, from the top down. A module imports only what stands below it,
or to the right of it on its own line. What begins with an underscore is not for users.

    __main__                                        the command `warmopt`
    _tools: cli demo forecast                       what it runs
    lightning transformers                          callbacks: the effective LR in logs
    __init__                                        what `import warmopt` gives
    after_warmup                                    a scheduler that waits
    warmed                                          `Warmed`, the wrapper
    _factory                                        a class that builds and wraps
    _update: planner plain plan update              one update: on, off, counted
    _update: parts compiling                        parameters in parts; torch.compile
    _measure: watchers climbs                       readings of what the optimizer does
    _measure: window sources comparison             each for a few param groups
    _measure: statistics chunks coordinates         their samples, and numbers
    _groups: loading state ramps schedule           where a param group stands
    trace adaptive aligned                          a warmup that may end early, or hold
    _pace _climb                                    the ramp, and the pace of a group
    _optimizers: couplings second_moments known     what is known of other optimizers
    joined                                          several optimizers in one
    _keys _device _tell _words                      keys, devices, warnings, near misses
    _torch                                          private names of torch, guarded
    criteria shapes                                 rules and formulas: pure functions
    _tools: traces plots svg                        pictures
"""

__all__ = [
    "Adaptive",
    "AfterWarmup",
    "Aligned",
    "Joined",
    "Trace",
    "Warmed",
    "__version__",
    "replay",
]

from warmopt.adaptive import Adaptive as Adaptive
from warmopt.after_warmup import AfterWarmup as AfterWarmup
from warmopt.aligned import Aligned as Aligned
from warmopt.joined import Joined as Joined
from warmopt.trace import Trace as Trace
from warmopt.trace import replay as replay
from warmopt.warmed import Warmed as Warmed

__version__ = "0.2.0"
