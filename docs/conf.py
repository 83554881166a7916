"""How the documentation is built: `python -m sphinx -n -W --keep-going docs build/docs`."""

import ast
import os
import sys
from html import escape
from pathlib import Path
from typing import Any

import tomllib
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HERE = Path(__file__).parent
os.environ["SOCKFRAME_CORE"] = "0"  # both wings have the same docstrings, and this one needs no compiler
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import sockframe  # noqa: E402

project = "sockframe"
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["version"]
copyright = "the authors of sockframe, MIT license"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_static"]
html_theme = "furo"
html_title = f"sockframe {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_sourcelink = html_copy_source = False
smartquotes = False  # what a docstring has in quotes is a value
pygments_style = "friendly"
pygments_dark_style = "github-dark"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True
# Types that annotations name and that are documented elsewhere: nothing is fetched to link them.
nitpick_ignore_regex = [("py:class", r"(asyncio|collections|socket|ssl)\..*|Buffer|Connected|Handler|SSLContext")]
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88


class Wire(SphinxDirective):
    """The frames of some payloads (a literal of bytes a line) by a framing, as a picture."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> "list[nodes.Node]":
        from pictures import draw

        framing = eval(self.arguments[0], dict(vars(sockframe)))
        picture = draw(framing, [ast.literal_eval(line) for line in self.content])
        return [nodes.raw("", f'<div class="wire">{picture}</div>', format="html")]


class Help(SphinxDirective):
    """What `sockframe COMMAND --help` prints."""

    required_arguments = 1

    def run(self) -> "list[nodes.Node]":
        import click

        from sockframe.cli import command

        name = self.arguments[0]
        whole = click.Context(command, info_name="sockframe")
        part: Any = command.get_command(whole, name)
        text = part.get_help(click.Context(part, info_name=name, parent=whole))
        return [nodes.literal_block(text, text, language="none")]


class Protocols(SphinxDirective):
    """The table of the protocols that have a name."""

    def run(self) -> "list[nodes.Node]":
        rows = ["| name | defined by | what is delivered |", "|---|---|---|"]
        for item in sockframe.protocols.PROTOCOLS.values():
            cells = (f"`{item.name}`", item.source, item.note)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return self.parse_text_to_nodes("\n".join(rows))


def refine(app: Sphinx, doctree: nodes.document) -> None:
    """Let the names of tests be told from other code."""
    for literal in doctree.findall(nodes.literal):
        if "::test_" in literal.astext():
            literal["classes"].append("test")


def name_defaults(app: Sphinx, what: str, name: str, obj: object, options: object, signature: "str | None",
                  returns: "str | None") -> "tuple[str | None, str | None]":
    """Write defaults as values where the code has private names for them."""
    for hidden, value in (("_NOT_GIVEN", "..."), ("_DEFAULT_LIMIT", "65536"), ("DEFAULT_MAX_LENGTH", "8388608")):
        signature = signature and signature.replace(hidden, value)
    return signature, returns


def describe(app: Sphinx, name: str, template: str, context: "dict[str, Any]", doctree: Any) -> None:
    """Give each page its first paragraph as a description, which search engines show."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        if paragraph.astext().endswith((".", ":")):  # not an entry of the contents
            text = escape(" ".join(paragraph.astext().split())[:300])
            context["metatags"] += f'<meta name="description" content="{text}">'
            return


def as_literal(app: Sphinx, env: object, node: Any, text: "nodes.TextElement") -> "nodes.TextElement | None":
    """Leave as code what a docstring has in backticks and is not the name of something documented."""
    return text if node["reftype"] == "obj" else None


def setup(app: Sphinx) -> None:
    """Add what the pages use."""
    app.add_directive("wire", Wire)
    app.add_directive("help", Help)
    app.add_directive("protocols", Protocols)
    app.connect("doctree-read", refine)
    app.connect("autodoc-process-signature", name_defaults)
    app.connect("html-page-context", describe)
    app.connect("missing-reference", as_literal)
