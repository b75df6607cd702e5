"""Rows of a record, and where a stage runs."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]
"""What was looked at (`what`), whether it is as it should be (`ok`), and the facts.

`ok` is None where there is nothing to judge. A row of an error has its `traceback`.
"""


class Here(NamedTuple):
    """Where a stage runs, and how long it may take.

    Attributes:
        device: "cuda", or "cpu", which runs a small part to show that it works.
        seconds: What the stage should take.
        limit: Seconds after which it is stopped.
        folder: Where the files of a stage go.
        name: How their names begin.
    """

    device: str
    seconds: float
    limit: float
    folder: Path
    name: str

    @property
    def on_cuda(self) -> bool:
        return self.device == "cuda"


class CheckError(Exception):
    """Something is not as it should be."""


def checked(what: str, check: Callable[[], Row]) -> Row:
    """Returns the row of a check. An error ends only this check."""
    try:
        return {"what": what, "ok": True, **check()}
    except Exception as error:
        told = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        whole = traceback.format_exc()
        return {"what": what, "ok": False, "why": told, "traceback": whole[-6000:]}


def finite(value: Any) -> Any:
    """The same, but None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
