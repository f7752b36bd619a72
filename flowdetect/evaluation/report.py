"""What all reports share: text within 80 columns, tables in Markdown and HTML, a page, and what could not be scored."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any, ClassVar

from flowdetect._files import PathName, as_path, check_writable, write_atomically
from flowdetect.evaluation.page import page
from flowdetect.evaluation.scoring import Unscored
from flowdetect.evaluation.text import WIDTH, Column, text_tables

COUNTED = "Intervals: 95 %, over the rows drawn; another training or seed is not counted."


class Report:
    """A report is its table; subclasses give its cells.

    Attributes
    ----------
    unscored : list of Unscored
        Empty if every row was scored.
    """

    unscored: list[Unscored]
    n_text_cells: ClassVar[int]  # the first cells of a row are words, the others numbers
    n_first: ClassVar[int] = 1  # columns of numbers that stand in the first table of the text

    def _cells(self) -> list[list[str]]:
        """Return the whole table, its head first."""
        raise NotImplementedError

    def _title(self) -> str:
        """Describe in a line or two what is compared."""
        raise NotImplementedError

    def _columns(self) -> tuple[Sequence[Column], Sequence[Column]]:
        """Return columns of names and columns of numbers, the most important first, for `text_tables`."""
        raise NotImplementedError

    def _notes(self) -> list[str]:
        """Return sentences that stand below the text."""
        return []

    def to_markdown(self) -> str:
        """Return the whole table as aligned Markdown, and below it what could not be scored."""
        table = [[cell.replace("|", r"\|") for cell in row] for row in self._cells()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["| " + " | ".join(self._aligned(row, widths)) + " |" for row in table]
        rule = ["-" * width if i < self.n_text_cells else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
        lines.insert(1, "| " + " | ".join(rule) + " |")
        return "\n".join([*lines, *(f"\n{problem}" for problem in self.unscored)])

    def _aligned(self, row: list[str], widths: list[int]) -> list[str]:
        """Words to the left, numbers to the right."""
        return [
            cell.ljust(width) if i < self.n_text_cells else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]

    def _write_page(self, path: PathName, sections: Sequence[str]) -> None:
        """Write the page, with these parts below the table, as a whole or not at all."""
        target = as_path(path)
        check_writable(target)
        title = self._title()
        body = "\n".join([f"<h1>{html.escape(title)}</h1>", self.html_table(), *sections])
        write_atomically(target, page(title, body).encode())

    def html_table(self) -> str:
        """Return the whole table as HTML that scrolls sideways, what the intervals count, and what was not scored."""
        return f'<div class="scroll words">{self._repr_html_()}</div>'

    def __str__(self) -> str:
        problems = [f"\n{problem}" for problem in self.unscored]
        notes = [textwrap.fill(note, WIDTH) for note in self._notes()]
        table = text_tables(*self._columns(), self.n_first)
        return "\n".join([self._title(), "", table, "", COUNTED, *notes, *problems])

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
        rows += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
        problems = "".join(f"<p>{html.escape(str(problem))}</p>" for problem in self.unscored)
        return f"<table>{''.join(rows)}</table><p>{COUNTED}</p>{problems}"


def area_cell(result: dict[str, Any], name: str) -> str:
    """Write a number with its interval."""
    value, low, high = (result[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def milliseconds(result: dict[str, Any]) -> str:
    """Write the time a row took."""
    return _short(result["ms_per_image"])


def times(results: Sequence[dict[str, Any]]) -> str:
    """Return how long each scorer took a row, on average over the sets."""
    taken: dict[str, list[float]] = {}
    for result in results:
        taken.setdefault(result["scorer"], []).append(result["ms_per_image"])
    means = ", ".join(f"{name} {_short(sum(each) / len(each))}" for name, each in taken.items())
    return f"Milliseconds a row: {means}."


def _short(number: float) -> str:
    return f"{number:.3g}" if number >= 0.001 else "below 0.001"
