"""How Sphinx builds the site: make docs."""

import json
import re

import typer
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer
from typer.cli import get_docs_for_click

from docs.scripts import themed
from warmopt import __version__
from warmopt._groups.schedule import Schedule
from warmopt._tools.cli import app as commands
from warmopt.shapes import MODES

project = "warmopt"
author = project_copyright = "The warmopt authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
extensions += ["sphinx_copybutton", "sphinx_design"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # text in single backticks is code, and a link if it can be
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
# These two frameworks take seconds to import, and only one base class of each is used.
# So they are mocked. Without the loop below, autodoc would still import them, to look
# for the source of these classes.
autodoc_mock_imports = ["lightning", "transformers"]
for name in ("lightning.pytorch", "transformers"):
    ModuleAnalyzer.cache["module", name] = PycodeError("a mock has no source")
python_use_unqualified_type_names = True
maximum_signature_line_length = 68
napoleon_attr_annotations = False
napoleon_use_ivar = True  # shows attributes as one list
napoleon_custom_sections = ["Reference", "Shape"]

html_theme = "furo"
html_logo = html_favicon = "_static/logo.svg"
html_title = f"warmopt {version}"
html_static_path = ["_static"]
html_css_files = ["warmopt.css"]
html_copy_source = False
html_math_renderer = "mathml"


# Browsers show MathML without a script, a font or a network; docutils can write it.
def inline_math(writer, node: nodes.math) -> None:
    """Writes a formula that is part of a line."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_math(writer, node: nodes.math_block) -> None:
    """Writes a formula on its own line; a wide one can be scrolled."""
    formula = tex2mathml(node.astext(), as_block=True)
    writer.body.append(f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


BETAS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
SCRIPTS = """
```{{raw}} html
<style>{colours}</style>
<script type="application/json" id="explore-modes">{modes}</script>
<script src="_static/shapes.js"></script>
<script src="_static/explore.js"></script>
```
"""


def table_of_modes() -> dict[str, dict]:
    """What explore.md must know of each mode, beyond its formula."""
    table = {}
    for name, (shape, rule) in MODES.items():
        steps = None if rule else 10
        try:
            least = Schedule(name, steps, start=0.0).start
        except ValueError:  # it cannot begin at 0
            least = 0.01
        table[name] = {
            "shape": shape.__name__,
            "start": Schedule(name, steps).start,
            "least": least,
            "lengths": {str(beta2): rule(beta2) for beta2 in BETAS} if rule else None,
        }
    return table


# Before autodoc reads the shapes, which replaces their defaults by text.
MODES_AS_JSON = json.dumps(table_of_modes())


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Changes the text of a page where Sphinx needs something else than a reader."""
    # A record is not a page of the site, so this makes it a download.
    source[0] = source[0].replace("](../benchmarks/", "](path:../benchmarks/")
    if page == "explore":
        colours = themed.as_css("site")
        source[0] += SCRIPTS.format(modes=MODES_AS_JSON, colours=colours)
    if page == "command-line":
        command = typer.main.get_command(commands)
        context = typer.Context(command, info_name="warmopt")
        options = get_docs_for_click(obj=command, ctx=context, name="warmopt", indent=1)
        # In backticks, so that Sphinx does not turn -- into a dash.
        source[0] += re.sub(r" (--[a-z-]+)", r" `\1`", options)


def setup(app: Sphinx) -> None:
    """Connects all this to Sphinx, which calls this function."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("source-read", complete)
