"""What `docs/what-works.md` says, and which tests show it.

A run of all tests writes the page:
    python -m pytest --write-what-works=docs/what-works.md
Its part on GPUs is that of `python -m benchmarks.gpu --report`, from a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu.report import PARTS, part_of
from benchmarks.markdown_tables import grid

PAGE = "docs/what-works.md"

SCHEDULERS = "LR schedulers"
AMP = "Mixed precision"
CLOSURES = "Closures"
COMPILED = "torch.compile and CUDA graphs"
CHECKPOINTS = "Checkpoints"
DISTRIBUTED = "torch.distributed"
FRAMEWORKS = "Frameworks"
ADDED = "What the wrapped optimizer adds"
ADAPTIVE = "Adaptive mode"
ALIGNED = "Aligned mode"

# Section, what works, and the tests that show it: the file, then how names begin.
WORKS: list[tuple[str, str, str, tuple[str, ...]]] = [
    (
        SCHEDULERS,
        "every torch scheduler and SWALR, on either object, per update or per epoch",
        "groups/test_schedulers",
        ("test_effective_lr", "test_the_order", "test_a_late_group", "test_a_momentum"),
    ),
    (SCHEDULERS, "resumed in any order", "groups/test_schedulers", ("test_a_resumed",)),
    (
        SCHEDULERS,
        "a schedule that your loop starts when the warmup is over",
        "groups/test_schedulers",
        ("test_a_schedule_that_waits",),
    ),
    (
        SCHEDULERS,
        "`AfterWarmup`, per update or per epoch, resumed",
        "groups/test_after_warmup",
        ("test_",),
    ),
    (
        SCHEDULERS,
        "those of transformers, timm and ignite",
        "groups/test_foreign_schedulers",
        ("test_",),
    ),
    (AMP, "GradScaler: plain, foreach, fused", "step/test_amp", ("test_",)),
    (
        CLOSURES,
        "base LR and grad mode inside; one update; LBFGS, SAM",
        "step/test_closures",
        ("test_",),
    ),
    (
        CLOSURES,
        "Ctrl-C at any line of a step",
        "step/test_at_any_instant",
        ("test_an_interrupt",),
    ),
    (
        COMPILED,
        "the step, the wrapped step, a training step; recompilations counted",
        "execution/test_compile",
        ("test_",),
    ),
    (
        COMPILED,
        "one captured step replayed through the warmup, by a stand-in on a CPU",
        "execution/test_graphs",
        ("test_",),
    ),
    (
        CHECKPOINTS,
        "killed at any update and resumed, equal to the bit",
        "groups/test_checkpoints",
        ("test_a_run_killed",),
    ),
    (
        CHECKPOINTS,
        "saved and loaded, every optimizer; bare to warmed and back; other lengths",
        "groups/test_saving",
        ("test_",),
    ),
    (
        CHECKPOINTS,
        "copied, pickled, held by a handle",
        "groups/test_copies",
        ("test_",),
    ),
    (
        CHECKPOINTS,
        "broken or hostile states: refused, and nothing is changed",
        "groups/test_checkpoints",
        ("test_a_broken", "test_a_length_or", "test_whatever"),
    ),
    (
        CHECKPOINTS,
        "hooks once; plain values only; states of older versions",
        "groups/test_checkpoints",
        ("test_each_state", "test_a_file", "test_a_state_that", "test_the_warmup_out"),
    ),
    (
        CHECKPOINTS,
        "saved in the middle of a step: by a signal, a thread, the optimizer itself",
        "step/test_at_any_instant",
        ("test_what", "test_a_distributed"),
    ),
    (
        DISTRIBUTED,
        "DDP, FSDP2, FSDP1, ZeRO, optimizer in backward, on 2 and 4 processes",
        "distributed/test_distributed",
        ("test_",),
    ),
    (
        DISTRIBUTED,
        "DeepSpeed, ZeRO 0 to 3: groups one by one, or in parts",
        "distributed/test_deepspeed",
        ("test_",),
    ),
    (
        DISTRIBUTED,
        "checkpoints in files, loaded on another number of processes",
        "distributed/test_distributed_checkpoints",
        ("test_a_checkpoint", "test_a_bare"),
    ),
    (
        DISTRIBUTED,
        "examples/fsdp2.py under torchrun, resumed on more processes",
        "project/test_examples",
        ("test_fsdp2",),
    ),
    (FRAMEWORKS, "Lightning and Fabric", "frameworks/test_lightning", ("test_",)),
    (FRAMEWORKS, "accelerate", "frameworks/test_accelerate", ("test_",)),
    (FRAMEWORKS, "transformers.Trainer", "frameworks/test_transformers", ("test_",)),
    (FRAMEWORKS, "ignite", "frameworks/test_ignite", ("test_",)),
    (
        FRAMEWORKS,
        "Hydra and LightningCLI: a class in a config",
        "frameworks/test_configs",
        ("test_",),
    ),
    (
        FRAMEWORKS,
        "a class that wraps, for ZeRO, an optimizer in backward, pickle",
        "groups/test_factory",
        ("test_",),
    ),
    (
        ADDED,
        "groups that are swapped, replaced, popped and added again",
        "groups/test_swapped_groups",
        ("test_",),
    ),
    (ADDED, "several optimizers in one", "groups/test_joined", ("test_",)),
    (ADDED, "hooks and profiler, once", "step/test_hooks", ("test_",)),
    (
        ADDED,
        "methods, attributes, arguments, train() and eval()",
        "step/test_delegation",
        ("test_",),
    ),
    (
        ADDED,
        "PyTorch's own table of optimizers, inputs and errors",
        "step/test_optim_db",
        ("test_",),
    ),
    (
        ADAPTIVE,
        "second moments found, or refused by name, in three libraries of optimizers",
        "measure/test_second_moments",
        ("test_",),
    ),
    (
        ADAPTIVE,
        "second moments that are factored, in wrappers, or stopped by rounding",
        "measure/test_find_moment",
        ("test_",),
    ),
    (
        ADAPTIVE,
        "the pace that the rule gives, for any verdicts",
        "adaptive/test_pacing",
        ("test_",),
    ),
    (
        ADAPTIVE,
        "the fixed warmup until it settles; skipped updates count for nothing",
        "adaptive/test_adaptive",
        ("test_",),
    ),
    (
        ADAPTIVE,
        "resumed at any update, equal to the bit; hostile states refused",
        "adaptive/test_adaptive_resume",
        ("test_",),
    ),
    (
        ADAPTIVE,
        "groups that decide together or alone",
        "adaptive/test_pools",
        ("test_",),
    ),
    (
        ADAPTIVE,
        "the same decisions on all ranks: FSDP2, HSDP, FSDP1, ZeRO, tensor parallelism",
        "distributed/test_adaptive_distributed",
        ("test_",),
    ),
    (
        ADAPTIVE,
        "checkpoints in files, loaded on another number of processes",
        "distributed/test_adaptive_distributed_checkpoints",
        ("test_",),
    ),
    (ADAPTIVE, "recorded, watched, replayed", "adaptive/test_trace", ("test_",)),
    (
        ALIGNED,
        "every dense optimizer climbs; closures, hooks, AMP, groups, resume to the bit",
        "adaptive/test_aligned",
        ("test_",),
    ),
    (
        ALIGNED,
        "readings that come late from the device",
        "adaptive/test_aligned_late",
        ("test_",),
    ),
    (
        ALIGNED,
        "a tensor LR, also in a captured graph, by a stand-in on a CPU",
        "execution/test_aligned_on_device",
        ("test_",),
    ),
    (
        ALIGNED,
        "the same factor on all ranks: DDP, FSDP2, FSDP1, ZeRO, tensor parallelism",
        "distributed/test_aligned_distributed",
        ("test_",),
    ),
]

CANNOT: list[tuple[str, str, str]] = [
    (
        CLOSURES,
        "Warmed around SAM, driven by first_step and second_step",
        "step() is never called: wrap SAM's base optimizer",
    ),
    (
        CLOSURES,
        "an optimizer that writes into a tensor LR in place as it steps",
        "the write is lost: to see it, every step would wait for the device",
    ),
    (
        COMPILED,
        "a float LR, or `momentum_start`, captured while it ramps",
        "a graph repeats the number that it saw: refused, with what to do",
    ),
    (
        COMPILED,
        "adaptive mode captured in a graph",
        "it decides on the CPU: refused, with what to do",
    ),
    (
        COMPILED,
        "a compiled step while a float LR ramps",
        "each value would be compiled again, so it runs eagerly until the warmup ends",
    ),
    (COMPILED, "fullgraph=True over a step", "torch's own optimizers break the graph"),
    (
        CHECKPOINTS,
        "a checkpoint file of a bare optimizer through torch.distributed.checkpoint",
        "torch does not find our keys there, nor would it `initial_lr`: pass its "
        "DefaultLoadPlanner(allow_partial_load=True)",
    ),
    (
        CHECKPOINTS,
        "a captured graph after load_state_dict",
        "torch replaces the tensors that it reads: capture again",
    ),
    (
        CHECKPOINTS,
        "loading a differentiable optimizer",
        "torch cannot step in place on a loaded state that requires grad",
    ),
    (
        CHECKPOINTS,
        "pickle or deepcopy of the wrapped optimizer itself, in the middle of a step",
        "pickle calls no hook: use `state_dict()`, or pickle the `Warmed`",
    ),
    (
        DISTRIBUTED,
        "Warmed inside ZeRO, where a rank has only frozen parameters of a group",
        "that rank cannot know that others train it: wrap ZeRO itself",
    ),
    (
        DISTRIBUTED,
        "adaptive and aligned mode inside DeepSpeed's ZeRO 1 to 3",
        "they see one group or part at a time, and one rank's share: use a fixed mode",
    ),
    (
        DISTRIBUTED,
        "a full state of FSDP1 on a CPU; optimizer in backward under DDP on a CPU",
        "torch 2.13 fails there with a bare optimizer too",
    ),
    (
        FRAMEWORKS,
        "Warmed around what accelerate has prepared",
        "it steps without updating: refused; wrap first, then prepare",
    ),
    (
        FRAMEWORKS,
        "accelerate's scheduler after a skipped fused step",
        "accelerate does not see the skip and moves the schedule; the warmup is right",
    ),
    (
        FRAMEWORKS,
        "the loggers of Trainer(report_to=...) with the effective LR",
        "they run before other callbacks: pass them as callbacks, after ours",
    ),
    (
        ADDED,
        "isinstance(warmed, AdamW)",
        "it is an Optimizer, but not that one: ask warmed.wrapped",
    ),
    (
        ADDED,
        "scaler.unscale_(bare) and then scaler.step(warmed)",
        "GradScaler knows objects, and would unscale twice: give it one of the two",
    ),
    (
        ADAPTIVE,
        "shards that are plain tensors (FSDP1, ZeRO) without `process_group=`",
        "each looks like a whole tensor, so ranks would differ: pass it; the window "
        "is then not saved",
    ),
    (
        ADAPTIVE,
        "small flattened checkpoints of torch.distributed.checkpoint",
        "torch copies a group's window to each of its parameters: 54 MB more for 200 "
        "tensors, where the plain form has 0.3",
    ),
    (
        ADAPTIVE,
        "settled in bfloat16 with beta2 = 0.999",
        "rounding stops the second moment before that: not counted, with a warning",
    ),
    (
        ALIGNED,
        "sparse gradients only",
        "nothing can be compared: refused by name",
    ),
    (
        ALIGNED,
        "a `Trace` of a climb with a tensor LR",
        "its numbers stay on the device: `Aligned(lag=1)`",
    ),
]


def counts(node_ids: Iterable[str]) -> list[int]:
    """How many of the tests that passed show each row of `WORKS`."""
    passed = Counter(
        ("/".join(Path(file).with_suffix("").parts[-2:]), name.partition("[")[0])
        for file, _, name in (node_id.partition("::") for node_id in node_ids)
    )
    return [
        sum(
            number
            for (file, name), number in passed.items()
            if file == shown_by and name.startswith(starts)
        )
        for _, _, shown_by, starts in WORKS
    ]


def per_section(numbers: list[int]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (section, *_), number in zip(WORKS, numbers, strict=True):
        totals[section] = totals.get(section, 0) + number
    return totals


HEAD = """\
# What works, and what cannot

