"""Draws the pictures of the README: python docs/pictures.py."""

from pathlib import Path

from warmopt.plots import save_curves
from warmopt.schedule import Schedule
from warmopt.shapes import MODES

HERE = Path(__file__).parent


def modes() -> None:
    """Every mode over a hundred updates; the untuned ones for beta2 = 0.98."""
    curves: dict[bool, list] = {False: [], True: []}
    for name, mode in MODES.items():
        rule = mode.steps_from_beta2
        schedule = Schedule(name, None if rule else 25 if name == "saturating" else 100)
        steps = rule(0.98) if rule else schedule.steps
        values = [schedule.factor(t, steps, schedule.start) for t in range(1, 121)]
        curves[name in ("saturating", "log") or rule is not None].append((name, values))
    panels = [("factor", curves[False]), ("factor", curves[True])]
    title = "n = 100 updates, saturating n = 25, the untuned modes for beta2 = 0.98"
    save_curves(HERE / "modes.png", panels, title)


if __name__ == "__main__":
    modes()
