"""What all reports share: one table as text, Markdown and HTML, and below it what could not be scored."""

from __future__ import annotations

import html
from typing import ClassVar

from flowdetect.evaluation.scoring import Unscored


class Report:
    """A report is its table; subclasses give its cells.

    Attributes
    ----------
    unscored : list of Unscored
        Empty if every row was scored.
    """

    unscored: list[Unscored]
    n_text_cells: ClassVar[int]  # the first cells of a row are words, the others numbers

    def _cells(self) -> list[list[str]]:
        """Give the table, its head first."""
        raise NotImplementedError

    def to_markdown(self) -> str:
        """Give an aligned text table, which is Markdown too, and below it what could not be scored."""
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

    def __str__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
        rows += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
        problems = "".join(f"<p>{html.escape(str(problem))}</p>" for problem in self.unscored)
        return f"<table>{''.join(rows)}</table>{problems}"
