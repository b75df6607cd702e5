"""The Python code in a page, and what it says that it prints."""

from __future__ import annotations

import re


def blocks(text: str) -> list[str]:
    """The Python code in a page, or in a part of it."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def prints(code: str) -> list[str]:
    """The lines that the comments of some code say it prints."""
    return re.findall(r"# prints (.*)", code)
