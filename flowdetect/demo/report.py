"""The demonstration's page: one HTML file with all its pictures inside, readable without a network."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path

from flowdetect._files import write_atomically
from flowdetect.demo import pictures, wording
from flowdetect.demo.measure import Measurements, settings_in_words
from flowdetect.demo.sets import OUTSIDE
from flowdetect.evaluation.page import as_html, html_table, page

PAGE = "report.html"


def check_folder(folder: Path) -> None:
    """Make the report's folder and try to write there: what is wrong with it is said before anything is trained.

    Raises
    ------
    OSError
        If no report can be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"the report needs a folder, but {str(folder)!r} is a file; name another with --out.")
    if (folder / PAGE).is_dir():
        raise IsADirectoryError(f"{str(folder / PAGE)!r}, where the report is to stand, is a folder; remove it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"no report can be written to {str(folder)!r}: {reason}; name another with --out.") from error


def write_report(found: Measurements, folder: Path, command: str) -> Path:
    """Write the page.

    Parameters
    ----------
    found : Measurements
    folder : where to write; made if it is not there
    command : how the demonstration was called

    Returns
    -------
    path : of the page, report.html in the folder
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    body = "\n".join(
        [_story(found), _scores(found), _images(found), _transformations(found), _training(found, command)]
    )
    write_atomically(path, page(f"flowdetect demo: {found.sets.name}", body).encode())
    return path


def _story(found: Measurements) -> str:
    aurocs = found.aurocs()
    sentences = [wording.verdict(name, *pair) for name, pair in aurocs.items()]
    hint = wording.advice(found.sets.name, aurocs)
    return (
        f"<h1>What does a likelihood say of images it has never seen?</h1>"
        f'<p class="lead">{escape(wording.headline(aurocs))}</p>'
        f"<p>A Glow flow learned log p(x) from {len(found.sets.train)} images of {escape(found.sets.name)}. Two scores "
        f"then ranked its {len(found.sets.test)} test images against images from outside: the likelihood itself, and "
        f"the likelihood corrected for complexity, log<sub>2</sub> p(x) + L(x), where L(x) is the length in bits that "
        f"a lossless codec needs for the image. AUROC is the chance that an outside image scores lower than a test "
        f"image: 1 is perfect, 0.5 is guessing, and below 0.5 the score prefers the wrong images.</p>"
        + _list(sentences)
        + (f"<p>{escape(hint)}</p>" if hint else "")
    )


def _scores(found: Measurements) -> str:
    flagged = found.flagged()
    rows = [
        [str(name), *(f"{share:.1%}" for share in row)] for name, row in zip(flagged.index, flagged.values, strict=True)
    ]
    return (
        "<h2>The scores</h2><p>Histograms, each scaled to its own peak; scores far below are gathered at the left "
        "edge. Right is more normal.</p>"
        + as_html(pictures.histograms(found), "histograms of the likelihood and of the corrected score")
        + as_html(pictures.roc_curves(found), "ROC curves of both scores for each outside set")
        + f'<div class="scroll words">{found.report._repr_html_()}</div>'
        + "<p>With thresholds set on held-out images so that one in ten of these is flagged, the share flagged is</p>"
        + html_table(["set", *map(str, flagged.columns)], rows)
    )


def _images(found: Measurements) -> str:
    named = [f"{name}: {OUTSIDE[name]}" for name in found.sets.outside if name in OUTSIDE]
    return (
        "<h2>The images</h2><p>Test images, the outside sets, and images that the flow drew from noise.</p>"
        + as_html(pictures.image_rows(found), "rows of real images, outside images and samples")
        + _list(named)
    )


def _transformations(found: Measurements) -> str:
    table = found.shift_table()
    rows = [
        [str(row.Index), f"{row.before:.2f}", f"{row.after:.2f}", f"{row.change:+.2f}"] for row in table.itertuples()
    ]
    return (
        "<h2>Same meaning, other likelihood?</h2><p>Each of these changes leaves to the eye what the image shows. A "
        "score that follows meaning would stay; more bits/dim are less likely. The number above each image is its "
        "bits/dim.</p>"
        + _list([wording.shift_sentence(str(name), change) for name, change in table.change.items()])
        + as_html(pictures.shift_images(found), "images before and after each transformation, with bits/dim")
        + as_html(pictures.shifts(found), "change of bits/dim by each transformation")
        + html_table(["transformation", "bits/dim before", "after", "change"], rows)
    )


def _training(found: Measurements, command: str) -> str:
    words = {"command": command, **settings_in_words(found)}
    rows = [[key, value] for key, value in words.items()]
    return (
        "<h2>The training</h2>"
        + as_html(pictures.training_curve(found), "bits/dim by epoch")
        + f'<div class="words">{html_table(["setting", "value"], rows)}</div>'
    )


def _list(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
