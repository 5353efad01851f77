"""Settings of the site (Sphinx); `build_site.py` lays out the pages and calls it."""

from latex2mathml.converter import convert

import workbench

project = "Astrophoto Workbench"
author = "The Astrophoto Workbench authors"
project_copyright = author
release = version = workbench.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["charts/blog/*"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # executed before, once
nb_merge_streams = True
nb_ipywidgets_js = {}  # would be fetched from the network
suppress_warnings = ["mystnb.unknown_mime_type", "config.cache", "myst.header", "toc.not_included"]

default_role = "code"  # docstrings name functions in single quotes
autosummary_generate = False
autodoc_typehints = "none"  # they stand in the signature
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

templates_path = []
html_theme = "pydata_sphinx_theme"
html_title = "Astrophoto Workbench"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "Astrophoto Workbench"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = ">>> "


def _inline(translator, node):
    translator.body.append(convert(node.astext()))
    raise _skip()


def _block(translator, node):
    translator.body.append(f'<div class="math-block">{convert(node.astext(), display="block")}</div>')
    raise _skip()


def _skip():
    from docutils.nodes import SkipNode

    return SkipNode()


def _bars_are_bars(app, what, name, thing, options, lines):
    """Keep |x| in docstrings from being read as a substitution; examples are left alone."""
    example = False
    for number, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            lines[number] = line.replace("|", "\\|")


def setup(app):
    """Formulas become MathML here: no script, no font to fetch."""
    app.connect("autodoc-process-docstring", _bars_are_bars)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


html_math_renderer = "mathml"
