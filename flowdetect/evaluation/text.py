"""Tables as text within 80 columns: the numbers that matter first, further ones where there is room or below."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 80
GAP = "  "
CUT = "..."
SHORTEST = 8  # characters of a name that is cut

Column = Sequence[str]  # a head and its cells


def text_tables(names: Sequence[Column], numbers: Sequence[Column], n_first: int = 1, width: int = WIDTH) -> str:
    """Lay columns out as lines of text, no line longer than `width`.

    Parameters
    ----------
    names : columns of words, each with its head first
        Stand at the left of both tables; cut in the middle where they leave no room for the numbers.
    numbers : columns of numbers, the most important first
    n_first : int, default=1
        So many of them stand in the first table in any case; of the others as many as fit.

    Returns
    -------
    text : str
        One table, or two with an empty line between them.
    """
    most = _cut_to(names, width - _needed(numbers[:n_first]) - len(GAP) * (len(names) - 1))
    room = width - _needed(most) + len(GAP)
    n_shown = max(n for n in range(n_first, len(numbers) + 1) if n == n_first or _needed(numbers[:n]) <= room)
    tables = [_table(most, numbers[:n_shown])]
    if further := numbers[n_shown:]:
        least = _cut_to(names, width - _needed(further) - len(GAP) * (len(names) - 1))
        tables.append(_table(least, further))
    return "\n\n".join(tables)


def _needed(columns: Sequence[Column]) -> int:
    """Characters that columns take, each with the gap before it."""
    return sum(len(GAP) + _width(column) for column in columns)


def _table(names: Sequence[Column], numbers: Sequence[Column]) -> str:
    columns = [*names, *numbers]
    widths = [_width(column) for column in columns]
    lines = [
        GAP.join(
            cell.ljust(width) if i < len(names) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join([lines[0], GAP.join("-" * width for width in widths), *lines[1:]])


def _width(column: Column) -> int:
    return max(map(len, column))


def _cut_to(names: Sequence[Column], room: int) -> list[Column]:
    """Cut the longest column of names until all fit into the room."""
    widths = [_width(column) for column in names]
    while sum(widths) > room and max(widths) > SHORTEST:
        widths[widths.index(max(widths))] -= 1
    return [_shortened(column, width) for column, width in zip(names, widths, strict=True)]


def _shortened(column: Column, width: int) -> list[str]:
    """Shorten each cell; different names that would become alike are numbered."""
    short = {cell: shortened(cell, width) for cell in column}
    for i, (cell, text) in enumerate(list(short.items())):
        if sum(text == other for other in short.values()) > 1:
            number = f"{CUT}{i}"
            short[cell] = cell[: max(width - len(number), 0)] + number
    return [short[cell] for cell in column]


def shortened(text: str, width: int) -> str:
    """Leave the middle of a long text out; its two ends tell alike names apart."""
    if len(text) <= width:
        return text
    kept = max(width - len(CUT), 2)
    return text[: kept - kept // 2] + CUT + text[-(kept // 2) :]
