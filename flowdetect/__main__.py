"""The command line: `python -m flowdetect demo` tells the package's story on real numbers, in about a minute."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowdetect.demo import Measurements

LARGEST_SEED = 2**32 - 1
INTERRUPTED = 130  # the exit code of a command that Ctrl-C ended

DATA_HELP = (
    "The digits come with scikit-learn. Other sets are read from the folder that the environment variable "
    "FLOWDETECT_DATA names (fashion_mnist.npz, mnist.npz, ...), else fetched from OpenML, once."
)


def parser() -> argparse.ArgumentParser:
    """Describe the command line; the help names the sets, so this loads the demonstration."""
    from flowdetect.demo import DATASETS, OUTSIDE

    top = argparse.ArgumentParser(prog="python -m flowdetect", description="Likelihood models and OoD detection.")
    top.add_argument("--version", action="version", version=f"flowdetect {version('flowdetect-ood')}")
    commands = top.add_subparsers(dest="command", required=True)
    made = "; ".join(f"{name}: {meaning}" for name, meaning in OUTSIDE.items())
    demo = commands.add_parser(
        "demo",
        help="fit a flow, ask it about images from outside, print tables and write a report",
        description=f"Fit a Glow flow, compare likelihood and corrected score, write one HTML page. {DATA_HELP}",
        epilog=f"Outside sets that can be made: {made}. With --ood, names of other image sets serve too.",
    )
    demo.add_argument("--dataset", default="digits", choices=DATASETS, help="images to train on (default: digits)")
    demo.add_argument(
        "--ood", default="", metavar="NAME,...", help="outside sets (default: those that suit the data set)"
    )
    demo.add_argument("--epochs", type=_count, help="passes over the training images")
    demo.add_argument("--steps", type=_count, help="steps of flow a level")
    demo.add_argument("--hidden", type=_count, help="width of the networks inside the couplings")
    demo.add_argument("--images", type=_count, help="train on at most so many images")
    demo.add_argument("--out", type=Path, default=Path("flowdetect_demo"), help="folder of the report (%(default)s)")
    demo.add_argument("--seed", type=_seed, default=0, help="(default: 0)")
    demo.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what is wrong with its words, data or folder is said before any training, with exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = parser().parse_args(arguments)
        demo(options, shlex.join(["python", "-m", "flowdetect", *arguments]))
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"flowdetect: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("flowdetect: interrupted; no report was written.", file=sys.stderr)
        return INTERRUPTED
    return 0


def demo(options: argparse.Namespace, command: str) -> None:
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
    print(f"Fitting a Glow flow to {len(sets.train)} images of {sets.name}: {chosen['epochs']} epochs.", flush=True)
    found = measure(sets, Settings(**chosen, seed=options.seed, device=options.device))
    print_story(found)
    print(f"\nThe report with pictures: {write_report(found, options.out, command)}")


def print_story(found: Measurements) -> None:
    """Print the measured tables, and the sentences that follow from them."""
    from flowdetect.demo import wording

    aurocs = found.aurocs()
    flagged = found.flagged()
    table = found.shift_table()
    print(f"\n{found.report}")
    print("\nFlagged as outliers, with thresholds that flag one in ten of other held-out images\n")
    shares = [
        [str(name), *(f"{share:.1%}" for share in row)] for name, row in zip(flagged.index, flagged.values, strict=True)
    ]
    print(wording.text_table(["set", *map(str, flagged.columns)], shares))
    print("\nChanges that leave the meaning, and mean bits/dim (more bits: less likely)\n")
    rows = [
        [str(row.Index), f"{row.before:.2f}", f"{row.after:.2f}", f"{row.change:+.2f}"] for row in table.itertuples()
    ]
    print(wording.text_table(["transformation", "before", "after", "change"], rows))
    print(f"\n{wording.headline(aurocs)}")
    for name, pair in aurocs.items():
        print(f"- {wording.verdict(name, *pair)}")
    hint = wording.advice(found.sets.name, aurocs)
    if hint:
        print(hint)
    print(f"Fitted in {found.fit_seconds:.0f} s, all in {found.seconds:.0f} s.")


def _count(text: str) -> int:
    return _whole(text, 1, None)


def _seed(text: str) -> int:
    return _whole(text, 0, LARGEST_SEED)


def _whole(text: str, least: int, most: int | None) -> int:
    rule = f"of at least {least}" if most is None else f"from {least} to {most}"
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise argparse.ArgumentTypeError(f"must be a whole number {rule}, got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
