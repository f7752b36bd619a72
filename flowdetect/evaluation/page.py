"""Pages of HTML in one file, with all their pictures inside, readable without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
STYLE = """
body { max-width: 960px; margin: 2.5rem auto; padding: 0 1.2rem; color: #222; background: #fff;
       font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .3rem; }
h2 { font-size: 1.2rem; margin-top: 2.6rem; border-top: 1px solid #ddd; padding-top: 1.1rem; }
p.lead { font-size: 1.15rem; color: #0072B2; margin-top: .4rem; }
img { max-width: 100%; height: auto; display: block; margin: 1rem auto; }
table { border-collapse: collapse; font-size: .88rem; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid #eee; }
th { color: #595959; font-weight: 600; border-bottom: 1px solid #bbb; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
.scroll { overflow-x: auto; }
code { background: #f4f4f4; padding: .1rem .3rem; border-radius: 3px; }
"""


def page(title: str, body: str) -> str:
    """Give a whole page around a body of HTML."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    meta = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{meta}</head><body>\n{body}\n</body></html>\n'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give cells as an HTML table."""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{body}</table>"


def as_html(picture: Figure | Axes, alt: str) -> str:
    """Give an <img> that carries its PNG within itself."""
    data = base64.b64encode(as_png(picture)).decode()
    width = round(_figure_of(picture).get_figwidth() * 100)
    return f'<img alt="{escape(alt)}" style="width: {width}px" src="data:image/png;base64,{data}">'


def as_png(picture: Figure | Axes) -> bytes:
    """Give the content of a PNG file."""
    file = io.BytesIO()
    _figure_of(picture).savefig(file, format="png", dpi=DPI, bbox_inches="tight")
    return file.getvalue()


def _figure_of(picture: Figure | Axes) -> Any:
    return getattr(picture, "figure", picture)
