"""The commands of the command line: `demo`, `preview` and `replay`.

They need the extra `warmopt[cli]`. typer shows their docstrings as help texts.
"""

from __future__ import annotations

import ast
import itertools
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from warmopt._groups.schedule import PACES
from warmopt._tools.demo import LRS, UPDATES, WARMUPS, Run, letter_entropy, train
from warmopt._tools.forecast import SCHEDULES, Forecast, base_lrs
from warmopt._tools.plots import Curve, curves_in_terminal, save_curves
from warmopt._words import did_you_mean
from warmopt.criteria import CRITERIA
from warmopt.shapes import MODES
from warmopt.trace import Trace
from warmopt.trace import replay as replayed

__all__ = ["app"]

MOST_SHOWN = 10**7  # updates in a preview
MOST_SCHEDULED = 10**6  # the same with a scheduler, which must make each of them
KNOWN_MODES = [*MODES, *PACES]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        version = metadata.version("warmopt")
        typer.echo(f"warmopt {version}, torch {torch.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Say the versions of warmopt and torch.",
            callback=_say_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Learning rate warmup for any torch optimizer."""


FORMATS = ("png", "svg", "pdf", "jpg", "webp")


def _checked_output(path: Path | None) -> Path | None:
    """Refuses a path that cannot be written, before anything is trained or drawn."""
    if path is not None:
        if path.suffix.removeprefix(".").lower() not in FORMATS:
            raise typer.BadParameter(f"{path} must end in one of {', '.join(FORMATS)}.")
        if not path.parent.is_dir():
            raise typer.BadParameter(
                f"{path.parent} must be a folder that exists. Make it first."
            )
        if path.is_dir():
            raise typer.BadParameter(f"{path} must be a file, but it is a folder.")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise typer.BadParameter(f"{path} must be a file that you may write.")
    return path


def _within(low: float, high: float, allowed: str) -> Callable[[Any], Any]:
    """A check of an option, which tells the value too, and refuses nan."""

    def checked(value: Any) -> Any:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"it must be {allowed}, got {value}.")
        return value

    return checked


COUNT = _within(1, math.inf, "an int >= 1")


@contextmanager
def _in_options() -> Iterator[None]:
    """Tells errors and warnings of the library in the words of the command line."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except (OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(_with_options(str(error))) from error
    for text in dict.fromkeys(str(each.message) for each in caught):
        typer.echo(f"Note: {_with_options(text)}", err=True)


def _with_options(text: str) -> str:
    """Turns "total_steps must be 1, got steps='x'" into "--total-steps ... --steps x".

    What is an argument in Python is an option here. It is the first word of an error,
    or it has a value.
    """

    def option(match: re.Match[str]) -> str:
        name, *value = match.groups()
        return " ".join([f"--{name.replace('_', '-')}", *value])

    text = re.sub(r"^(\w+)(?= must )", option, text)
    text = re.sub(r"Use mode=\w+\(start=\.\.\.\)", "Leave it out", text)
    return re.sub(r"\b(\w+)='?([\w+-]+(?:\.\d+)?)'?(?![\w(])", option, text)


@app.command()
def demo(
    output: Annotated[
        Path,
        typer.Option(
            help="Where to save the picture of the curves.", callback=_checked_output
        ),
    ] = Path("demo.png"),
    seed: Annotated[
        int,
        typer.Option(
            help="Of the parameters and the batches.",
            callback=_within(0, 2**63 - 1, "an int in [0, 2**63)"),
        ),
    ] = 0,
    updates: Annotated[
        int, typer.Option(help="Length of each run.", callback=COUNT)
    ] = UPDATES,
) -> None:
    """Train a small transformer at two learning rates, with and without warmup.

    It takes about two minutes. The first rate needs a warmup. The second is so high
    that a ramp does not help: only aligned mode, which stops below it, learns.
    """
    torch.set_num_threads(1)  # more threads are slower with such small matrices
    console = Console()
    runs: dict[float, dict[str, Run]] = {lr: {} for lr in LRS}
    with Progress(console=console) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # aligned holds: the table tells
        for lr, name in itertools.product(LRS, WARMUPS):
            label = f"LR {lr:g}, {name}"
            task = bar.add_task(label, total=updates)
            runs[lr][name] = train(
                name,
                lr,
                seed,
                updates,
                lambda loss, task=task, label=label: bar.update(  # type: ignore[misc]
                    task, advance=1, description=f"{label}: loss {loss:.2f}"
                ),
            )

    title = f"Post-LN transformer, AdamW, seed {seed}"
    table = Table("LR", "warmup", title=title)
    for column in ("loss at the end", "effective LR at the end", "seconds"):
        table.add_column(column, justify="right")
    for lr, own in runs.items():
        for name, run in own.items():
            row = (f"{run.final_loss:.3f}", f"{run.lrs[-1]:.2g}", f"{run.seconds:.1f}")
            table.add_row(f"{lr:g}", name, *row)
    console.print(table)
    console.print(_what_it_shows(runs))
    panels = [
        (f"loss at LR {lr:g}", [(n, _smoothed(run.losses)) for n, run in own.items()])
        for lr, own in runs.items()
    ]
    hottest = [(name, run.lrs) for name, run in runs[LRS[-1]].items()]
    save_curves(output, [*panels, (f"effective LR at LR {LRS[-1]:g}", hottest)], title)
    console.print(f"The curves are in {output}.")


def _what_it_shows(runs: dict[float, dict[str, Run]]) -> str:
    """What the table of the demo means, or that the runs were too short for it."""
    entropy = letter_entropy()
    lines = [
        "The loss is in nats per character. A model that knows only how often each "
        f"letter occurs has {entropy:.2f}."
    ]
    learned = {
        lr: [name for name, run in own.items() if run.final_loss < entropy - 0.5]
        for lr, own in runs.items()
    }
    if not any(learned.values()):
        lines.append(
            "No run learned more than that: they were too short. "
            f"{UPDATES} updates, the default, are enough to show a difference."
        )
        return "\n".join(lines)
    for lr, names in learned.items():
        those = "; ".join(names) or "none"
        lines.append(f"At LR {lr:g}, these learned clearly more: {those}.")
    return "\n".join(lines)


def _smoothed(values: list[float], window: int = 10) -> list[float]:
    """Mean of each value and up to `window` - 1 before it."""
    ends = range(1, len(values) + 1)
    parts = [values[max(0, end - window) : end] for end in ends]
    return [sum(part) / len(part) for part in parts]


@app.command()
def preview(
    modes: Annotated[
        list[str] | None,
        typer.Option(
            "--mode",
            help=f"One of {', '.join(KNOWN_MODES)}. Give several to compare them.",
            show_default="linear",
        ),
    ] = None,
    steps: Annotated[
        float | None,
        typer.Option(help="Length in updates, or a ratio of --total-steps."),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Length in epochs, instead of --steps.",
            callback=_within(0.0, sys.float_info.max, "a finite number >= 0"),
        ),
    ] = None,
    batches: Annotated[
        int | None,
        typer.Option(help="Batches per epoch, for --epochs.", callback=COUNT),
    ] = None,
    accumulation: Annotated[
        int, typer.Option(help="Batches per update, for --epochs.", callback=COUNT)
    ] = 1,
    start: Annotated[
        float | None,
        typer.Option(help="Factor at update 0; the mode's own if left out."),
    ] = None,
    offset: Annotated[
        int, typer.Option(help="Updates at the start factor before the ramp.")
    ] = 0,
    total_steps: Annotated[
        int | None,
        typer.Option(help="Updates of the whole run, for a ratio or a schedule."),
    ] = None,
    beta2: Annotated[
        float,
        typer.Option(
            help="For the modes that take their length from it.",
            callback=_within(0.0, 0.9999, "in [0, 0.9999]"),
        ),
    ] = 0.999,
    schedule: Annotated[
        str | None,
        typer.Option(help=f"Multiplied by the warmup. One of {', '.join(SCHEDULES)}."),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Base learning rate, to see the effective one.",
            callback=_within(
                sys.float_info.min, sys.float_info.max, "a finite number > 0"
            ),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Picture to save; the terminal if left out.", callback=_checked_output
        ),
    ] = None,
) -> None:
    """Draw the factor and the effective LR of warmups, without training.

    Of adaptive and aligned mode it shows the band between the earliest and the latest
    that they can do.
    """
    modes = list(dict.fromkeys(modes or ["linear"]))
    for each in modes:
        _check_choice("mode", each, KNOWN_MODES)
    steps = _in_updates(steps, epochs, batches, accumulation)
    with _in_options():
        forecasts = _forecasts(modes, steps, start, offset, total_steps, beta2)
    shown = max(forecast.shown for forecast in forecasts.values())
    if schedule is not None:
        _check_choice("schedule", schedule, SCHEDULES)
        if total_steps is None:
            raise typer.BadParameter(
                f"--total-steps must be given with --schedule {schedule}: it is the "
                "number of updates of the whole run."
            )
        shown = total_steps
    most = MOST_SHOWN if schedule is None else MOST_SCHEDULED
    if shown > most:
        name = "steps" if schedule is None else "total-steps"
        raise typer.BadParameter(
            f"--{name} must be at most {most} to be drawn, got "
            f"{steps if schedule is None else total_steps}. A shorter run with the "
            "same shares looks the same."
        )
    lengths = {forecast.told for forecast in forecasts.values()}
    factors: list[Curve] = []
    for mode, forecast in forecasts.items():
        name = mode if len(lengths) == 1 else f"{mode}, {forecast.told}"
        edges = forecast.edges(shown)
        name += " (its range)" * (len(edges) > 1)
        factors.append((name, *edges))  # type: ignore[arg-type]
    factors = _merged(factors)
    title = factors[0][0] if len(factors) == 1 else ", ".join(modes)
    title += f", {min(lengths)}" * (len(lengths) == 1)
    if schedule is None:
        label = "factor (effective LR / base LR)"
        if lr is not None:
            label = f"effective LR ({lr:g} x factor)"
        panels = [(label, _scaled(factors, [lr or 1.0] * shown))]
    else:
        title += f"; {schedule} schedule over {total_steps} updates"
        bases = base_lrs(schedule, lr or 1.0, shown)
        label = "effective LR / base LR" if lr is None else "effective LR"
        used = [*_scaled(factors, bases), (f"{schedule} schedule alone", bases)]
        panels = [("factor", factors), (label, _merged(used))]
    if output is None:
        typer.echo(curves_in_terminal(*panels[-1], title))
    else:
        with _in_options():
            save_curves(output, panels, title)
        typer.echo(f"The curves are in {output}.")


