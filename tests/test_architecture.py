"""Imports point down only, and `import warmopt` brings nothing but torch."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import warmopt
from tests.processes import run_python

PACKAGE = Path(warmopt.__file__).parent

# A module may import those on lower levels only.
LEVELS = [
    ["shapes", "criteria", "group_lr", "known_optimizers", "plots"],
    ["on_device", "compiling", "couplings", "sampling", "second_moments"],
    ["adaptive", "readings", "samples"],
    ["schedule", "trace", "probe"],
    ["clock"],
    ["loading", "pool"],
    ["plan"],
    ["warmed"],
    ["__init__"],
    ["demo", "lightning", "transformers"],
    ["cli"],
    ["__main__"],
]
NEED_AN_EXTRA = {"cli", "plots", "lightning", "transformers"}


def imported(module: str) -> set[str]:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
    return names


def test_every_module_has_a_level() -> None:
    known = {module for level in LEVELS for module in level}
    assert known == {path.stem for path in PACKAGE.glob("*.py")}


def test_imports_point_down() -> None:
    below: set[str] = set()
    for level in LEVELS:
        for module in level:
            ours = {n for n in imported(module) if n.split(".")[0] == "warmopt"}
            assert ours <= {f"warmopt.{name}" for name in below}, module
        below |= set(level)


def test_only_the_optional_modules_import_more_than_torch() -> None:
    for path in PACKAGE.glob("*.py"):
        roots = {name.split(".")[0] for name in imported(path.stem)}
        allowed = {"warmopt", "torch", *sys.stdlib_module_names}
        assert roots <= allowed or path.stem in NEED_AN_EXTRA, path.stem


def test_shapes_are_pure_of_torch() -> None:
    for module in ("shapes", "schedule"):
        assert "torch" not in {name.split(".")[0] for name in imported(module)}


def test_importing_adds_nothing_beyond_torch() -> None:
    """And works where warnings are errors."""
    added = run_python(
        "import sys, torch; before = set(sys.modules); import warmopt; "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))",
        "-W",
        "error",
    )
    assert set(ast.literal_eval(added)) - sys.stdlib_module_names == {"warmopt"}


def test_importing_takes_no_longer_than_torch() -> None:
    """Less than 1.1 x `import torch`: what comes after it is a tenth at the most."""
    shares = []
    for _ in range(3):
        torch_s, warmopt_s = run_python(
            "import time; a = time.perf_counter(); import torch; "
            "b = time.perf_counter(); import warmopt; c = time.perf_counter(); "
            "print(b - a, c - b)"
        ).split()
        shares.append(float(warmopt_s) / float(torch_s))
    assert min(shares) < 0.1
