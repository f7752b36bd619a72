"""How all pictures look: colours told apart by colour-blind readers too, labels, bare axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowdetect._ctrl_c import whole_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# of Okabe and Ito; the first is the in-distribution set
COLORS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#7A5C00", "#56B4E9", "#222222", "#8A8A8A")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "D", "s", "^", "v", "X", "P", "<")
GREY = "#595959"
LABEL_SIZE = 9  # points; readable when a figure 9 inches wide is shown 900 pixels wide


def own_axes(ax: Axes | None, inches: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    with whole_imports():
        from matplotlib.figure import Figure

    return Figure(figsize=inches, layout="constrained").add_subplot()


def tidy(ax: Axes, hidden: Sequence[str]) -> None:
    ax.spines[list(hidden)].set_visible(False)
    ax.tick_params(colors=GREY, labelsize=LABEL_SIZE)
    ax.xaxis.label.set(color=GREY, size=LABEL_SIZE + 1)
    ax.yaxis.label.set(color=GREY, size=LABEL_SIZE + 1)


def color_of(i: int) -> str:
    return COLORS[i % len(COLORS)]
