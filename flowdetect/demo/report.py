"""The demonstration's page: one HTML file with all its pictures inside, readable without a network."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from flowdetect._files import write_atomically
from flowdetect.demo import pictures, wording
from flowdetect.demo.measure import CORRECTED, LIKELIHOOD, Measurements, settings_in_words
from flowdetect.demo.sets import OUTSIDE
from flowdetect.evaluation.page import as_html, figures, html_table, page, wide
from flowdetect.evaluation.report import COUNTED, area_cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    """Build the story of one screen: the problem, where the likelihood fails, the corrected score, the numbers."""
    aurocs = found.aurocs()
    name = wording.example(aurocs)
    sets = found.sets
    problem = (
        f"<p>A flow, a neural network that gives every image a likelihood, learned {len(sets.train):,} images of "
        f"{escape(sets.name)}. Images of another kind should be less likely. Are they?</p>"
        + _figure(pictures.strip(found, sets.name), f"images of {sets.name}", f"{sets.name}: what the flow learned")
        + _figure(pictures.strip(found, name), f"images of {name}", f"{name}: {OUTSIDE.get(name, 'another image set')}")
    )
    panels = [
        ("1. The question", problem),
        *(
            (f"{place}. {title}", _panel(found, name, score))
            for place, (title, score) in enumerate(
                ((wording.likelihood_title(aurocs[name][0]), LIKELIHOOD), ("The corrected score", CORRECTED)), 2
            )
        ),
        ("4. The verdict", _verdict(found)),
    ]
    body = "".join(f"<section><h3>{escape(title)}</h3>{content}</section>" for title, content in panels)
    return (
        f"<h1>{escape(wording.title(aurocs))}</h1>"
        f'<p class="lead">{escape(wording.headline(aurocs))}</p><div class="story">{body}</div>'
    )


def _panel(found: Measurements, name: str, score: str) -> str:
    """Show one score of the learned images and of one outside set."""
    result = found.result(score, name)
    words = wording.panel(score == CORRECTED, name, result["auroc"])
    picture = pictures.histogram(found, score, name)
    caption = f"AUROC {area_cell(result, 'auroc')}. {words}"
    return _figure(picture, f"histograms of the {score} of {found.sets.name} and {name}", caption)


def _verdict(found: Measurements) -> str:
    rows = [
        [name, *(area_cell(found.result(score, name), "auroc") for score in (LIKELIHOOD, CORRECTED))]
        for name in found.sets.outside
    ]
    return (
        "<p>AUROC is the chance that an outside image scores lower than a normal one: 1 is perfect, 0.5 is guessing, "
        "below 0.5 is the wrong way round.</p>"
        + html_table(["outside set", LIKELIHOOD, CORRECTED], rows)
        + f"<p><small>{COUNTED}</small></p>"
    )


def _scores(found: Measurements) -> str:
    flagged = found.flagged()
    rows = [
        [str(name), *(f"{share:.1%}" for share in row)] for name, row in zip(flagged.index, flagged.values, strict=True)
    ]
    aurocs = found.aurocs()
    hint = wording.advice(found.sets.name, aurocs)
    return (
        "<h2>What each score says of each set</h2>"
        + _list([wording.verdict(name, *pair) for name, pair in aurocs.items()])
        + (f"<p>{escape(hint)}</p>" if hint else "")
        + "<p>The corrected score is log<sub>2</sub> p(x) + L(x): the likelihood, and the bits L(x) that a lossless "
        "codec such as PNG needs for the image. Simple images have a high likelihood whatever they show; they also "
        "need few bits, and the sum removes that advantage.</p>"
        "<h2>All scores</h2><p>Right is more normal. Each histogram is scaled to its own peak; scores far below are "
        "counted at the left edge.</p>"
        + wide(pictures.histograms(found), "histograms of the likelihood and of the corrected score")
        + figures([as_html(found.report.plot_intervals(), "AUROC of both scores for each outside set")])
        + figures([as_html(each, "ROC curves of both scores") for each in pictures.roc_curves(found)])
        + found.report.html_table()
        + "<h2>Thresholds</h2><p>Each threshold flags one in ten held-out normal images. These shares are flagged:</p>"
        + html_table(["set", *map(str, flagged.columns)], rows)
    )


def _images(found: Measurements) -> str:
    named = [f"{name}: {OUTSIDE[name]}" for name in found.sets.outside if name in OUTSIDE]
    return (
        "<h2>The images</h2><p>Test images, the outside sets, and images that the flow drew from noise.</p>"
        + wide(pictures.image_rows(found), "rows of real images, outside images and samples")
        + _list(named)
    )


def _transformations(found: Measurements) -> str:
    table = found.shift_table()
    rows = [
        [str(row.Index), f"{row.before:.2f}", f"{row.after:.2f}", f"{row.change:+.2f}"] for row in table.itertuples()
    ]
    return (
        "<h2>Same meaning, other likelihood?</h2><p>None of these changes alters what the image shows. A score that "
        "follows meaning would stay the same. More bits/dim are less likely; the number above each image is its "
        "bits/dim.</p>"
        + _list([wording.shift_sentence(str(name), change) for name, change in table.change.items()])
        + wide(pictures.shift_images(found), "images before and after each transformation, with bits/dim")
        + wide(pictures.shifts(found), "change of bits/dim by each transformation")
        + html_table(["transformation", "bits/dim before", "after", "change"], rows)
    )


def _training(found: Measurements, command: str) -> str:
    words = {"command": command, **settings_in_words(found)}
    rows = [[key, value] for key, value in words.items()]
    return (
        "<h2>How this page was made</h2>"
        + figures([as_html(pictures.training_curve(found), "bits/dim by epoch")])
        + f'<div class="words wrapped">{html_table(["setting", "value"], rows)}</div>'
    )


def _figure(picture: Figure | Axes, alt: str, caption: str) -> str:
    return f"<figure>{as_html(picture, alt)}<figcaption>{escape(caption)}</figcaption></figure>"


def _list(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
