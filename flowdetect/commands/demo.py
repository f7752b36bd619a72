"""flowdetect demo: likelihood and corrected score on real images, in about a minute."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdetect.commands.options import count, seed

if TYPE_CHECKING:
    from flowdetect.commands.console import Console
    from flowdetect.demo import Measurements

DATA_HELP = """\
The digits come with scikit-learn. Other sets are read from the folder that the
environment variable FLOWDETECT_DATA names (fashion_mnist.npz, mnist.npz, ...);
if a file is missing, the set is downloaded from OpenML once."""
WIDTH = 80  # columns
USAGE = "[options]"
DESCRIPTION = f"""\
Fit a Glow flow, compare its likelihood with a corrected score, and write one
HTML page.
{DATA_HELP}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the help names the sets, so this imports the demonstration."""
    from flowdetect.demo import DATASETS, OUTSIDE

    made = "".join(f"\n  {name:<10}{meaning}" for name, meaning in OUTSIDE.items())
    parser.epilog = f"""\
example:
  flowdetect demo --dataset digits --out flowdetect_demo

other sets, made from the images; names of image sets are allowed too:{made}
"""
    parser.add_argument("--dataset", default="digits", choices=DATASETS, help="images to train on (default: digits)")
    parser.add_argument(
        "--ood", default="", metavar="NAME,...", help="other sets to score (default: depends on the data set)"
    )
    parser.add_argument("--epochs", type=count, help="passes over the training images")
    parser.add_argument("--steps", type=count, help="steps of flow in each level")
    parser.add_argument("--hidden", type=count, help="width of the networks inside the couplings")
    parser.add_argument("--images", type=count, help="train on at most this many images")
    parser.add_argument(
        "--out", type=Path, default=Path("flowdetect_demo"), help="folder of the report (default: %(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of all random numbers (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Fit, measure, print, and write the report."""
    from flowdetect.demo import DATASETS, Settings, check_folder, load_sets, measure, write_report

    check_folder(options.out)
    names = [name.strip() for name in options.ood.split(",") if name.strip()]
    try:
        sets = load_sets(options.dataset, names, options.images, options.seed)
    except (ValueError, OSError) as error:
        raise ValueError(f"{error}\n{DATA_HELP}") from error
    usual = DATASETS[options.dataset]
    chosen = {name: getattr(options, name) or getattr(usual, name) for name in ("epochs", "steps", "hidden")}
    console.say(f"Fitting a Glow flow to {len(sets.train)} images of {sets.name}: {chosen['epochs']} epochs.")
    found = measure(sets, Settings(**chosen, seed=options.seed, device=options.device))
    for paragraph in _story(found):
        console.say(paragraph)
    page = write_report(found, options.out, shlex.join(["python", "-m", "flowdetect", *console.arguments]))
    console.say(f"\nThe report with pictures: {page}")
    aurocs = {name: dict(zip(("likelihood", "corrected"), pair, strict=True)) for name, pair in found.aurocs().items()}
    return {"report": page, "auroc": aurocs, "seconds": found.seconds}


def _story(found: Measurements) -> Iterator[str]:
    """Yield the measured tables, and the conclusions."""
    from flowdetect.demo import wording

    aurocs = found.aurocs()
    flagged = found.flagged()
    table = found.shift_table()
    yield (f"\n{found.report}")
    yield ("\nFlagged as outliers; each threshold flags one in ten held-out normal images\n")
    shares = [
        [str(name), *(f"{share:.1%}" for share in row)] for name, row in zip(flagged.index, flagged.values, strict=True)
    ]
    yield (wording.text_table(["set", *map(str, flagged.columns)], shares))
    yield ("\nChanges that keep the meaning, and mean bits/dim (more bits: less likely)\n")
    rows = [
        [str(row.Index), f"{row.before:.2f}", f"{row.after:.2f}", f"{row.change:+.2f}"] for row in table.itertuples()
    ]
    yield (wording.text_table(["transformation", "before", "after", "change"], rows))
    yield "\n" + textwrap.fill(wording.headline(aurocs), WIDTH)
    for name, pair in aurocs.items():
        yield textwrap.fill(f"- {wording.verdict(name, *pair)}", WIDTH, subsequent_indent="  ")
    hint = wording.advice(found.sets.name, aurocs)
    if hint:
        yield textwrap.fill(hint, WIDTH, break_long_words=False)
    yield (f"Fitted in {found.fit_seconds:.0f} s, all in {found.seconds:.0f} s.")
