"""How Sphinx builds the site: make docs."""

import re

import typer
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer
from typer.cli import get_docs_for_click

from warmopt import __version__
from warmopt._tools.cli import app as commands

project = "warmopt"
author = project_copyright = "The warmopt authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # a single backtick is code, and a link where there is one
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
# Two frameworks that take seconds to import, for a base class each; and autodoc would
# import them after all, to look for the source of these classes.
autodoc_mock_imports = ["lightning", "transformers"]
for name in ("lightning.pytorch", "transformers"):
    ModuleAnalyzer.cache["module", name] = PycodeError("a mock has no source")
python_use_unqualified_type_names = True
maximum_signature_line_length = 68
napoleon_attr_annotations = False
napoleon_use_ivar = True  # attributes as one list
napoleon_custom_sections = ["Reference", "Shape"]

html_theme = "furo"
html_title = f"warmopt {version}"
html_static_path = ["_static"]
html_css_files = ["warmopt.css"]
html_copy_source = False
html_math_renderer = "mathml"


# MathML needs no script, no font and no network, and docutils can write it.
def inline_math(writer, node: nodes.math) -> None:
    """Writes a formula in a line of text."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_math(writer, node: nodes.math_block) -> None:
    """Writes a formula on lines of its own; a wide one scrolls."""
    formula = tex2mathml(node.astext(), as_block=True)
    writer.body.append(f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Adds what a page cannot say to both a reader of the file and to Sphinx."""
    # A record is no page of the site: it is downloaded.
    source[0] = source[0].replace("](../benchmarks/", "](path:../benchmarks/")
    if page == "command-line":
        command = typer.main.get_command(commands)
        context = typer.Context(command, info_name="warmopt")
        options = get_docs_for_click(obj=command, ctx=context, name="warmopt", indent=1)
        source[0] += re.sub(r" (--[a-z-]+)", r" `\1`", options)  # lest it be a dash


def setup(app: Sphinx) -> None:
    """Is called by Sphinx."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("source-read", complete)
