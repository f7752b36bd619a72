r"""Coverage of intervals of an AUROC: how often a 95 % interval holds the true area.

    python examples/studies/auroc_intervals.py [--quick] [--report] [--results DIR]

Two sets of scores are drawn from known distributions, so that the true area is known, and each method gives its
interval. Coverage is the share of draws whose interval holds the true area; 2,000 draws a cell leave it uncertain by
one percentage point (0.975 +- 0.007, 0.95 +- 0.010).

Methods: ``auroc_interval`` (ours), DeLong's variance on the logit scale, Newcombe's method 5 (2006), and three
bootstraps of 1,000 resamples: percentile, BCa, and normal on the logit scale.

The constants of ``auroc_interval`` were chosen on the families of `CHOSEN_ON` at areas of 0.9, 0.98 and 0.998. The
families of `HELD_OUT`, and the areas 0.95 and 0.995, took no part in the choice. The two sets are drawn independently;
the last part draws images and their transformed versions instead, as `sit_report` compares them.

Written to DIR: auroc_intervals.json, .txt and .png. --report draws what is stored; --quick takes 50 draws a cell.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from flowdetect.evaluation import auroc_interval
from flowdetect.evaluation._style import GREY, LABEL_SIZE, color_of, tidy
from flowdetect.evaluation.resampling import draw_counts

SEED = 0
Z = float(stats.norm.ppf(0.975))
AREAS, NEW_AREAS = (0.9, 0.98, 0.998), (0.95, 0.995)
SIZES = ((50, 50), (200, 200), (2000, 2000), (50, 1000), (1000, 50))
N_BOOTSTRAP, BOOTSTRAP_SIZES, BOOTSTRAP_FAMILIES = 1000, ((50, 50), (200, 200)), ("normal", "exponential, shifted")
MOVED = {  # name: (distribution of in-set scores, of OoD scores); the latter moves down until the area is reached
    "normal": (stats.norm(), stats.norm()),
    "normal, in-set 3 times as wide": (stats.norm(scale=3), stats.norm()),
    "exponential, shifted": (stats.expon(), stats.expon()),
    "t, 3 degrees": (stats.t(3), stats.t(3)),
    "lognormal": (stats.lognorm(1), stats.lognorm(1)),
    "logistic": (stats.logistic(), stats.logistic()),
    "uniform": (stats.uniform(), stats.uniform()),
    "Laplace": (stats.laplace(), stats.laplace()),
    "t, 2 degrees, OoD twice as wide": (stats.t(2), stats.t(2, scale=2)),
    "gamma against normal": (stats.gamma(2), stats.norm()),
}
CHOSEN_ON = ("normal", "normal, in-set 3 times as wide", "exponential, shifted", "exponential, scaled", "failures")
CHOSEN_ON += ("t, 3 degrees",)
HELD_OUT = tuple(name for name in MOVED if name not in CHOSEN_ON)
Draw = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


@cache
def family(name: str, area: float) -> Draw:
    """Give a function that draws in-set and OoD scores whose true AUROC is `area`."""
    if name == "exponential, scaled":
        scale = area / (1 - area)
        return lambda rng, n_in, n_out: (scale * rng.exponential(size=n_in), rng.exponential(size=n_out))
    if name == "failures":  # a share of the OoD rows cannot be told from normal ones, all others can
        share = 2 * (1 - area)
        return lambda rng, n_in, n_out: (
            rng.normal(size=n_in),
            rng.normal(size=n_out) - 99 * (rng.random(n_out) > share),
        )
    inside, outside = MOVED[name]
    at = inside.ppf((np.arange(50_000) + 0.5) / 50_000)
    moved = brentq(lambda by: float(outside.cdf(at + by).mean()) - area, -20, 2000, xtol=1e-7)
    return lambda rng, n_in, n_out: (
        inside.rvs(size=n_in, random_state=rng),
        outside.rvs(size=n_out, random_state=rng) - moved,
    )


def delong_logit(area: float, variance: float, n_in: int, n_out: int) -> tuple[float, float]:
    """Give Wald's interval on the logit scale, by DeLong's variance; of width 0 where the sets are wholly apart."""
    if not 0 < area < 1:
        return area, area
    half = Z * np.sqrt(variance) / (area * (1 - area))
    return tuple(1 / (1 + np.exp(-(np.log(area / (1 - area)) + sign * half))) for sign in (-1, 1))


def newcombe_5(area: float, variance: float, n_in: int, n_out: int) -> tuple[float, float]:
    """Invert Hanley and McNeil's variance; it knows the area and the sizes alone (Newcombe, 2006, part 2)."""
    pairs = (n_in + n_out) / 2 - 1

    def distance(theta: float) -> float:
        spread = 1 + pairs * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(area - theta) - Z * np.sqrt(max(theta * (1 - theta), 0) * spread / (n_in * n_out))

    inside = 1e-12  # at 0 and 1 the distance is 0, too, and no end of the interval
    low = brentq(distance, 0, area - inside) if area > 0 and distance(0.0) > 0 else 0.0
    high = brentq(distance, area + inside, 1) if area < 1 and distance(1.0) > 0 else 1.0
    return low, high


