"""Pictures of scores: histograms, ROC curves, images and how far an SIT moves a score.

Every function draws into the `ax` it is given, or into a figure of its own, and gives back the axes; none touches
matplotlib's backend, its settings or pyplot's list of figures. Labels stand at what they name; the colours are those of
Okabe and Ito, told apart by colour-blind readers too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect.evaluation.metrics import auroc, roc_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# the first is the in-distribution set
COLORS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#7A5C00", "#56B4E9", "#222222")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
GREY = "#595959"
LABEL_SIZE = 9  # points; readable when a figure 9 inches wide is shown 900 pixels wide
KEPT_QUANTILES = (0.005, 0.995)  # what lies beyond is counted in the outermost bins


def plot_score_histograms(
    scores: Mapping[str, ArrayLike],
    *,
    xlabel: str = "score (higher is more normal)",
    n_bins: int = 50,
    ax: Axes | None = None,
) -> Axes:
    """Draw histograms of the scores of several sets over one another, each scaled to its own peak.

    Parameters
    ----------
    scores : mapping of set name to (n,) array
        The first is the in-distribution set and drawn filled. NaN (not scored) is left out.
    xlabel : str
        Say the unit here, e.g. "log-likelihood, nats".
    n_bins : int, default=50
        Bins between the 0.5 % and 99.5 % quantiles of each set; scores beyond are counted in the outermost bins.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If no set has a finite score.

    Examples
    --------
    >>> from flowdetect.evaluation import plot_score_histograms
    >>> ax = plot_score_histograms({"digits": [2.0, 3.0, 3.5], "letters": [0.0, 1.0]}, n_bins=5)
    """
    finite = {name: _finite(values) for name, values in scores.items()}
    finite = {name: values for name, values in finite.items() if len(values)}
    if not finite:
        raise ValueError("plot_score_histograms needs a set with at least one finite score, got none.")
    ax = _axes(ax, (6, 3.2))
    edges = _common_edges(list(finite.values()), n_bins)
    medians = {}
    for i, (name, values) in enumerate(finite.items()):
        clipped = np.clip(values, edges[0], edges[-1])
        counts, _ = np.histogram(clipped, edges)
        heights = counts / counts.max()  # sets of unlike spread stay readable side by side
        ax.stairs(heights, edges, color=_color(i), linewidth=1.6)
        if i == 0:
            ax.stairs(heights, edges, color=_color(i), fill=True, alpha=0.25)
        medians[name] = float(np.median(clipped))
    ax.set_xlim(edges[0], edges[-1])
    _label_above(ax, medians)
    ax.set_xlabel(xlabel)
    ax.set_yticks([])
    if ax.get_xscale() == "linear":
        ax.locator_params(axis="x", nbins=5)
    _tidy(ax, hidden=("left", "right", "top"))
    return ax


def plot_roc(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw ROC curves, the OoD set being positive, and list their areas where curves rarely pass.

    Parameters
    ----------
    curves : mapping of scorer name to (scores_in, scores_out)
        Higher scores are more normal. NaN (not scored) is left out.
    title : str, default=None
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Examples
    --------
    >>> from flowdetect.evaluation import plot_roc
    >>> ax = plot_roc({"density": ([2.0, 3.0], [1.0, 2.5])})
    """
    ax = _axes(ax, (4, 4))
    ax.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1)
    lines, areas = [], []
    for i, (name, (scores_in, scores_out)) in enumerate(curves.items()):
        kept_in, kept_out = _scored(scores_in), _scored(scores_out)
        if not len(kept_in) or not len(kept_out):
            lines.append((f"{name}  not scored", _color(i)))
            continue
        fpr, tpr = roc_points(kept_in, kept_out)
        ax.plot(fpr, tpr, color=_color(i), linestyle=LINES[i % len(LINES)], linewidth=1.8, clip_on=False)
        areas.append(auroc(kept_in, kept_out))
        lines.append((f"{name}  {areas[-1]:.3f}", _color(i)))
    corner = (0.98, 0.02) if min(areas, default=1) >= 0.5 else (0.9, 0.35)  # curves below the diagonal pass the corner
    for place, (text, color) in enumerate([("AUROC", GREY), *lines][::-1]):
        ax.annotate(
            text,
            corner,
            xytext=(0, (LABEL_SIZE + 3) * place),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=color,
            fontsize=LABEL_SIZE,
        )
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_title(title or "", loc="left", fontsize=LABEL_SIZE + 2)
    ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    ax.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    ax.set_xlabel("false alarms (normal images flagged)")
    ax.set_ylabel("OoD images found")
    _tidy(ax, hidden=("right", "top"))
    return ax


