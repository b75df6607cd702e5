"""Looks at a program, or interrupts it, at each line that it runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def at_each_line(run: Callable[[], Any], look: Callable[[], None]) -> int:
    """Calls `look` before every line of Python in `run`; returns how many there were.

    So `look` is where a handler of a signal, or another thread, may come in. An error
    that it raises comes out of that line, as Ctrl-C does.
    """
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        nonlocal lines
        if event == "line":
            lines += 1
            look()
        return trace

    before = sys.gettrace()
    gc.disable()  # what others run when garbage is collected is no line of `run`
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
        gc.enable()
    return lines


def interrupted_at(run: Callable[[], Any], line: int) -> bool:
    """Runs until a line, counted from 0, and presses Ctrl-C there.

    Returns whether there is such a line.
    """
    left = line

    def look() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt

    try:
        at_each_line(run, look)
    except KeyboardInterrupt:
        return True
    return False