def variance_of(inside: np.ndarray, outside: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Give DeLong's variance of the AUROC, and the placements of both sets."""
    won = np.searchsorted(np.sort(outside), inside) / len(outside)
    kept = 1 - np.searchsorted(np.sort(inside), outside) / len(inside)
    return won.var(ddof=1) / len(won) + kept.var(ddof=1) / len(kept), won, kept


def resampled_areas(inside: np.ndarray, outside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give the AUROC of each resample of both sets; scores without ties."""
    counts_out, counts_in = (draw_counts(len(scores), N_BOOTSTRAP, rng) for scores in (outside, inside))
    order = np.argsort(outside)
    below = np.zeros((N_BOOTSTRAP, len(outside) + 1))
    np.cumsum(counts_out[:, order], axis=1, out=below[:, 1:])
    lower = np.searchsorted(outside[order], inside)  # OoD rows below each in-set row
    return np.einsum("bi,bi->b", counts_in, below[:, lower]) / (len(inside) * len(outside))


def bootstraps(inside: np.ndarray, outside: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Give three bootstrap intervals from the same resamples."""
    drawn = resampled_areas(inside, outside, rng)
    _, won, kept = variance_of(inside, outside)
    area = float(won.mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = {"bootstrap, percentile": (low, high), "bootstrap, BCa": (area, area), "bootstrap, logit": (area, area)}
    if drawn.std() == 0:
        return found
    influence = np.concatenate([(won - area) / len(won), (kept - area) / len(kept)])
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    bias = stats.norm.ppf(np.clip(((drawn < area).mean() + (drawn <= area).mean()) / 2, 1e-3, 1 - 1e-3))
    levels = [stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in (-Z, Z)]
    found["bootstrap, BCa"] = tuple(np.quantile(drawn, levels))
    pairs = len(inside) * len(outside)
    kept_off = np.clip(drawn, 0.5 / pairs, 1 - 0.5 / pairs)
    found["bootstrap, logit"] = delong_logit(
        area, (np.log(kept_off / (1 - kept_off)).std() * area * (1 - area)) ** 2, 0, 0
    )
    return found


def cell(name: str, area: float, sizes: tuple[int, int], n_draws: int) -> dict[str, Any]:
    """Simulate one family, area and pair of sizes: misses below and above, and mean width, of each method."""
    draw = family(name, area)
    rng = np.random.default_rng([SEED, *map(ord, name), round(1000 * area), *sizes])
    with_bootstraps = sizes in BOOTSTRAP_SIZES and name in BOOTSTRAP_FAMILIES and area in AREAS
    ends: dict[str, list[tuple[float, float]]] = {}
    n_apart = 0
    for _ in range(n_draws):
        inside, outside = draw(rng, *sizes)
        variance, won, _ = variance_of(inside, outside)
        observed = float(won.mean())  # scores without ties
        n_apart += observed == 1
        found = {"ours": auroc_interval(inside, outside)}
        found["DeLong, logit"] = delong_logit(observed, variance, *sizes)
        found["Newcombe 5"] = newcombe_5(observed, variance, *sizes)
        if with_bootstraps:
            found |= bootstraps(inside, outside, rng)
        for method, interval in found.items():
            ends.setdefault(method, []).append(interval)
    return {
        "family": name, "area": area, "sizes": sizes, "draws": n_draws, "wholly apart": n_apart / n_draws,
        "methods": {method: told(np.array(each), area) for method, each in ends.items()},
    }  # fmt: skip


def told(ends: np.ndarray, area: float) -> dict[str, float]:
    """Give coverage, the shares of intervals wholly above and wholly below the true area, and the mean width."""
    above, below = float((ends[:, 0] > area + 1e-12).mean()), float((ends[:, 1] < area - 1e-12).mean())
    width = float((ends[:, 1] - ends[:, 0]).mean())
    found = {"coverage": 1 - above - below, "above": above, "below": below, "width": width}
    return {name: round(value, 5) for name, value in found.items()}


PAIRED = {  # scores of images as they are, and of the same images transformed; each area is exact
    "little noise": (0.1, 0.0),
    "little noise, small shift": (0.1, 0.05),
    "little noise, large shift": (0.1, 2.93),
    "little noise, very large shift": (0.1, 4.08),
    "much noise": (1.0, 0.0),
    "much noise, large shift": (1.0, 3.56),
}


def paired_cell(name: str, n: int, n_draws: int) -> dict[str, Any]:
    """Simulate images and their transformed versions: with the pairing, and as if they were independent."""
    noise, shift = PAIRED[name]
    area = float(stats.norm.cdf(shift / np.sqrt(2 + noise**2)))
    rng = np.random.default_rng([SEED, *map(ord, name), n])
    ends: dict[str, list[tuple[float, float]]] = {"ours, paired": [], "ours, as if independent": []}
    for _ in range(n_draws):
        clean = rng.normal(size=n)
        moved = clean - shift + noise * rng.normal(size=n)
        ends["ours, paired"].append(auroc_interval(clean, moved, paired=True))
        ends["ours, as if independent"].append(auroc_interval(clean, moved))
    methods = {method: told(np.array(each), area) for method, each in ends.items()}
    return {"family": name, "area": area, "sizes": (n, n), "draws": n_draws, "methods": methods}


def table(cells: list[dict[str, Any]], method: str) -> list[str]:
    """Lay out the coverage of one method: a line for each family and area, a column for each pair of sizes."""
    sizes = list(dict.fromkeys(tuple(each["sizes"]) for each in cells))
    lines = [f"{method}: coverage, %", f"{'family':34}{'area':>7}" + "".join(f"{f'{m}+{n}':>11}" for m, n in sizes)]
    found = {(e["family"], e["area"], tuple(e["sizes"])): e["methods"].get(method) for e in cells}
    for name, area in dict.fromkeys((each["family"], each["area"]) for each in cells):
        row = [found.get((name, area, size)) for size in sizes]
        if any(row):
            shown = "".join(f"{100 * each['coverage']:11.1f}" if each else " " * 11 for each in row)
            lines.append(f"{name:34}{area:7.3f}{shown}".rstrip())
    return [*lines, ""]


def summary(cells: list[dict[str, Any]], title: str) -> list[str]:
    """Count, for each method, the cells between 93 and 97 % and those below 93 %."""
    lines = [title, f"{'method':26}{'cells':>7}{'lowest, %':>11}{'highest, %':>12}{'below 93':>10}{'93 to 97':>10}"]
    for method in dict.fromkeys(method for each in cells for method in each["methods"]):
        values = np.array([e["methods"][method]["coverage"] for e in cells if method in e["methods"]])
        kept = ((values >= 0.93) & (values <= 0.97)).sum()
        lines.append(
            f"{method:26}{len(values):7}{100 * values.min():11.1f}{100 * values.max():12.1f}"
            f"{(values < 0.93).sum():10}{kept:10}"
        )
    return [*lines, ""]


def report(found: dict[str, list[dict[str, Any]]]) -> str:
    """Write all tables."""
    cells = found["independent"]
    alike = [each for each in cells if each["sizes"][0] == each["sizes"][1]]
    unlike = [each for each in cells if each["sizes"][0] != each["sizes"][1]]
    lines = [f"Coverage of 95 % intervals of an AUROC; {cells[0]['draws']} draws a cell, seed {SEED}", ""]
    for title, chosen in (("sets of equal size", alike), ("50 against 1,000 rows", unlike)):
        took_part = [each for each in chosen if each["family"] in CHOSEN_ON and each["area"] in AREAS]
        lines += summary(took_part, f"{title}: families and areas on which the constants were chosen")
        lines += summary([e for e in chosen if e not in took_part], f"{title}: those that took no part in the choice")
    for method in dict.fromkeys(method for each in cells for method in each["methods"]):
        lines += table(cells, method)
    for method in ("ours, paired", "ours, as if independent"):
        first, *others = table(found["paired"], method)
        lines += [f"images and their transformed versions; {first}", *others]
    return "\n".join(lines).rstrip() + "\n"


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the coverage of four methods, a dot for each family, by area and number of rows."""
    from matplotlib.figure import Figure

    methods = ("ours", "DeLong, logit", "Newcombe 5", "bootstrap, percentile")
    places = [(area, size) for area in AREAS for size in SIZES[:3]]
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for ax, method in zip(axes, methods, strict=True):
        ax.axhspan(93, 97, color="#DDDDDD", zorder=0)
        for i, names in enumerate((CHOSEN_ON, HELD_OUT)):
            cells = [e for e in found["independent"] if method in e["methods"] and e["family"] in names]
            cells = [e for e in cells if (e["area"], tuple(e["sizes"])) in places]
            x = np.array([places.index((e["area"], tuple(e["sizes"]))) for e in cells]) + 0.3 * i - 0.15
            y = [100 * e["methods"][method]["coverage"] for e in cells]
            ax.plot(x, y, "o" if i == 0 else "D", color=color_of(i), markersize=4, alpha=0.75, linestyle="none",
                    label=("families the constants were chosen on", "other families")[i])  # fmt: skip
        for x in (2.5, 5.5):
            ax.axvline(x, color="#CCCCCC", linewidth=0.8)
        ax.set_title({"ours": "auroc_interval"}.get(method, method), loc="left", fontsize=LABEL_SIZE + 1)
        ax.set(ylim=(0, 101), yticks=[0, 25, 50, 75, 95], xlim=(-0.6, 8.6))
        ax.set_xticks(range(9), [f"{size[0]:,}" for _, size in places])
        tidy(ax, hidden=("right", "top"))
    label = "rows a set; in each panel the true AUROC is 0.9 (left), 0.98 (middle) and 0.998 (right)"
    figure.supxlabel(label, fontsize=LABEL_SIZE + 1, color=GREY)
    for ax in axes[::2]:
        ax.set_ylabel("coverage, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=LABEL_SIZE, labelcolor=GREY
    )
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 draws a cell instead of 2,000")
    parser.add_argument("--report", action="store_true", help="only lay out and draw what is stored")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "auroc_intervals.json"
    if not args.report:
        n_draws, started, cells = 50 if args.quick else 2000, time.perf_counter(), []
        for name in (*CHOSEN_ON, *HELD_OUT):
            cells += [cell(name, area, sizes, n_draws) for area in sorted(AREAS + NEW_AREAS) for sizes in SIZES]
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        pairs = [paired_cell(name, n, n_draws) for name in PAIRED for n in (20, 50, 200, 2000)]
        found = {"independent": cells, "paired": pairs}
        stored.write_text(json.dumps(found) + "\n")
    found = json.loads(stored.read_text())
    text = report(found)
    (folder / "auroc_intervals.txt").write_text(text)
    draw(found, folder / "auroc_intervals.png")
    print(text)


if __name__ == "__main__":
    main()
