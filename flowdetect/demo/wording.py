"""The demonstration's sentences: each follows from a measured number and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping

WRONG, CHANCE, RIGHT = 0.3, 0.5, 0.9  # AUROC
SMALL_CHANGE = 0.05  # of an AUROC, or of bits/dim
DIGITS_CAUTION = (
    "These digits have 8x8 pixels and are soon learned. A flow that trains longer prefers the wrong images less; try "
    "--epochs 60."
)
FASHION_COMMAND = "python -m flowdetect demo --dataset fashion_mnist --ood mnist"

AUROCs = Mapping[str, tuple[float, float]]  # outside set -> by likelihood, by corrected score


def title(aurocs: AUROCs) -> str:
    """Return the page's title: what a reader should take away from this run."""
    if any(likelihood < WRONG for likelihood, _ in aurocs.values()):
        return "A likelihood can call unknown images more normal than known ones"
    return "How well does a likelihood find images it has never seen?"


def example(aurocs: AUROCs) -> str:
    """Choose the set that shows the story best: one that the likelihood gets wrong, and the corrected score right."""
    repaired = {name: pair for name, pair in aurocs.items() if pair[0] < WRONG and pair[1] > RIGHT}
    return min(repaired or aurocs, key=lambda name: aurocs[name][0])


def likelihood_title(likelihood: float) -> str:
    """Return whether the likelihood fails."""
    return "Where the likelihood fails" if likelihood < CHANCE else "The likelihood"


def panel(is_corrected: bool, name: str, area: float) -> str:
    """Describe what a picture of one score and one outside set shows."""
    score = "corrected score" if is_corrected else "likelihood"
    if area < CHANCE:
        return f"The {score} ranks the {name} images above those it learned."
    share = "most" if area > RIGHT else "some"
    added = " once the bits of a lossless codec are added" if is_corrected else ""
    return f"The {score} ranks {share} of the {name} images below those it learned{added}."


def headline(aurocs: AUROCs) -> str:
    """Describe in a sentence what the run shows about likelihood and corrected score."""
    repaired = [name for name, (likelihood, corrected) in aurocs.items() if likelihood < WRONG and corrected > RIGHT]
    wrong = [name for name, (likelihood, _) in aurocs.items() if likelihood < WRONG]
    preferred = [name for name, (likelihood, _) in aurocs.items() if likelihood < CHANCE]
    if repaired:
        return f"The likelihood gets {_join(repaired)} wrong, and the corrected score gets {_them(repaired)} right."
    if wrong:
        return f"The likelihood gets {_join(wrong)} wrong, and the corrected score does not set {_them(wrong)} right."
    if preferred:
        return f"The likelihood slightly prefers {_join(preferred)} to the images it learned."
    return "The likelihood prefers none of the outside sets to the images it learned."


def advice(dataset: str, aurocs: AUROCs) -> str | None:
    """Return the way to a run that shows the failure of likelihood, where this one does not, or where it fades."""
    shown = any(likelihood < WRONG and corrected > RIGHT for likelihood, corrected in aurocs.values())
    if shown:
        return DIGITS_CAUTION if dataset == "digits" else None
    if dataset == "fashion_mnist":
        return None
    return (
        "In this run there is no set that the likelihood gets wrong and the corrected score gets right. The well-known "
        f"case is clothes against digits: {FASHION_COMMAND}"
    )


def verdict(name: str, likelihood: float, corrected: float) -> str:
    """Describe how each score does on one outside set, by its AUROC."""
    if likelihood < WRONG:
        first = f"the likelihood gets it wrong and ranks these images above normal ones (AUROC {likelihood:.3f})"
    elif likelihood < CHANCE:
        first = f"the likelihood prefers the wrong images (AUROC {likelihood:.3f})"
    elif likelihood <= RIGHT:
        first = f"the likelihood finds some of them (AUROC {likelihood:.3f})"
    else:
        first = f"the likelihood finds them (AUROC {likelihood:.3f})"
    if corrected > RIGHT:
        second = f"the corrected score gets it right (AUROC {corrected:.3f})"
    elif corrected < CHANCE:
        second = f"the corrected score prefers the wrong images (AUROC {corrected:.3f})"
    else:
        second = f"the corrected score finds some of them (AUROC {corrected:.3f})"
    cost = ", so here the correction costs" if corrected < likelihood - SMALL_CHANGE else ""
    return f"{name}: {first}; {second}{cost}."


def shift_sentence(name: str, change: float) -> str:
    """Describe what a change that keeps the meaning does to bits/dim: more bits are less likely."""
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