def plot_image_grid(
    images: ArrayLike,
    titles: Sequence[str] | None = None,
    *,
    n_columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Lay images out in rows and columns.

    Parameters
    ----------
    images : (n, H, W), (n, H, W, 1) or (n, H, W, 3) array
    titles : sequence of n str, default=None
        Stand above the images.
    n_columns : int, default=None
        None: at most 10.
    row_labels : sequence of str, default=None
        One for each row of images, at its left.
    value_range : (low, high), default=None
        The values shown black and white; others are clipped. None: (0, 255) for uint8, (0, 1) for bool, else the
        smallest and the largest value of all images.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If images, titles, labels or columns do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect.evaluation import plot_image_grid
    >>> ax = plot_image_grid(np.eye(4)[None], titles=["a line"])
    """
    shown = _as_grey_or_rgb(images)
    n_images, height, width, _ = shown.shape
    if n_columns is not None and n_columns < 1:
        raise ValueError(f"n_columns must be None or a whole number >= 1, got {n_columns!r}.")
    n_columns = min(n_images, n_columns or 10)
    n_rows = -(-n_images // n_columns)
    _check_length("titles", titles, n_images, "images")
    _check_length("row_labels", row_labels, n_rows, "rows of images")
    low, high = value_range or _default_range(np.asarray(images))
    shown = np.clip((shown - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    headroom = 0 if titles is None else 0.24 * height
    step_x, step_y = width * 1.06, height * 1.06 + headroom  # in pixels of the images
    right, bottom = n_columns * step_x - 0.06 * width, n_rows * step_y - headroom - 0.06 * height
    if ax is None:
        label_inches = 0.1 * max(map(len, row_labels or ("",)))
        scale = min(1.4 / width, (8.8 - label_inches) / right)  # inches a pixel
        ax = _axes(None, (scale * right + label_inches + 0.2, scale * (bottom + headroom) + 0.1))
    for i, image in enumerate(shown):
        left, top = (i % n_columns) * step_x, (i // n_columns) * step_y
        extent = (left, left + width, top + height, top)
        ax.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1, extent=extent)
        if titles is not None:
            ax.text(left + width / 2, top - 0.05 * height, titles[i], ha="center", va="bottom", fontsize=LABEL_SIZE)
    for i, label in enumerate(row_labels or ()):
        ax.text(-0.12 * width, i * step_y + height / 2, label, ha="right", va="center", fontsize=LABEL_SIZE)
    ax.set(xlim=(0, right), ylim=(bottom, -headroom))
    ax.set_axis_off()
    return ax


def plot_pixel_likelihood(
    images: ArrayLike, log_px: ArrayLike, *, value_range: tuple[float, float] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw images, and below each how many bits each of its pixels costs: bright is unlikely.

    Parameters
    ----------
    images : (n, H, W) or (n, H, W, C) array
    log_px : array of the same shape, nats
        From `likelihood_terms` of a `PixelCNNDensity`; channels are summed.
    value_range : (low, high), default=None
        As in `plot_image_grid`.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes
    """
    bits = -np.asarray(log_px, dtype=float) / np.log(2)
    if bits.shape != np.shape(images):
        raise ValueError(f"log_px must have the shape of images, {np.shape(images)}, got {bits.shape}.")
    bits = bits.reshape(*bits.shape[:3], -1).sum(-1)
    n, height, width = bits.shape
    ax = plot_image_grid(images, n_columns=n, value_range=value_range, ax=ax)
    highest, top = max(float(np.quantile(bits, KEPT_QUANTILES[1])), 1e-9), 1.06 * height
    for i, costs in enumerate(bits):
        extent = (1.06 * i * width, (1.06 * i + 1) * width, top + height, top)
        drawn = ax.imshow(costs, cmap="magma", vmin=0, vmax=highest, extent=extent)
    ax.set_ylim(top + height, 0)
    ax.figure.colorbar(drawn, ax=ax, label="bits", shrink=0.8, pad=0.02)
    return ax


def plot_sit_shifts(
    shifts: Mapping[str, Mapping[str, ArrayLike]],
    *,
    xlabel: str = "shift, bits/dim (right: less likely); dot: mean, line: middle 90 % of images",
    xscale: str = "linear",
    ax: Axes | None = None,
) -> Axes:
    """Draw how far each semantic-invariant transformation moves the score of each image.

    A dot is the mean over images, with its value; the line spans the middle 90 % of the images.

    Parameters
    ----------
    shifts : mapping of scorer name to mapping of SIT name to (n,) array
        For each image the score after less the score before, e.g. in bits per dimension. NaN is left out.
    xlabel : str
    xscale : {"linear", "symlog"}, default="linear"
        "symlog" where shifts differ by orders of magnitude; linear between -1 and 1.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Examples
    --------
    >>> from flowdetect.evaluation import plot_sit_shifts
    >>> ax = plot_sit_shifts({"Glow": {"1 pixel left": [0.4, 0.6], "first latent zeroed": [-0.5, -0.2]}})
    """
    sits = list(dict.fromkeys(sit for by_sit in shifts.values() for sit in by_sit))
    ax = _axes(ax, (6.5, 0.9 + len(sits) * (0.28 + 0.24 * len(shifts))))
    ax.set_xscale(xscale, **({"linthresh": 1.0} if xscale == "symlog" else {}))
    ax.axvline(0, color="#BBBBBB", linewidth=1, zorder=0)
    offsets = (np.arange(len(shifts)) - (len(shifts) - 1) / 2) * 0.26
    for i, (scorer, by_sit) in enumerate(shifts.items()):
        label = f"  {scorer}" if len(shifts) > 1 else ""  # said once, at the scorer's first dot
        for j, sit in enumerate(sits):
            values = _finite(by_sit.get(sit, ()))
            if len(values):
                _draw_shift(ax, values, j + offsets[i], _color(i), label)
                label = ""
    ax.set_yticks(range(len(sits)), sits)
    ax.set_ylim(len(sits) - 0.5, -0.6)
    ax.margins(x=0.16)
    ax.set_xlabel(xlabel)
    ax.tick_params(axis="y", length=0)
    _tidy(ax, hidden=("left", "right", "top"))
    return ax


def _draw_shift(ax: Axes, values: NDArray[np.float64], y: float, color: str, label: str) -> None:
    low, high = np.quantile(values, [0.05, 0.95])
    mean = float(values.mean())
    ax.plot([low, high], [y, y], color=color, linewidth=2.5, alpha=0.4, solid_capstyle="round")
    ax.plot(mean, y, "o", color=color, markersize=6)
    to_the_right = mean >= 0  # away from the line at 0
    ax.annotate(
        f"{mean:+.2f}{label}".replace("-", "\N{MINUS SIGN}", 1 if mean < 0 else 0),
        (max(high, mean) if to_the_right else min(low, mean), y),
        xytext=(7 if to_the_right else -7, 0),
        textcoords="offset points",
        va="center",
        ha="left" if to_the_right else "right",
        color=color,
        fontsize=LABEL_SIZE,
    )


def _axes(ax: Axes | None, inches: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=inches, layout="constrained").add_subplot()


def _tidy(ax: Axes, hidden: Sequence[str]) -> None:
    ax.spines[list(hidden)].set_visible(False)
    ax.tick_params(colors=GREY, labelsize=LABEL_SIZE)
    ax.xaxis.label.set(color=GREY, size=LABEL_SIZE + 1)
    ax.yaxis.label.set(color=GREY, size=LABEL_SIZE + 1)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _scored(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[~np.isnan(array)]


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def _common_edges(sets: list[NDArray[np.float64]], n_bins: int) -> NDArray[np.float64]:
    quantiles = np.array([np.quantile(values, KEPT_QUANTILES) for values in sets])
    low, high = quantiles[:, 0].min(), quantiles[:, 1].max()
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, n_bins + 1)


def _label_above(ax: Axes, medians: dict[str, float]) -> None:
    """Put each name above its set's median, each on a line of its own, so that names never overlap."""
    order = sorted(medians, key=lambda name: medians[name])
    centre = np.mean(ax.get_xlim())
    for level, name in enumerate(reversed(order)):
        x, y = medians[name], 1.08 + 0.14 * level
        color = _color(list(medians).index(name))
        side = "left" if x < centre else "right"  # the text runs towards the middle
        ax.plot([x, x], [0, y + 0.04], color=color, linewidth=0.8, alpha=0.6, zorder=0)
        ax.annotate(
            name,
            (x, y),
            xytext=(3 if side == "left" else -3, 0),
            textcoords="offset points",
            color=color,
            fontsize=LABEL_SIZE,
            va="center",
            ha=side,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # hides the other names' lines
        )
    ax.set_ylim(0, 1.08 + 0.14 * len(order))


def _as_grey_or_rgb(images: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(images, dtype=np.float64)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or len(array) == 0:
        raise ValueError(f"images must be (n, H, W), (n, H, W, 1) or (n, H, W, 3), got shape {np.shape(images)}.")
    return array


def _default_range(images: NDArray[Any]) -> tuple[float, float]:
    if images.dtype == np.uint8:
        return 0.0, 255.0
    if images.dtype == bool:
        return 0.0, 1.0
    return float(images.min()), float(images.max())


def _check_length(name: str, given: Sequence[str] | None, n: int, what: str) -> None:
    if given is not None and len(given) != n:
        raise ValueError(f"{name} must be as many as {what}, {n}, got {len(given)}.")