**Question.** Does warmopt work with what you use?

**Answer.** It was tested with the learning rate schedulers, `torch.compile`,
checkpoints, sharding and frameworks below: the real ones, on a CPU. For CUDA graphs
there is only a stand-in there; [On a GPU](#on-a-gpu) says what was tried on one. What
cannot work is listed too, with the reason and with what to do instead.

How many cases were tested in each area, in the run that wrote this page:
"""

TESTED = """\
## What was tested

What the cases show, and in which tests.
"""

CANNOT_HEAD = """\
## What cannot work

*Refused* means that you get an error which says what to do.
"""


def page(numbers: list[int]) -> str:
    """Returns the whole page."""
    areas = [[name, str(n)] for name, n in per_section(numbers).items()]
    works = [
        f"| {section} | {what} | {number} | `{file}` |"
        for (section, what, file, _), number in zip(WORKS, numbers, strict=True)
    ]
    name, _ = PARTS[PAGE]
    parts = [
        HEAD,
        grid(["area", "cases"], areas),
        CANNOT_HEAD,
        grid(["", "what", "why"], map(list, CANNOT)),
        "## On a GPU\n",
        f"<!-- {name} -->\n{part_of(PAGE)}<!-- end -->\n",
        TESTED,
        "\n".join(["| | what | cases | tests |", "|---|---|---:|---|", *works, ""]),
    ]
    return "\n".join(parts)
