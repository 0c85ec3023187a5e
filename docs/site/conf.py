"""How the site is built, in English from en/, in Vietnamese from vi/ (`--define language=vi`)."""

import json
import sys
from pathlib import Path

from sphinxcontrib import katex

sys.path.insert(0, str(Path(__file__).parent))

from extension import formulas  # it lies beside this file

project = "torchfromscratch"
project_copyright = "torchfromscratch developers"
language = "en"
smartquotes = False  # an apostrophe is a prime

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.katex", "extension.setup"]
nitpicky = True
nitpick_ignore_regex = [
    # annotations of what others document
    (
        "py:.*",
        r"(dict|list|tuple|torch|collections|typing|pathlib|argparse|types|contextlib|optional|default|callable)\b.*",
    ),
    (
        "py:.*",
        r"[\w.]*\b(Tensor|Module|Size|Padding|Optimizer|Parameter|DType|Number|ReceptiveField|Sizes|Figure|_\w+|[A-Z])",
    ),
]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]
myst_url_schemes = {"http": None, "https": None, "source": None, "generated": None}

autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80

# KaTeX comes with its extension and writes MathML, which browsers draw by themselves, without fonts or styles from
# elsewhere: while the site is built if node is there, in the browser otherwise.
katex_prerender = formulas.NODE is not None
katex.render_latex = formulas.render
katex_css_path = katex.filename_css
katex_options = json.dumps(formulas.OPTIONS)

html_theme = "furo"
html_title = "torchfromscratch"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_search_summary = False  # which browsers refuse to fetch from files
templates_path = ["templates"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "language.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
