"""What optimizers of other libraries cannot do, wrapped or bare.

The start of a test's name -> the error that it must end with. Each one is a strict
xfail: the run fails if upstream repairs it, or if the error becomes another one.
"""

from tests.support.features import adagrad_takes_late_groups

LATE = "test_a_late_group_warms_on_its_own_clock"
SAVED = "test_a_run_saved_and_loaded_goes_on_bit_equal"
FAILING = "test_an_exception_leaves_lr_and_count_as_they_were"
LR_ZERO = "test_a_step_at_base_lr_zero_is_not_an_update"
LOAD_BARE = "test_a_warmed_checkpoint_loads_into_the_bare_optimizer"
FROZEN = "test_a_frozen_group_warms_when_it_is_unfrozen"

NO_STATE_HOOKS = "no attribute '_optimizer_state_dict_pre_hooks'"
UNSAFE = "Weights only load failed"  # the state holds objects of its own classes

BROKEN_UPSTREAM: dict[str, str] = {
    # Lookahead never calls Optimizer.__init__.
    f"{SAVED}[torch_optimizer.Lookahead-": NO_STATE_HOOKS,
    f"{LOAD_BARE}[torch_optimizer.Lookahead": NO_STATE_HOOKS,
    f"{FAILING}[torch_optimizer.Lookahead-step": "'_optimizer_step_pre_hooks'",
    # These ignore a closure that is passed to step.
    f"{FAILING}[torch_optimizer.Ranger-closure": "DID NOT RAISE",
    f"{FAILING}[torch_optimizer.RangerVA-closure": "DID NOT RAISE",
    # A group that is added later does not get what __init__ puts into the first ones.
    f"{LATE}[torch_optimizer.Lookahead-": "KeyError: 'counter'",
    **({} if adagrad_takes_late_groups() else {f"{LATE}[adagrad-": "KeyError: 'sum'"}),
    f"{LATE}[torch_optimizer.MADGRAD-": "KeyError: 'grad_sum_sq'",
    f"{LATE}[pytorch_optimizer.AdaBound-": "list index out of range",
    **{
        f"{LATE}[pytorch_optimizer.{name}-": "must be a number or a tensor, got None"
        for name in ("AdaGO", "AdaMuon", "Muon", "MuonClip", "NorMuon")
    },
    # They divide by the LR, so an LR of 0 fails.
    f"{LR_ZERO}[pytorch_optimizer.ASGD": "ZeroDivisionError",
    f"{LR_ZERO}[pytorch_optimizer.Gravity": "ZeroDivisionError",
    # It asks a frozen parameter for a second derivative.
    f"{FROZEN}[torch_optimizer.Adahessian": "does not have grad_fn",
    # Once there is a state, it cannot be read with weights_only=True.
    f"{SAVED}[pytorch_optimizer.SCION-": UNSAFE,
    f"{SAVED}[pytorch_optimizer.SCIONLight-": UNSAFE,
    **{
        f"{SAVED}[pytorch_optimizer.{name}-{cut}-": UNSAFE
        for name in ("AdaShift", "Conda", "ScalableShampoo")
        for cut in (2, 5)
    },
}
