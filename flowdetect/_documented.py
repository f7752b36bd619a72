"""Where an estimator's page of the documentation is: what its HTML representation in notebooks links to.

The address is in one place: the project's metadata, as `Documentation` under `[project.urls]` of pyproject.toml.
Without one there are no links. The environment variable FLOWDETECT_DOCS, the address or the folder of pages that one
has built oneself, goes before it.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from flowdetect._homes import HOMES

DISTRIBUTION = "flowdetect-ood"
VARIABLE = "FLOWDETECT_DOCS"


def address() -> str:
    """Return the address of the documentation, without a slash at its end; empty if none is known."""
    told = os.environ.get(VARIABLE, "").strip()
    if told:
        return (told if "://" in told else Path(told).resolve().as_uri()).rstrip("/")
    try:
        urls = metadata(DISTRIBUTION).get_all("Project-URL") or []
    except PackageNotFoundError:  # used from a folder, without having been installed
        return ""
    known = {label.strip().lower(): url.strip() for label, _, url in (line.partition(",") for line in urls)}
    return known.get("documentation", "").rstrip("/")


class Documented:
    """An estimator of ours, as scikit-learn asks for its page; those without one have no link."""

    _doc_link_module = "flowdetect"

    @property
    def _doc_link_template(self) -> str:
        base = address()
        return f"{base}/generated/flowdetect.{{estimator_name}}.html" if base and type(self).__name__ in HOMES else ""
