"""A small picture of a curve as text: for notebooks, and without any other package."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["curve"]

WIDTH, HEIGHT, EDGE = 240, 60, 4


def curve(values: Sequence[float], done: float) -> str:
    """Draws values as a line, and a dot on it.

    Args:
        values: At least two, at even distances.
        done: Where the dot is: 0 at the first value, 1 at the last.
    """
    most = max(*values, 1e-300)

    def point(at: float) -> str:
        index = min(int(at * (len(values) - 1)), len(values) - 2)
        part = at * (len(values) - 1) - index
        value = values[index] + (values[index + 1] - values[index]) * part
        x = EDGE + at * (WIDTH - 2 * EDGE)
        return f"{x:.1f},{HEIGHT - EDGE - value / most * (HEIGHT - 2 * EDGE):.1f}"

    line = " ".join(point(n / (len(values) - 1)) for n in range(len(values)))
    x, y = point(done).split(",")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
        f'<polyline points="{line}" fill="none" stroke="currentColor"/>'
        f'<circle cx="{x}" cy="{y}" r="3" fill="currentColor"/></svg>'
    )
