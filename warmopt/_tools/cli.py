"""The commands of the command line: `demo`, `preview` and `replay`.

They need the extra `warmopt[cli]`. typer shows their docstrings as help texts.
"""

from __future__ import annotations

import ast
import math
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from warmopt._groups.schedule import Schedule
from warmopt._tools.demo import LR, UPDATES, WARMUPS, Run, train
from warmopt._tools.plots import curve_in_terminal, save_curves
from warmopt._words import did_you_mean
from warmopt.criteria import CRITERIA
from warmopt.shapes import MODES
from warmopt.trace import Trace
from warmopt.trace import replay as replayed

__all__ = ["app"]

MOST_SHOWN = 10**7  # updates in a preview

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


def _checked_output(path: Path | None) -> Path | None:
    """Refuses a path that cannot be written, before anything is trained or drawn."""
    from matplotlib.backend_bases import FigureCanvasBase

    if path is not None:
        known = FigureCanvasBase.get_supported_filetypes()
        if path.suffix.removeprefix(".") not in known:
            raise typer.BadParameter(f"{path} must end in one of {', '.join(known)}.")
        if not path.parent.is_dir():
            raise typer.BadParameter(f"{path.parent} must be a folder that exists.")
    return path


@app.command()
def demo(
    output: Annotated[
        Path,
        typer.Option(
            help="Where to save the picture of the curves.", callback=_checked_output
        ),
    ] = Path("demo.png"),
    seed: Annotated[int, typer.Option(help="Of the parameters and the batches.")] = 0,
    updates: Annotated[int, typer.Option(min=1, help="Length of each run.")] = UPDATES,
) -> None:
    """Train a small transformer with and without warmup, at the same learning rate."""
    torch.set_num_threads(1)  # more threads are slower with such small matrices
    console = Console()
    runs: dict[str, Run] = {}
    with Progress(console=console) as bar:
        for name, warmup in WARMUPS.items():
            task = bar.add_task(name, total=updates)
            runs[name] = train(
                warmup,
                seed,
                updates,
                lambda loss, task=task, name=name: bar.update(  # type: ignore[misc]
                    task, advance=1, description=f"{name}: loss {loss:.2f}"
                ),
            )

    title = f"Post-LN transformer, AdamW at LR {LR:g}, seed {seed}"
    table = Table("warmup", title=title)
    for column in ("loss at the end", "effective LR at the end", "seconds"):
        table.add_column(column, justify="right")
    for name, run in runs.items():
        row = (f"{run.final_loss:.3f}", f"{run.lrs[-1]:.2g}", f"{run.seconds:.1f}")
        table.add_row(name, *row)
    console.print(table)
    losses = [(name, _smoothed(run.losses)) for name, run in runs.items()]
    lrs = [(name, run.lrs) for name, run in runs.items()]
    save_curves(output, [("loss", losses), ("effective LR", lrs)], title)
    console.print(f"The loss is in nats per character. The curves are in {output}.")


def _smoothed(values: list[float], window: int = 10) -> list[float]:
    """Mean of each value and up to `window` - 1 before it."""
    ends = range(1, len(values) + 1)
    parts = [values[max(0, end - window) : end] for end in ends]
    return [sum(part) / len(part) for part in parts]


@app.command()
def preview(
    mode: Annotated[str, typer.Option(help=f"One of {', '.join(MODES)}.")] = "linear",
    steps: Annotated[
        float | None,
        typer.Option(help="Length in updates, or a ratio of --total-steps."),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Length in epochs, instead of --steps.")
    ] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, help="Batches per epoch, for --epochs.")
    ] = None,
    accumulation: Annotated[
        int, typer.Option(min=1, help="Batches per update, for --epochs.")
    ] = 1,
    start: Annotated[
        float | None,
        typer.Option(help="Factor at update 0; the mode's own if left out."),
    ] = None,
    offset: Annotated[
        int, typer.Option(help="Updates at the start factor before the ramp.")
    ] = 0,
    total_steps: Annotated[
        int | None, typer.Option(help="Updates of the whole run, for a ratio.")
    ] = None,
    beta2: Annotated[
        float, typer.Option(min=0.0, max=0.9999, help="For the untuned modes.")
    ] = 0.999,
    lr: Annotated[float, typer.Option(help="Base learning rate.")] = 1.0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Picture to save; the terminal if left out.", callback=_checked_output
        ),
    ] = None,
) -> None:
    """Draw the factor and the effective LR of a warmup, without training."""
    steps = _in_updates(steps, epochs, batches, accumulation)
    try:
        schedule = Schedule(mode, steps, start, offset, total_steps)
        rule = schedule.steps_from_beta2
        length = (rule(beta2) if rule else schedule.steps) or 0
        # Some shapes come closer and closer to 1 for a very long time. Their curve is
        # cut where nothing more can be seen.
        shown = min(schedule.last_update(length), round(5 * length) + offset)
        shown += max(1, shown // 10)
        if shown > MOST_SHOWN:
            raise ValueError(f"steps must be at most {MOST_SHOWN} to be drawn.")
        if not math.isfinite(lr):
            raise ValueError(f"lr must be a finite number, got {lr}.")
        updates = range(1, shown + 1)
        factors = [schedule.factor(t, length, schedule.start) for t in updates]
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    title = f"{mode}, {schedule.last_update(length)} updates"
    lrs = [lr * factor for factor in factors]
    if output is None:
        typer.echo(curve_in_terminal(f"LR (base {lr:g})", lrs, title))
    else:
        panels = [("factor", [(mode, factors)]), ("effective LR", [(mode, lrs)])]
        save_curves(output, panels, title)
        typer.echo(f"The curves are in {output}.")


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
) -> None:
    """Say when a recorded warmup would have ended under another criterion.

    The constants of the criterion are options too: --criterion drift --tol 0.2
    """
    try:
        trace = Trace.load(path)
        if criterion not in CRITERIA:
            raise ValueError(
                f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}."
                f"{did_you_mean(criterion, CRITERIA)}"
            )
        rule = CRITERIA[criterion](**_constants(context.args))
        way: Any = on_settled  # the next line checks it
        result = replayed(trace, rule, pool=pool, on_settled=way, fast=fast)
    except (OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    settled = sum(result.verdicts)
    typer.echo(f"{rule}: settled in {settled} of {len(result.verdicts)} readings.")
    if result.end is None:
        typer.echo("It would still be warming up where the trace ends.")
    else:
        typer.echo(f"Update {result.end} would have been the last ({result.reason}).")


def _constants(options: list[str]) -> dict[str, Any]:
    """Turns ["--tol", "0.2", "--by=tensor"] into {"tol": 0.2, "by": "tensor"}."""
    words = [word for option in options for word in option.split("=", 1)]
    if len(words) % 2 or not all(name.startswith("--") for name in words[::2]):
        raise ValueError(f"options must come in pairs of --name value, got {options}.")
    return {
        name.removeprefix("--").replace("-", "_"): _value(value)
        for name, value in zip(words[::2], words[1::2], strict=True)
    }


def _value(word: str) -> Any:
    """The number, True, False or None that a word stands for, or the word itself."""
    try:
        # title() makes True of true, as people write it on a command line.
        return ast.literal_eval(word.title())
    except (ValueError, SyntaxError):
        return word
