"""Draw the picture of docs/contributing/architecture.rst from the contract in pyproject.toml.

A test compares the file with what this gives, so that the picture has every file of the density room that the
contract "the floors of the density room" names.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

DOCS = Path(__file__).parent.parent
PICTURE = DOCS / "_static" / "architecture.svg"
SANS = 'font-family="DejaVu Sans, Helvetica, Arial, sans-serif"'
MONO = 'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12.5" font-weight="bold"'
WIDTH, LEFT, RIGHT, GAP = 920, 150, 896, 10
MOST_BOXES = 7  # in a line
ORANGE, BLUE, DEEP_BLUE, GREEN, GREY = (
    ("#fdeede", "#d98a3d"),
    ("#e6f0fb", "#4a86c5"),
    ("#d3e5f8", "#2f6eb0"),
    ("#e8f4ea", "#4f9d62"),
    ("#f2f2f4", "#9aa2ab"),
)
DEEP = {"base", "_fitted", "spec", "_sources", "model"}
CAPTIONS = {
    "evaluation": "reports and pictures, from arrays and scorers",
    "detectors": "a density as an object, turned into a verdict",
    "sit": "transformations that keep the meaning",
    "ensemble": "members that differ in their seeds",
    "latent_space": "interpolation and directions between latents",
    "base": "fit: what the data are, what the model is, how it is trained",
    "_fitted": "score_samples, sample, derivatives, pickles and files",
    "_derivatives": "of log p",
    "_training": "the loop: train",
    "_scoring": "chunks, keyed noise, draws, sums over classes",
    "_reading": "rows and labels",
    "dequantization": "noise of bins",
    "preprocessing": "a first layer",
    "_checkpoint": "one training in one file",
    "spec": "DataSpec: what fit learned about the data; rows to tensors and back",
    "_inputs": "checks of X and y",
    "_sources": "RowSource: rows by index",
    "_opening": "from X to a source",
    "_datasets": "of torch and others",
    "_launched": "torchrun, srun",
    "_leaps": "of the loss",
    "_averages": "of weights",
    "_ranks": "we start them",
    "_order": "of rows",
    "settings": "how a model is trained, and the result",
    "_processes": "of a training",
    "sequential": "a model of one value after the other",
    "bijections": "data to noise and back",
    "nets": "the networks inside",
    "distributions": "what models end in",
    "_images": "layouts, bins, keyed noise",
    "_persistence": "files",
    "_homes": "public names",
    "_protocols": "types",
}
# what stands at the left of the line with this box
LABELS = {
    "evaluation": "evaluation",
    "detectors": "detectors",
    "ensemble": "several",
    "flowpp": "papers",
    "autoregressive_flow": "families",
    "base": "the estimator",
    "_derivatives": "its work",
    "spec": "the data",
    "_averages": "the training",
    "sequential": "the model",
    "bijections": "torch",
    "_images": "arrays",
}


def floors() -> list[list[str]]:
    """Read the files of the density room from top to bottom, those of one floor in one list."""
    tool = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]
    contracts = tool["importlinter"]["contracts"]
    (found,) = (contract for contract in contracts if contract["name"] == "the floors of the density room")
    return [[name.strip() for name in line.split("|")] for line in found["layers"]]


def lines(floor: list[str]) -> list[list[str]]:
    """Cut a floor into lines of boxes, about as many in each."""
    n = -(-len(floor) // MOST_BOXES)
    each = -(-len(floor) // n)
    return [floor[start : start + each] for start in range(0, len(floor), each)]


def text(x: float, y: float, content: str, style: str, anchor: str = "middle") -> str:
    """Write one line of text."""
    return f'<text x="{x:g}" y="{y:g}" {style} text-anchor="{anchor}">{content}</text>'


def boxes(names: list[str], y: int, height: int, colour: tuple[str, str] | None = None) -> list[str]:
    """Draw a line of boxes, with captions below the names where lines are tall, else beside them."""
    plain = f'{SANS} font-size="11.5" fill="#56636f"'
    drawn = []
    if names[0] in LABELS:
        bold = f'{SANS} font-size="13" font-weight="bold" fill="#1c2733"'
        drawn.append(text(24, y + height / 2 + 4, LABELS[names[0]], bold, "start"))
    width = (RIGHT - LEFT - GAP * (len(names) - 1)) / len(names)
    for i, name in enumerate(names):
        x, middle = LEFT + i * (width + GAP), LEFT + i * (width + GAP) + width / 2
        fill, line = colour or (DEEP_BLUE if name in DEEP else BLUE)
        caption = CAPTIONS.get(name)
        drawn.append(
            f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{height}" rx="6" fill="{fill}" stroke="{line}" '
            f'stroke-width="1.3"/>'
        )
        if height > 40:
            drawn.append(text(middle, y + 22.5, name, f'{MONO} fill="#1c2733"'))
            drawn.append(text(middle, y + 39.5, caption or "", plain))
            continue
        content = f"<tspan {MONO}>{name}</tspan>"
        content += f'<tspan dx="12" {plain}>{caption}</tspan>' if caption else ""
        drawn.append(text(middle, y + 22.5, content, 'fill="#1c2733"'))
    return drawn


def draw() -> str:
    """Draw the picture: an SVG file's text."""
    note = "The rooms above import neither torch nor a density, but for detectors/recommended.py; "
    note += "they call methods such as score_samples."
    drawn = boxes(["evaluation"], 22, 52, ORANGE) + boxes(["detectors", "sit"], 86, 52, ORANGE)
    drawn.append(text((LEFT + RIGHT) / 2, 156, note, f'{SANS} font-size="11.5" fill="#56636f"'))
    y = top = 182
    for floor in floors():
        for line in lines(floor):
            drawn += boxes(line, y, 36)
            y += 40  # lines of one floor stand closer
        y += 6
    drawn.append(
        f'<rect x="{LEFT - 8}" y="{top - 10}" width="{RIGHT - LEFT + 16}" height="{y - top + 8}" rx="9" fill="none" '
        f'stroke="{BLUE[1]}" stroke-width="1.3" stroke-dasharray="5 4"/>'
    )
    y += 18
    drawn += boxes(["bijections", "nets", "distributions"], y, 52, GREEN)
    drawn += boxes(["_images", "_persistence", "_homes", "_protocols"], y + 64, 52, GREY)
    height = y + 64 + 52 + 22
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="The floors of flowdetect">'
    )
    sheet = f'<rect x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="12" fill="#ffffff" stroke="#c9d1d9"/>'
    return "\n".join([start, sheet, *drawn, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw())
