"""How the site is built: ``nox -s docs``, or ``sphinx-build -W docs build/docs``."""

import importlib.util
import pkgutil
import re
from importlib import metadata

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

project = "sol"
author = "the authors of sol"
release = metadata.version("sol-symbols")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = "sol"
html_copy_source = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "imported-members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "both"
napoleon_use_ivar = True

autodoc_mock_imports = ["torchattacks"]

nitpicky = True
nitpick_ignore_regex = [
    # What other projects define: their pages are on a network that the build does without.
    ("py:.*", r"(torch|numpy|np|sympy|matplotlib|argparse|pathlib|collections|nn|importlib|types|typing|enum)\..*"),
    ("py:class", r"Path|Figure|ModuleType|Optimizer|list\[dict\[str"),
    ("py:class", r"ArrayLike|NDArray|Weights"),
    # What the pages of the wings document under its short name, type variables, and ports that a reader need not know.
    ("py:.*", r"sol_learner\.(runtime|inner|networks|estimators|search|comparing|baselines|report|meta_training)\..*"),
    ("py:.*", r"sol_learner\.(planning|loaders|task|task_registry|settings|testing)\..*"),
    ("py:.*", r"sol_symbols\.(intervals|bounds)\..*"),
    ("py:.*", r"(Interrupted|OptimizerResult|Optimizer|NetworkRunner|UpdateNetwork|Estimator|Checkpoints)(\.\w+)?"),
    ("py:class", r"dict\[str|Bound|OptimizerSpec|Workers|seed|stream|contextlib\..*"),
    ("py:(meth|attr|func)", r"[a-z_]+"),
    ("py:data", r"[A-Z_]+|sol_learner\.\w+\.\w+\.[A-Z]+"),
]


_PLAIN = {}


def _before_napoleon(app, what, name, obj, options, lines):
    """Bars in docstrings are absolute values. What a property is, is kept: napoleon would take a part for its type."""
    lines[:] = [
        "".join(part if n % 2 else part.replace("|", r"\|") for n, part in enumerate(re.split(r"(``.*?``)", line)))
        for line in lines
    ]
    if what in ("property", "attribute", "data"):
        _PLAIN[name] = [*lines]


def _after_napoleon(app, what, name, obj, options, lines):
    lines[:] = _PLAIN.pop(name, lines)


def _short(app, what, name, obj, options, signature, returned):
    """The standard vocabulary by its name, not with all that is in it."""
    if signature and "= Vocabulary(" in signature:
        return signature.partition("= Vocabulary(")[0] + "= STANDARD)", returned
    return None


def _modules(app, page, source):
    """What each module of sol-tasks says of itself, at the end of the package's page."""
    if page == "api/tasks":
        folders = importlib.util.find_spec("sol_tasks").submodule_search_locations
        for module in pkgutil.iter_modules(folders, "sol_tasks."):
            source[0] += f"\n```{{eval-rst}}\n.. automodule:: {module.name}\n   :no-members:\n```\n"


def _math(writer, node, display):
    """Formulas as MathML, which browsers show without a script."""
    source = re.sub(r"\\label\{.*?\}", "", node.astext())
    writer.body.append(convert(source, display=display))


def _inline(writer, node):
    _math(writer, node, "inline")
    raise SkipNode


def _block(writer, node):
    writer.body.append(writer.starttag(node, "div", CLASS="math"))
    _math(writer, node, "block")
    writer.body.append("</div>\n")
    raise SkipNode


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", _after_napoleon, priority=600)
    app.connect("autodoc-process-signature", _short)
    app.connect("source-read", _modules)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


html_math_renderer = "mathml"
