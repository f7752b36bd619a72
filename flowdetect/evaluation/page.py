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

DPI = 180
STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --quiet: #595959; --rule: #ddd; --accent: #005a8f;
        --soft: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --paper: #16191d; --quiet: #a9b0b8; --rule: #3a4048; --accent: #7cc4f2; --soft: #22272d; }
}
* { box-sizing: border-box; }
body { max-width: 1180px; margin: 0 auto; padding: 1.4rem 1.2rem 3rem; color: var(--ink); background: var(--paper);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; border-top: 1px solid var(--rule); padding-top: 1rem; }
p, ul { max-width: 46rem; }
p.lead { font-size: 1.15rem; color: var(--accent); margin: .3rem 0 .8rem; max-width: 60rem; }
a { color: var(--accent); }
img { max-width: 100%; height: auto; display: block; background: #fff; border-radius: 6px; }
figure { margin: 0; }
figcaption { font-size: .88rem; color: var(--quiet); margin-top: .3rem; max-width: 34rem; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
.wrapped td { white-space: normal; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll > img { max-width: none; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; margin: .8rem 0; }
.figures > img { max-width: min(100%, 100vw - 2.4rem); }
.story { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 33rem), 1fr)); gap: .6rem 2rem; }
.story h3 { font-size: 1.05rem; margin: .4rem 0 .3rem; }
.story p { margin: .3rem 0; font-size: .95rem; }
.story figure { margin: 0 0 .4rem; }
.story table { margin: .3rem 0; }
.story th, .story td { padding-block: .16rem; }
code { background: var(--soft); padding: .1rem .3rem; border-radius: 3px; overflow-wrap: anywhere; }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } img, table { break-inside: avoid; } }
"""


def page(title: str, body: str) -> str:
    """Return a whole page around a body of HTML."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    meta = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{meta}</head><body>\n{body}\n</body></html>\n'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return cells as an HTML table, which scrolls in a narrow window."""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    head_cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f'<div class="scroll"><table><tr>{head_cells}</tr>{body}</table></div>'


def figures(pictures: Sequence[str]) -> str:
    """Set pictures side by side, as many as the window is wide."""
    return f'<div class="figures">{"".join(pictures)}</div>'


def wide(picture: Figure | Axes, alt: str) -> str:
    """Show a picture in its own size; a narrow window scrolls it."""
    return f'<div class="scroll">{as_html(picture, alt)}</div>'


def as_html(picture: Figure | Axes, alt: str) -> str:
    """Return an <img> that carries its PNG within itself."""
    data = base64.b64encode(as_png(picture)).decode()
    width = round(_figure_of(picture).get_figwidth() * 100)
    return f'<img alt="{escape(alt)}" style="width: {width}px" src="data:image/png;base64,{data}">'


def as_png(picture: Figure | Axes) -> bytes:
    """Return the content of a PNG file."""
    file = io.BytesIO()
    _figure_of(picture).savefig(file, format="png", dpi=DPI, bbox_inches="tight")
    return file.getvalue()


def _figure_of(picture: Figure | Axes) -> Any:
    return getattr(picture, "figure", picture)
