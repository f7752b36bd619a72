"""Documentation of an estimator: the description of every parameter, and the address of its page.

A parameter that many estimators share is described once, in the docstring of the class that they inherit it from. Each
subclass's docstring is completed from there when the class is made, so that `help`, the pages and the HTML
representation in notebooks describe all parameters.

The HTML representation also links to the estimator's page. Its address is in the project's metadata, as
`Documentation` under `[project.urls]` of pyproject.toml; without one there are no links. The environment variable
FLOWDETECT_DOCS, an address or the folder of pages that one has built, takes precedence.
"""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from inspect import cleandoc, signature
from pathlib import Path

from flowdetect._homes import HOMES

DISTRIBUTION = "flowdetect-ood"
VARIABLE = "FLOWDETECT_DOCS"
SECTION = "Parameters\n----------\n"
SECTION_END = re.compile(r"\n\n\w[\w ]*\n-{3,}\n|\Z")
ENTRY = re.compile(r"^\w+(?:, \w+)*(?: : .*|(?=\n ))(?:\n(?: .*|(?=\n)))*", re.MULTILINE)  # names, and what is indented
POINTER = re.compile(r"\n*^All other parameters are those of `\w+`(?:\n\S|[^.])*\.\n?", re.MULTILINE)  # to a base


def address() -> str:
    """Return the address of the documentation, without a slash at its end; empty if unknown."""
    told = os.environ.get(VARIABLE, "").strip()
    if told:
        return (told if "://" in told else Path(told).resolve().as_uri()).rstrip("/")
    try:
        urls = metadata(DISTRIBUTION).get_all("Project-URL") or []
    except PackageNotFoundError:  # used from a folder, not installed
        return ""
    known = {label.strip().lower(): url.strip() for label, _, url in (line.partition(",") for line in urls)}
    return known.get("documentation", "").rstrip("/")


@cache
def parameter_entries(doc: str) -> dict[str, str]:
    """Return the entries of a docstring's Parameters section.

    Parameters
    ----------
    doc : str
        A docstring in numpydoc's format, without indentation.

    Returns
    -------
    entries : dict of str, str
        Name, or names that share an entry, and the text of the entry, which starts with them.
    """
    start = doc.find(SECTION)
    if start < 0:
        return {}
    start += len(SECTION)
    end = SECTION_END.search(doc, start)
    assert end is not None  # the end of the string matches
    texts = [match.group().rstrip() for match in ENTRY.finditer(doc, start, end.start())]
    return {re.split(r" : |\n", text, maxsplit=1)[0]: text for text in texts}


def completed(doc: str, names: list[str], bases: list[str]) -> str:
    """Add missing descriptions of parameters to a docstring.

    Parameters
    ----------
    doc : str
        A docstring in numpydoc's format, without indentation.
    names : list of str
        All parameters.
    bases : list of str
        Docstrings of the base classes, the nearest first.

    Returns
    -------
    doc : str
        The docstring with all parameters: those that it leaves out come last, each as the nearest base describes it,
        and an entry with nothing but a type has the description of the nearest base.
    """
    doc = POINTER.sub("\n", doc)
    own, inherited = dict(parameter_entries(doc)), [parameter_entries(base) for base in bases]
    for name, text in own.items():
        described = next((base[name] for base in inherited if "\n" in base.get(name, "")), "")
        if "\n" not in text and described:
            own[name] = text + "\n" + described.partition("\n")[2]
    missing = set(names) - {name for together in own for name in together.split(", ")}
    for base in inherited:
        for together, text in base.items():
            if missing & set(together.split(", ")):
                own[together] = text
                missing -= set(together.split(", "))
    start = doc.find(SECTION)
    end = SECTION_END.search(doc, start + len(SECTION) if start >= 0 else 0)
    assert end is not None
    before = doc[: start if start >= 0 else end.start()].rstrip()
    return f"{before}\n\n{SECTION}" + "\n".join(own.values()) + doc[end.start() :] if own else doc


class Documented:
    """An estimator whose docstring describes all parameters and whose HTML links to its page, if there is one."""

    _doc_link_module = "flowdetect"

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if cls.__doc__:  # absent under python -OO
            docs = (base.__dict__["__doc__"] or "" for base in cls.__mro__[1:-1])
            bases = [cleandoc(doc) for doc in docs if "Parameters" in doc]
            # of a dataclass, the constructor is not made yet: this is the base's, and its own fields are described
            names = [name for name in signature(cls.__init__).parameters if name != "self"]
            cls.__doc__ = completed(cleandoc(cls.__doc__), names, bases)

    @property
    def _doc_link_template(self) -> str:
        base = address()
        return f"{base}/generated/flowdetect.{{estimator_name}}.html" if base and type(self).__name__ in HOMES else ""
