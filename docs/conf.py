"""Sphinx configuration: the pages need no network, neither to be built nor to be read."""

import importlib.util
import re
from pathlib import Path
from shutil import copytree, ignore_patterns

from sphinx.util.nodes import make_refnode
from sphinx_gallery.sorting import ExplicitOrder

import flowdetect

project = "flowdetect"
author = "the flowdetect developers"
copyright = f"2026, {author}"
version = release = flowdetect.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "matplotlib.sphinxext.plot_directive",
    "numpydoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "sg_execution_times.rst", "auto_examples/plot_*"]  # old ones of the gallery
templates_path = ["_templates"]
rst_prolog = ".. py:currentmodule:: flowdetect\n"
smartquotes = False  # quotes stand around values that are to be typed
default_role = "py:obj"  # single backticks: a link if we have a page for the name, else code

autodoc_typehints = "none"  # the docstrings give shapes and units, which types do not
autosummary_generate = True
numpydoc_show_class_members = False  # the class template lists them

plot_html_show_source_link = plot_html_show_formats = False
plot_formats = [("png", 110)]

html_theme = "pydata_sphinx_theme"
html_title = "flowdetect"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = html_copy_source = False
html_theme_options = {
    "show_prev_next": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_sidebars = {"index": []}

GALLERY = {  # sections and their pages, in the order in which to read them
    "detectors": ["table_outliers", "likelihood_is_no_verdict", "which_score", "semantic_invariant"],
    "densities": ["first_density", "two_moons", "conditional_maf", "orders", "pixel_by_pixel", "codes_and_pixels"],
    "flows": ["flow_steps", "glow_latents", "interpolation", "learned_noise", "what_leaves_first"],
}
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,  # a page that needs a network
    "capture_repr": ("_repr_html_",),  # tables, but not "<Axes: >"
    "subsection_order": [f"../examples/{section}" for section in GALLERY],
    "within_subsection_order": ExplicitOrder([f"plot_{name}.py" for names in GALLERY.values() for name in names]),
    "parallel": 2,  # processes
}

# Of use where there is a network: python -m sphinx -b linkcheck docs docs/_build/links
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|example\.org)"]
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*", r"https://arxiv\.org/.*"]
linkcheck_timeout, linkcheck_retries, linkcheck_workers = 20, 2, 8

# MathJax from a package: formulas are drawn without a network.
MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
mathjax_path = "mathjax/tex-chtml.js"


def copy_mathjax(app, exception):
    """Copy what `mathjax_path` loads: itself, its fonts and the extensions of TeX; the other outputs are 15 MB."""
    if exception is None and app.builder.format == "html":
        unused = ignore_patterns("*-svg*", "mml*", "*-full*", "tex-mml*", "svg", "sre", "a11y", "node-main.js")
        copytree(MATHJAX, Path(app.outdir) / "_static" / "mathjax", ignore=unused, dirs_exist_ok=True)


def skip_foreign(app, what, name, obj, skip, options):
    """Leave out what is inherited from scikit-learn and pyod: its docstrings refer to labels of their own pages."""
    return True if (getattr(obj, "__module__", None) or "").startswith(("sklearn.", "pyod.")) else None


SHOW = """
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
for drawn in [value for value in list(globals().values()) if isinstance(value, Artist)]:
    plt.figure(drawn.get_figure(root=True))
"""


def draw_examples(app, what, name, obj, options, lines):
    """Show what an example draws, below its code: one that calls a function or method whose name begins with plot."""
    if "Examples" not in lines:
        return
    start = lines.index("Examples") + 2
    end = next((i for i in range(start, len(lines) - 1) if re.fullmatch("-{3,}", lines[i + 1])), len(lines))
    code = [line[4:] for line in lines[start:end] if line.startswith((">>> ", "... "))]
    if any(re.search(r"\bplot\w*\(", line) for line in code):
        shown = [f"    {line}" for line in (*code, *SHOW.splitlines())]
        lines[end:end] = ["", ".. plot::", "    :include-source: False", "", *shown, ""]


def escape(app, what, name, obj, options, lines):
    """Keep docutils from reading offset_ as a link and |x| as a substitution, but in backticks, formulas and code."""
    in_formula = False
    for i, line in enumerate(lines):
        in_formula = line.startswith(".. math::") or (in_formula and (not line.strip() or line.startswith(" ")))
        if not in_formula and not line.lstrip().startswith(">>>"):
            parts = re.split(r"(`+[^`]*`+)", line)  # every second one is in backticks
            parts[::2] = [re.sub(r"(?<=[a-z0-9])_(?=[\s,.;:)]|$)", r"\\_", part) for part in parts[::2]]
            parts[::2] = [re.sub(r"(?<![\w|])\|(?=\S)([^|]*\S)\|", r"\\|\1\\|", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def find_elsewhere(app, env, node, contnode):
    """Link a name in single backticks to the one class or function of that name, whatever its module."""
    objects = env.domains["py"].objects
    found = [
        entry
        for name, entry in objects.items()
        if entry.objtype in ("class", "function") and name.split(".")[-1] == node["reftarget"]
    ]
    if node.get("reftype") != "obj" or len(found) != 1:
        return None
    return make_refnode(app.builder, node["refdoc"], found[0].docname, found[0].node_id, contnode, node["reftarget"])


def setup(app):
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", draw_examples, priority=100)  # before numpydoc
    app.connect("autodoc-process-docstring", escape, priority=900)  # after numpydoc
    app.connect("missing-reference", find_elsewhere)
    app.connect("build-finished", copy_mathjax)
