"""The figures of the study of aligned mode. Their docstrings are their descriptions."""

from __future__ import annotations

from pathlib import Path

from benchmarks.study import figures
from benchmarks.study.aligned_tables import ALIGNED, at, every
from benchmarks.study.measures import Results
from benchmarks.study.tables import ladders

SHOWN = ("none", "fixed 3 %", "fixed 30 %", "fixed 100 %", ALIGNED)
LOOKS = {"none": "C1", "fixed 3 %": "C5", "fixed 30 %": "C0", "fixed 100 %": "C4"}
FOUR = (  # the ladders of the narrowing and of the controls, chosen before any result
    *(("char-LM LSTM", 0.99), ("char-LM post-LN", 0.95)),
    *(("digits MLP", 0.95), ("digits CNN", 0.999)),
)


def aligned_by_lr(results: Results, path: Path) -> None:
    """Final loss against the learning rate that was asked for, by task."""
    found = [ladder for ladder in ladders(at(every(results), 1)) if ladder[1:]]
    figures.draw_ladders(found, SHOWN, path)


def aligned_four(results: Results, path: Path) -> None:
    """Final loss against the learning rate that was asked for, on four tasks."""
    from docs.scripts import themed

    found = {
        (ladder[0].cell.task, ladder[0].cell.beta2): ladder
        for ladder in ladders(at(every(results), 1))
    }
    drawn = [found[each] for each in FOUR if each in found]
    if not drawn:
        return
    figure, axes = themed.panels(list(map(figures.title, drawn)), 2, height=2.0)
    for axis, ladder in zip(axes, drawn, strict=True):
        for name, colour in LOOKS.items():
            figures.draw_curve(axis, ladder, name, color=colour, linewidth=1.2)
        figures.draw_curve(axis, ladder, ALIGNED, color="C2", linewidth=2.8)
        figures.scale(axis, ladder, SHOWN)
    themed.legend(figure, axes[:1])
    themed.save(figure, path)


FIGURES = {"aligned_by_lr": aligned_by_lr, "aligned_four": aligned_four}
