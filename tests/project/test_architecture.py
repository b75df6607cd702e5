"""Imports only point down the map, and `import warmopt` imports only torch.

The map is the docstring of the package.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import warmopt
from tests.support import ROOT
from tests.support.processes import run_python

PACKAGE = Path(warmopt.__file__).parent
NEED_AN_EXTRA = {"_tools.cli", "_tools.plots", "_tools.traces"}
NEED_AN_EXTRA |= {"lightning", "transformers"}


def on_the_map() -> list[str]:
    """The modules, from the top down."""
    modules = []
    for room, names in re.findall(
        r"^ {4}(?:(\w+): )?(\w+(?: \w+)*) {2,}\S", warmopt.__doc__ or "", re.MULTILINE
    ):
        modules += [f"{room}.{name}" if room else name for name in names.split()]
    return modules


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {
    module_of(path): path
    for path in PACKAGE.rglob("*.py")
    if path == PACKAGE / "__init__.py" or path.stem != "__init__"
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
    return names


def test_every_module_is_on_the_map_once() -> None:
    assert sorted(on_the_map()) == sorted(MODULES)


def test_imports_point_down() -> None:
    below: set[str] = set()
    for module in reversed(on_the_map()):
        ours = {name for name in imported(MODULES[module]) if "warmopt" in name}
        assert ours <= below, module
        below |= {f"warmopt.{module}"}


def test_a_room_that_is_not_a_module_holds_nothing() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        assert len(ast.parse(path.read_text()).body) == 1, path


def test_only_the_optional_modules_import_more_than_torch() -> None:
    for module, path in MODULES.items():
        roots = {name.split(".")[0] for name in imported(path)}
        allowed = {"warmopt", "torch", *sys.stdlib_module_names}
        assert roots <= allowed or module in NEED_AN_EXTRA, module


def test_shapes_are_pure_of_torch() -> None:
    for module in ("shapes", "_groups.schedule"):
        assert "torch" not in {name.split(".")[0] for name in imported(MODULES[module])}


def test_importing_adds_nothing_beyond_torch() -> None:
    """It also works if warnings are errors."""
    added = run_python(
        "import sys, torch; before = set(sys.modules); import warmopt; "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))",
        "-W",
        "error",
    )
    assert set(ast.literal_eval(added)) - sys.stdlib_module_names == {"warmopt"}


def test_importing_takes_no_longer_than_torch() -> None:
    """Less than 1.1 x `import torch`: our own part is at most a tenth of it."""
    shares = []
    for _ in range(6):
        torch_s, warmopt_s = run_python(
            "import time; a = time.perf_counter(); import torch; "
            "b = time.perf_counter(); import warmopt; c = time.perf_counter(); "
            "print(b - a, c - b)"
        ).split()
        shares.append(float(warmopt_s) / float(torch_s))
    assert min(shares) < 0.1


def test_private_names_of_torch_are_used_in_one_place_and_listed() -> None:
    """Attributes and names in strings, such as `getattr(o, "_optimizer_...")`."""
    page = (ROOT / "docs" / "design.md").read_text()
    listed = page.partition("## Private parts of torch")[2].partition("\n## ")[0]
    pattern = re.compile(
        r"torch(?:\.\w+)*\._(?!_)\w+|_(?:optimizer|global_optimizer|torchdynamo|foreach)_\w+"
        r"|_opt_called|_wrapped_by_lr_sched|\w+_eval_frame\w*|trace_rules"
    )
    for module, path in MODULES.items():
        for name in pattern.findall(path.read_text()):
            last = name.split(".")[-1]
            if name.startswith("torch._") or "eval_frame" in name:
                assert module == "_torch", (module, name)
            assert last in listed, (module, name)
