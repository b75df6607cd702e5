"""The figures of the study of aligned mode. Their docstrings are their descriptions."""

from __future__ import annotations

from pathlib import Path

from benchmarks.study import figures
from benchmarks.study.aligned_tables import ALIGNED, at, every
from benchmarks.study.measures import Results
from benchmarks.study.tables import ladders

LOOKS = {  # of a warmup: its name for readers, colour and width
    "none": ("no warmup", "C1", 1.2),
    "fixed 3 %": ("ramp, 3 % of the run", "C5", 1.2),
    "fixed 30 %": ("ramp, 30 %", "C0", 1.2),
    "fixed 100 %": ("ramp, the whole run", "C4", 1.2),
    ALIGNED: ("aligned", "C2", 2.8),
}
FOUR = {  # the ladders of the narrowing and the controls, chosen before any result
    ("char-LM LSTM", 0.99): "LSTM, characters",
    ("char-LM post-LN", 0.95): "transformer, characters",
    ("digits MLP", 0.95): "MLP, digits",
    ("digits CNN", 0.999): "CNN, digits",
}


def aligned_by_lr(results: Results, path: Path) -> None:
    """Final loss against the learning rate that was asked for, by task."""
    found = [ladder for ladder in ladders(at(every(results), 1)) if ladder[1:]]
    figures.draw_ladders(found, list(LOOKS), path)


def aligned_four(results: Results, path: Path) -> None:
    """Final loss against the learning rate that was asked for, on four tasks."""
    from docs.scripts import themed

    found = {
        (ladder[0].cell.task, ladder[0].cell.beta2): ladder
        for ladder in ladders(at(every(results), 1))
    }
    drawn = {name: found[each] for each, name in FOUR.items() if each in found}
    if not drawn:
        return
    figure, axes = themed.panels(list(drawn), columns=2, height=2.0)
    for axis, ladder in zip(axes, drawn.values(), strict=True):
        for name, (label, color, width) in LOOKS.items():
            look = {"label": label, "color": color, "linewidth": width}
            figures.draw_curve(axis, ladder, name, **look)
        figures.scale(axis, ladder, list(LOOKS))
    for axis in axes[-2:]:
        axis.set_xlabel("learning rate asked for", labelpad=0)
    for axis in axes[::2]:
        axis.set_ylabel("final loss")
    themed.legend(figure, axes[:1], columns=2)
    themed.save(figure, path)


FIGURES = {"aligned_by_lr": aligned_by_lr, "aligned_four": aligned_four}
