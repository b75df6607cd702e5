"""The command line: `python -m warmopt`, which is also installed as `warmopt`."""

import importlib.util
import sys


def main() -> None:
    """Runs the command line, or says which packages to install for it."""
    needed = ("typer", "rich", "matplotlib", "plotext")
    if any(importlib.util.find_spec(name) is None for name in needed):
        sys.exit(
            "The command line of warmopt needs a few more packages. Install them "
            "with: pip install 'warmopt[cli]'"
        )
    from warmopt._tools.cli import app

    app(prog_name="warmopt")


if __name__ == "__main__":
    main()
