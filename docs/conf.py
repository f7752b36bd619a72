"""Sphinx configuration: numpydoc, autosummary and a gallery; builds without a network."""

import re

import flowdetect

project = "flowdetect"
author = "the flowdetect developers"
copyright = f"2026, {author}"
version = release = flowdetect.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
default_role = "literal"  # numpydoc's `parameter`

autodoc_typehints = "none"  # the docstrings give shapes and units, which types do not
autosummary_generate = True
numpydoc_show_class_members = False  # the class template lists them

html_theme = "pydata_sphinx_theme"
html_title = "flowdetect"
html_theme_options = {"show_prev_next": False, "show_toc_level": 2, "header_links_before_dropdown": 6}
html_sidebars = {"index": []}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "capture_repr": ("_repr_html_",),  # tables, but not "<Axes: >"
    "within_subsection_order": "FileNameSortKey",
}


def skip_scikit_learn(app, what, name, obj, skip, options):
    """Leave out what every estimator inherits: its docstrings refer to labels of scikit-learn's own pages."""
    return True if (getattr(obj, "__module__", None) or "").startswith("sklearn.") else None


def escape_fitted_names(app, what, name, obj, options, lines):
    """Keep docutils from taking fitted names such as offset_ for links; in backticks they are safe already."""
    prose = r"(?<=[a-z0-9])_(?=[\s,.;:)]|$)"
    lines[:] = [
        line if "`" in line or line.lstrip().startswith(">>>") else re.sub(prose, r"\_", line) for line in lines
    ]


def setup(app):
    app.connect("autodoc-skip-member", skip_scikit_learn)
    app.connect("autodoc-process-docstring", escape_fitted_names, priority=900)  # after numpydoc
