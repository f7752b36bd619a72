"""A folder with inputs, right and wrong ones, and models; and the command, called in this process."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flowdetect import GlowDensity, LikelihoodDetector
from flowdetect.commands import main

N_ROWS = 80


def table(seed, n_rows=N_ROWS):
    random = np.random.default_rng(seed)
    height = random.normal(170, 10, n_rows)
    weight = 0.9 * (height - 100) + random.normal(0, 6, n_rows)
    return pd.DataFrame({"height": height, "weight": weight, "age": random.uniform(18, 80, n_rows).round()})


def write_texts(folder):
    """Write tables that are wrong, each in one way."""
    texts = {
        "text.csv": "height,weight,age\n170,70,30\n180,heavy,40\n",
        "dates.csv": "height,weight,age\n170,70,30\n180,80,2024-01-02\n",
        "nan.csv": "height,weight,age\n170,70,30\n180,,40\n",
        "inf.csv": "height,weight,age\n170,70,30\n180,80,inf\n",
        "empty.csv": "",
        "header.csv": "height,weight,age\n",
        "ragged.csv": "height,weight,age\n170,70,30\n180,80,40,5\n",
        "renamed.csv": "height,mass,age\n170,70,30\n",
        "order.csv": "weight,height,age\n70,170,30\n",
        "more.csv": "height,weight,age,shoe\n170,70,30,42\n",
        "fewer.csv": "height,weight\n170,70\n",
        "twice.csv": "height,height,age\n170,70,30\n",
        "unnamed.csv": ",height,weight,age\n0,170,70,30\n1,171,71,31\n",
        "numbers.csv": "170,70,30\n180,80,40\n",
        "semicolons.csv": "height;weight;age\n170;70;30\n",
        "one.csv": "height,weight,age\n170,70,30\n",
        "labels.csv": "height,weight,kind\n170,70,a\n171,71,\n",
        "notes.txt": "height,weight,age\n170,70,30\n",
        "broken.npy": "no array",
        "broken.parquet": "no table",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin.csv").write_bytes("höhe,weight,age\n170,70,30\n".encode("latin-1"))


def write_arrays(folder):
    images = np.random.default_rng(0).integers(0, 17, (70, 8, 8)).astype(np.uint8)
    np.save(folder / "images.npy", images)
    np.save(folder / "large_images.npy", images.repeat(2, axis=1))
    np.save(folder / "vector.npy", np.arange(5.0))
    np.save(folder / "rows.npy", table(2).to_numpy())
    np.save(folder / "nan.npy", np.array([[170.0, 70, 30], [180, np.nan, 40]]))
    np.save(folder / "complex.npy", np.ones((5, 3), complex))
    np.save(folder / "objects.npy", np.array([["a", None]], dtype=object), allow_pickle=True)
    np.savez(folder / "two.npz", first=images, second=images)
    np.savez(folder / "labelled.npz", X=images, y=np.arange(70) % 2)


def write_pictures(folder):
    (folder / "photos").mkdir()
    (folder / "no_photos").mkdir()
    (folder / "no_photos" / "readme.md").write_text("none here")
    random = np.random.default_rng(0)
    for i in range(12):
        pixels = random.integers(0, 256, (9 + i, 12, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i:02d}.{'png' if i % 2 else 'jpg'}")
    (folder / "broken.png").write_text("no picture")


def write_models(folder):
    images = np.load(folder / "images.npy")
    settings = {"n_bins": 17, "n_steps": 1, "hidden_channels": 8, "max_epochs": 1, "random_state": 0}
    glow = GlowDensity(**settings, checkpoint=folder / "training.ckpt")
    LikelihoodDetector(glow, random_state=0).fit(images).save(folder / "images.fd")
    GlowDensity(**settings).fit(images).save(folder / "density.fd")
    GlowDensity(**settings, conditional=True).fit(images, np.arange(70) % 2).save(folder / "classes.fd")
    GlowDensity().save(folder / "unfitted.fd")
    (folder / "damaged.fd").write_bytes((folder / "images.fd").read_bytes()[:-9] + b"damaged.!")
    (folder / "cut.fd").write_bytes((folder / "images.fd").read_bytes()[:5000])


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Inputs and models, which no test changes."""
    found = tmp_path_factory.mktemp("commands")
    table(0).to_csv(found / "normal.csv", index=False)
    table(1).to_csv(found / "new.csv", index=False)
    table(1).to_csv(found / "new.tsv", index=False, sep="\t")
    write_texts(found)
    write_arrays(found)
    write_pictures(found)
    write_models(found)
    os.mkfifo(found / "pipe.csv")
    assert main(["fit", str(found / "normal.csv"), "-o", str(found / "model.fd"), "--quiet"]) == 0
    return found


@pytest.fixture
def here(folder, monkeypatch):
    """The folder, as the one in which commands are called."""
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def call(capsys):
    """Call a command: its exit code, what it wrote, and its JSON if there is."""

    def called(*arguments):
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        result = json.loads(out) if "--json" in arguments else None
        return SimpleNamespace(code=code, out=out, err=err, result=result)

    return called


def contents(folder):
    """Every file of a folder, with its size and when it was written."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}
