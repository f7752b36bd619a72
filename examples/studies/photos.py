"""A folder of 2,000 photos as people have them, new photos to judge, and the pictures of the page about both.

    FLOWDETECT_DATA=folder python examples/studies/photos.py make [--photos N] [--to DIR]
    flowdetect fit DIR/photos -o DIR/model.fd --time-limit 120
    flowdetect score DIR/model.fd DIR/new -o DIR/scores.csv --fdr 0.1
    FLOWDETECT_DATA=folder python examples/studies/photos.py pictures [--to DIR] [--out docs/studies]

"make" writes `photos/`, CIFAR-10's training images enlarged to photos of many sizes, in a subfolder a class: JPEG, PNG
and WebP files, turned by their EXIF data, with transparent corners, grey, with a palette, with 16 bits, in CMYK, and
two that are damaged; and `new/`: 40 photos from CIFAR-10's test images, and 24 files that are no such photos, house
numbers (SVHN), dark frames, sensor noise, screenshots. It takes about a minute of one core. "pictures" draws what
`flowdetect score` wrote, and says how many of each kind it calls outliers.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from flowdetect import load_folder, load_images
from flowdetect.evaluation import auroc

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# (width, height)
SIZES = ((240, 180), (320, 240), (400, 300), (480, 360), (640, 480), (500, 500), (300, 450), (1024, 768))
# share of each kind of file
KINDS = {
    "jpeg": 0.62,
    "png": 0.12,
    "webp": 0.08,
    "alpha": 0.06,
    "grey": 0.05,
    "palette": 0.03,
    "deep": 0.02,
    "cmyk": 0.02,
}
TURNS = {  # EXIF's orientation -> how an upright picture is to be stored
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
ODD = {"house_number": 12, "dark": 4, "noise": 4, "screenshot": 4}
SEED = 0


# ---- photos


def enlarged(image: np.ndarray, width: int, height: int) -> Image.Image:
    """Make a photo of a small image: its middle is the image, what the aspect ratio adds is mirrored."""
    side = len(image)
    wide, high = max(side, round(side * width / height)), max(side, round(side * height / width))
    left, top = (wide - side) // 2, (high - side) // 2
    beside = ((top, high - side - top), (left, wide - side - left), (0, 0))
    return Image.fromarray(np.pad(image, beside, "symmetric")).resize((width, height), Image.Resampling.BICUBIC)


def save_photo(photo: Image.Image, path: Path, kind: str, draw: np.random.Generator) -> None:
    """Write a photo as one kind of file, some of them turned."""
    if kind in ("jpeg", "cmyk"):
        orientation = int(draw.choice(list(TURNS), p=(0.6, 0.1, 0.2, 0.1)))
        move, exif = TURNS[orientation], Image.Exif()
        exif[0x0112] = orientation
        photo = photo if move is None else photo.transpose(move)
        photo = photo.convert("CMYK") if kind == "cmyk" else photo
        photo.save(path.with_suffix(".jpg"), quality=int(draw.integers(80, 96)), exif=exif)
    elif kind == "webp":
        photo.save(path.with_suffix(".webp"), quality=90)
    elif kind == "alpha":
        photo.putalpha(rounded_corners(*photo.size))
        photo.save(path.with_suffix(".png"), compress_level=1)
    elif kind == "grey":
        photo.convert("L").save(path.with_suffix(".jpg"), quality=90)
    elif kind == "palette":
        photo.quantize(128).save(path.with_suffix(".gif"))
    elif kind == "deep":
        Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(path.with_suffix(".png"))
    else:
        photo.save(path.with_suffix(".png"), compress_level=1)


def rounded_corners(width: int, height: int) -> Image.Image:
    """Give an alpha channel that is transparent in the corners."""
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), radius=min(width, height) // 8, fill=255)
    return mask


def make_photos(folder: Path, n_photos: int) -> None:
    """Write the photos to learn from, and two damaged files."""
    draw = np.random.default_rng(SEED)
    X, y = load_images("cifar10")
    for i in range(n_photos - 2):
        path = folder / CLASSES[y[i]] / f"IMG_{i:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = SIZES[draw.integers(len(SIZES))]
        save_photo(enlarged(X[i], width, height), path, str(draw.choice(list(KINDS), p=list(KINDS.values()))), draw)
    whole = folder / CLASSES[y[0]] / "whole.jpg"
    enlarged(X[0], 640, 480).save(whole, quality=90)
    (folder / "cat" / "IMG_cut.jpg").write_bytes(whole.read_bytes()[:9000])  # a download that broke off
    (folder / "dog" / "IMG_login.jpg").write_text("<html>Please log in to see this picture</html>")
    whole.unlink()


def make_new(folder: Path) -> None:
    """Write the photos to judge: photos of the same kinds, and what is none of them."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(SEED + 1)
    X, _ = load_images("cifar10", "test")
    for i in range(40):
        width, height = SIZES[draw.integers(len(SIZES))]
        kind = str(draw.choice(["jpeg", "png", "webp"]))
        save_photo(enlarged(X[i], width, height), folder / f"photo_{i:02}", kind, draw)
    for name, picture in odd_pictures(draw):
        picture.save(folder / f"{name}.png")


