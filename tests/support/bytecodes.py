"""Counts executed bytecodes: what Python code costs, without the noise of a clock."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest


def bytecodes(function: Callable[[], Any]) -> Counter[str]:
    """The executed bytecodes of one call, for each Python function in it."""
    counted: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted[frame.f_code.co_name] += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    if not counted.total():  # 3.13 reports them for some functions only
        pytest.skip("this Python does not report all bytecodes")
    return counted