def _check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Refuses a value that is not among the choices, and says what it may mean."""
    choices = list(choices)
    if value not in choices:
        raise typer.BadParameter(
            f"--{option} must be one of {', '.join(choices)}, got {value!r}."
            f"{did_you_mean(value, choices)}"
        )


def _forecasts(
    modes: list[str],
    steps: float | None,
    start: float | None,
    offset: int,
    total_steps: int | None,
    beta2: float,
) -> dict[str, Forecast]:
    """A forecast for each mode.

    If modes are compared, each takes those options that mean something to it. What none
    of them takes is refused.
    """

    def takes_steps(mode: str) -> bool:
        return mode not in MODES or MODES[mode].steps_from_beta2 is None

    def has_start(mode: str) -> bool:
        return mode not in PACES or PACES[mode]().has_start

    found = {}
    for mode in modes:
        own_steps, own_start, own_offset = steps, start, offset
        if not takes_steps(mode) and any(map(takes_steps, modes)):
            own_steps = None
        if not has_start(mode) and any(map(has_start, modes)):
            own_start, own_offset = None, 0
        found[mode] = Forecast(
            mode, own_steps, own_start, own_offset, total_steps, beta2
        )
    return found


def _scaled(curves: list[Curve], lrs: list[float]) -> list[Curve]:
    """The same curves, with each factor multiplied by the LR of its update."""
    scaled: Any = [
        (name, *([f * lr for f, lr in zip(e, lrs, strict=True)] for e in edges))
        for name, *edges in curves
    ]
    return list(scaled)


def _merged(curves: list[Curve]) -> list[Curve]:
    """Draws curves that are the same only once, under all their names."""
    names: dict[Any, list[str]] = {}
    for name, *edges in curves:
        names.setdefault(tuple(map(tuple, edges)), []).append(name)
    merged: Any = [(" = ".join(own), *edges) for edges, own in names.items()]
    return list(merged)


def _in_updates(
    steps: float | None, epochs: float | None, batches: int | None, accumulation: int
) -> float | None:
    """The length in updates, from --steps or --epochs: an int unless it is a ratio."""
    if epochs is not None:
        if steps is not None or batches is None:
            raise typer.BadParameter("--epochs goes with --batches, not with --steps.")
        # Rounded, since with floats 0.29 * 100 is a little less than 29.
        steps = round(epochs * batches, 6) // accumulation
    return int(steps) if steps is not None and steps.is_integer() else steps


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def replay(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            help="A trace, as Trace.save writes it.", exists=True, dir_okay=False
        ),
    ],
    criterion: Annotated[
        str, typer.Option(help=f"One of {', '.join(CRITERIA)}.")
    ] = next(iter(CRITERIA)),
    on_settled: Annotated[
        str | None, typer.Option(help="accelerate, ramp or end; that of the run.")
    ] = None,
    fast: Annotated[
        int | None, typer.Option(help="Updates of the fast pace; that of the run.")
    ] = None,
    pool: Annotated[int, typer.Option(help="First param group of the pool.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Picture to save: the run, and the replay beside it.",
            callback=_checked_output,
        ),
    ] = None,
) -> None:
    """Say when a recorded warmup would have ended under another criterion.

    The constants of the criterion are options too: --criterion drift --tol 0.2
    """
    _check_choice("criterion", criterion, CRITERIA)
    with _in_options():
        trace = Trace.load(path)
        rule: Any = CRITERIA[criterion](**_constants(context.args, criterion))
        way: Any = on_settled  # the next line checks it
        result = replayed(trace, rule, pool=pool, on_settled=way, fast=fast)
    settled = sum(result.verdicts)
    typer.echo(f"{rule}: settled in {settled} of {len(result.verdicts)} readings.")
    if result.end is None:
        typer.echo("It would still be warming up where the trace ends.")
    else:
        typer.echo(f"Update {result.end} would have been the last ({result.reason}).")
    if output is not None:
        with _in_options():
            replays = {repr(rule): result}
            trace.plot(output, pool, quantities=[rule], replays=replays)
        typer.echo(f"The picture is in {output}.")


def _constants(options: list[str], criterion: str) -> dict[str, Any]:
    """Turns ["--tol", "0.2", "--by=tensor"] into {"tol": 0.2, "by": "tensor"}."""
    known = [field.name for field in fields(CRITERIA[criterion])]  # type: ignore[arg-type]
    options_of = [f"--{name.replace('_', '-')}" for name in known]
    words = [word for option in options for word in option.split("=", 1)]
    for name, value in zip_longest(words[::2], words[1::2]):
        if name not in options_of:
            raise typer.BadParameter(
                f"{name} must be an option of replay, or of --criterion {criterion}: "
                f"{', '.join(options_of)}.{did_you_mean(name, options_of)}"
            )
        if value is None:
            raise typer.BadParameter(f"{name} must have a value: {name} VALUE.")
    names = [known[options_of.index(name)] for name in words[::2]]
    return dict(zip(names, map(_value, words[1::2]), strict=True))


def _value(word: str) -> Any:
    """The number, True, False or None that a word stands for, or the word itself."""
    try:
        # title() makes True of true, as people write it on a command line.
        return ast.literal_eval(word.title())
    except (ValueError, SyntaxError):
        return word