def odd_pictures(draw: np.random.Generator) -> Iterator[tuple[str, Image.Image]]:
    """Give pictures that are no photos of animals and vehicles, by name."""
    X, _ = load_images("svhn", "test")
    for i in range(ODD["house_number"]):
        width, height = SIZES[draw.integers(len(SIZES))]
        yield f"house_number_{i:02}", enlarged(X[i], width, height)
    for i in range(ODD["dark"]):  # a cap on the lens
        yield f"dark_{i:02}", Image.fromarray(draw.poisson(3, (240, 320, 3)).astype(np.uint8))
    for i in range(ODD["noise"]):  # a broken sensor
        grains = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        yield f"noise_{i:02}", grains.resize((640, 480), Image.Resampling.NEAREST)
    for i in range(ODD["screenshot"]):
        yield f"screenshot_{i:02}", screenshot(draw)


def screenshot(draw: np.random.Generator) -> Image.Image:
    """Draw a page of a text: a bar, and lines of words."""
    page = Image.new("RGB", (480, 360), "white")
    pen = ImageDraw.Draw(page)
    pen.rectangle((0, 0, 480, 36), fill=tuple(draw.integers(40, 160, 3).tolist()))
    for top in range(60, 340, 22):
        left = 20
        while left < 420:
            width = int(draw.integers(15, 80))
            pen.rectangle((left, top, min(left + width, 460), top + 9), fill=(60, 60, 60))
            left += width + 10
    return page


# ---- pictures


def read_scores(path: Path) -> list[dict[str, str]]:
    """Read what `flowdetect score` wrote, the lowest score first."""
    with path.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: float(row["score"]))


def one_of_each(folder: Path) -> list[Path]:
    """Give a photo of each kind of file and mode, one that EXIF turns where there is such."""
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("*/IMG_????.*"))[::5]:
        with Image.open(path) as picture:
            turned = -picture.getexif().get(0x0112, 1)
            found.setdefault((path.suffix, picture.mode), []).append((turned, path))
    return [min(found[key])[1] for key in sorted(found)]


def draw_originals(folder: Path, out: Path) -> None:
    """Show one photo of each kind as it lies in the folder, and the image that becomes of it."""
    from matplotlib.figure import Figure

    chosen = one_of_each(folder)
    images = load_folder(chosen, size=32).array()
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for i, (path, image) in enumerate(zip(chosen, images, strict=True)):
        with Image.open(path) as picture:
            title = f"{path.suffix[1:]}, {picture.mode}\n{picture.width} x {picture.height}"
            deep = picture.mode.startswith("I")
            stored = np.asarray(picture) // 257 if deep else np.asarray(picture.convert("RGBA"))
        for k, (shown, text) in enumerate(((stored, title), (image, "32 x 32"))):
            axes = figure.add_subplot(2, len(chosen), k * len(chosen) + i + 1)
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
            axes.set_title(text, fontsize=7)
    figure.savefig(out / "photos_images.png", dpi=110)


def draw_verdicts(folder: Path, rows: list[dict[str, str]], out: Path) -> None:
    """Show the new photos by score, framed where they are called outliers."""
    from matplotlib.figure import Figure

    images = load_folder([folder / row["file"] for row in rows], size=64).array()
    across, down = 16, -(-len(rows) // 16)
    figure = Figure(figsize=(9, 0.76 * down), layout="constrained")
    for i, (row, image) in enumerate(zip(rows, images, strict=True)):
        axes = figure.add_subplot(down, across, i + 1)
        axes.imshow(image)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"p = {float(row['p_value']):.3f}", fontsize=6, pad=4)
        is_outlier = row["label"] == "-1"
        for spine in axes.spines.values():
            spine.set(color="#D55E00" if is_outlier else "#CCCCCC", linewidth=2.5 if is_outlier else 0.5)
    figure.savefig(out / "photos_verdicts.png", dpi=110)


def tell(rows: list[dict[str, str]]) -> None:
    """Print how many of each kind are called outliers, and how well the score tells photos from the rest."""
    scores = {kind: [] for kind in ("photo", *ODD)}
    called = dict.fromkeys(scores, 0)
    for row in rows:
        kind = row["file"].rsplit("_", 1)[0]
        scores[kind].append(float(row["score"]))
        called[kind] += row["label"] == "-1"
    for kind, values in scores.items():
        area = "" if kind == "photo" else f", AUROC {auroc(scores['photo'], values):.3f}"
        print(f"{kind}: {called[kind]} of {len(values)} called outliers{area}")


def main() -> None:
    """Make the folders, or draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "pictures"])
    parser.add_argument("--photos", type=int, default=2000, help="how many to learn from")
    parser.add_argument("--to", type=Path, default=Path("photos_study"), help="the folder of both folders")
    parser.add_argument("--out", type=Path, default=Path("docs/studies"), help="where pictures go")
    options = parser.parse_args()
    if options.what == "make":
        make_photos(options.to / "photos", options.photos)
        make_new(options.to / "new")
        return
    rows = read_scores(options.to / "scores.csv")
    options.out.mkdir(parents=True, exist_ok=True)
    draw_originals(options.to / "photos", options.out)
    draw_verdicts(options.to / "new", rows, options.out)
    tell(rows)


if __name__ == "__main__":
    main()
