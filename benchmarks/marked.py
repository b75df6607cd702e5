"""Parts of a page that a program writes, between markers.

A part begins with `<!-- NAME -->` and ends with the next `<!-- end -->`. The rest of
the page is written by hand, or by another program.
"""

from __future__ import annotations

import re

END = "<!-- end -->"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(f"(?<={re.escape(f'<!-- {name} -->')}\n).*?(?={END})", re.DOTALL)


def part(text: str, name: str) -> str:
    """Returns what stands between the markers of this name.

    Raises:
        ValueError: They are not in the text.
    """
    found = _pattern(name).search(text)
    if found is None:
        raise ValueError(f"the page must have <!-- {name} --> and {END}")
    return found[0]


def filled(text: str, name: str, new: str) -> str:
    """Returns the text with a new part between these markers."""
    part(text, name)
    # Once: after an empty part, the pattern would also match all up to the next end.
    return _pattern(name).sub(lambda _: new, text, count=1)
