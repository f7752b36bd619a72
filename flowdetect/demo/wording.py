"""The demonstration's sentences: each follows from a measured number and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping

WRONG, CHANCE, RIGHT = 0.3, 0.5, 0.9  # AUROC
SMALL_CHANGE = 0.05  # of an AUROC, or of bits/dim
DIGITS_CAUTION = (
    "Digits this small are soon learned: a flow trained longer prefers the wrong images less; compare with --epochs 60."
)
FASHION_COMMAND = "python -m flowdetect demo --dataset fashion_mnist --ood mnist"

AUROCs = Mapping[str, tuple[float, float]]  # outside set -> by likelihood, by corrected score


def headline(aurocs: AUROCs) -> str:
    """Say in a sentence what the run shows about likelihood and corrected score."""
    repaired = [name for name, (likelihood, corrected) in aurocs.items() if likelihood < WRONG and corrected > RIGHT]
    wrong = [name for name, (likelihood, _) in aurocs.items() if likelihood < WRONG]
    preferred = [name for name, (likelihood, _) in aurocs.items() if likelihood < CHANCE]
    if repaired:
        return f"The likelihood gets {_join(repaired)} wrong, and the corrected score gets {_them(repaired)} right."
    if wrong:
        return f"The likelihood gets {_join(wrong)} wrong, and the corrected score does not set {_them(wrong)} right."
    if preferred:
        return f"The likelihood prefers {_join(preferred)} to the images of its own kind, though not by far."
    return "The likelihood prefers none of the outside sets to the images of its own kind."


def advice(dataset: str, aurocs: AUROCs) -> str | None:
    """Give the way to a run that shows the failure of likelihood, where this one does not, or where it fades."""
    shown = any(likelihood < WRONG and corrected > RIGHT for likelihood, corrected in aurocs.values())
    if shown:
        return DIGITS_CAUTION if dataset == "digits" else None
    if dataset == "fashion_mnist":
        return None
    return (
        "No set of this run is one that the likelihood gets wrong and the corrected score right. For the well-known "
        f"case, clothes against digits, run {FASHION_COMMAND}"
    )


def verdict(name: str, likelihood: float, corrected: float) -> str:
    """Say how each score does on one outside set, by its AUROC."""
    by_likelihood = f"AUROC {likelihood:.3f}"
    if likelihood < WRONG:
        first = f"the likelihood gets it wrong and ranks these images above those of its own kind ({by_likelihood})"
    elif likelihood < CHANCE:
        first = f"the likelihood prefers the wrong images ({by_likelihood})"
    elif likelihood <= RIGHT:
        first = f"the likelihood tells some of them apart ({by_likelihood})"
    else:
        first = f"the likelihood tells them apart ({by_likelihood})"
    by_corrected = f"AUROC {corrected:.3f}"
    if corrected > RIGHT:
        second = f"the corrected score gets it right ({by_corrected})"
    elif corrected < CHANCE:
        second = f"the corrected score prefers the wrong images ({by_corrected})"
    else:
        second = f"the corrected score tells some of them apart ({by_corrected})"
    cost = ": here the correction costs" if corrected < likelihood - SMALL_CHANGE else ""
    return f"{name}: {first}; {second}{cost}."


def shift_sentence(name: str, change: float) -> str:
    """Say what a change that keeps the meaning does to bits/dim: more bits are less likely."""
    if abs(change) < SMALL_CHANGE:
        return f"{name}: the likelihood hardly moves ({change:+.2f} bits/dim)."
    direction = "less" if change > 0 else "more"
    return f"{name}: the image counts as {direction} likely ({change:+.2f} bits/dim)."


def text_table(head: list[str], rows: list[list[str]]) -> str:
    """Align cells: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *_right(line[1:], widths[1:])]) for line in lines)


def _right(cells: list[str], widths: list[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _join(names: list[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
