"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def grid(head: list[str], lines: Iterable[list[str]]) -> str:
    """Returns a table with this head and these lines."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
