"""What is wrong with a call is said in one sentence, with exit code 2, before anything is written."""

import re
import subprocess
import sys

import pytest
from conftest import contents

OUT = ["-o", "out.csv"]
SCORE, FIT = ["score", "model.fd"], ["fit", "normal.csv"]
TO = ["-o", "out.fd"]

# the words of the call, and what its message names: the value received, and the remedy
WRONG = {
    # words of the call
    "no command": ([], ["COMMAND", "--help"]),
    "unknown command": (["train", "normal.csv"], ["'train'", "'fit', 'score'"]),
    "unknown option": ([*SCORE, "new.csv", *OUT, "--fast"], ["--fast", "score --help"]),
    "no inputs": (["score", "model.fd", *OUT], ["INPUT"]),
    "no output": ([*SCORE, "new.csv"], ["-o/--output"]),
    "abbreviated option": ([*SCORE, "new.csv", "--out", "out.csv"], ["-o/--output"]),
    "both loud and quiet": ([*SCORE, "new.csv", *OUT, "--quiet", "--verbose"], ["--verbose", "--quiet"]),
    "json to where scores go": ([*SCORE, "new.csv", "-o", "-", "--json"], ["--json", "name a file"]),
    "negative seed": ([*FIT, *TO, "--seed", "-1"], ["--seed", "'-1'", "from 0 to 4294967295"]),
    "seed that is a word": ([*FIT, *TO, "--seed", "lucky"], ["--seed", "'lucky'"]),
    "no epochs": ([*FIT, *TO, "--epochs", "0"], ["--epochs", "'0'", "at least 1"]),
    "no time": ([*FIT, *TO, "--time-limit", "0"], ["--time-limit", "'0'", "above 0"]),
    "contamination out of range": ([*FIT, *TO, "--contamination", "0.7"], ["--contamination", "'0.7'", "0.5"]),
    "fdr out of range": ([*SCORE, "new.csv", *OUT, "--fdr", "1.5"], ["--fdr", "'1.5'", "below 1"]),
    "size that is none": (["fit", "photos", *TO, "--size", "8,x"], ["--size", "'8,x'", "32,32"]),
    "mode that is none": (["fit", "photos", *TO, "--size", "8", "--mode", "CMYK"], ["--mode", "'CMYK'", "'RGB'"]),
    "columns that are none": ([*FIT, *TO, "--columns", "age,,age"], ["--columns", "'age,,age'"]),
    # what to fit
    "unknown detector": (
        [*FIT, *TO, "--detector", "Likelyhood"],  # codespell:ignore
        ["'Likelyhood'", "did you mean Likelihood?"],  # codespell:ignore
    ),
    "unknown density": ([*FIT, *TO, "--density", "RealNPV"], ["'RealNPV'", "did you mean RealNVP?"]),
    "detector that needs a density": ([*FIT, *TO, "--detector", "Likelihood"], ["LikelihoodDetector", "--density"]),
    "unknown parameter": ([*FIT, *TO, "--density", "Glow", "--set", "n_step=4"], ["'n_step'", "did you mean n_steps?"]),
    "parameter of a density that is not named": ([*FIT, *TO, "--set", "n_steps=4"], ["'n_steps'", "--density"]),
    "epochs of a density that is not named": (
        [*FIT, *TO, "--epochs", "4"],
        ["--epochs", "got 4", "--density PixelCNN"],
    ),
    "density by --set": ([*FIT, *TO, "--set", "density=Glow"], ["'Glow'", "--density"]),
    "parameter without a value": ([*FIT, *TO, "--set", "cv"], ["KEY=VALUE", "'cv'"]),
    "parameter of another type": (
        [*FIT, *TO, "--density", "Glow", "--set", "n_steps=(1, 2)"],
        ["n_steps", "(1, 2)", "tuple"],
    ),
    "parameter out of range": ([*FIT, *TO, "--density", "Glow", "--set", "n_steps=-4"], ["n_steps", "-4"]),
    "value that is no value": ([*FIT, *TO, "--set", "codecs=[1,"], ["codecs", "'[1,'", "quotes"]),
    "device that is none": ([*FIT, *TO, "--density", "Glow", "--device", "abacus"], ["device", "abacus"]),
    "checkpoint in a file": ([*FIT, *TO, "--density", "Glow", "--checkpoint", "new.csv"], ["checkpoint", "new.csv"]),
    # inputs that cannot be read
    "missing input": ([*SCORE, "now.csv", *OUT], ["'now.csv'", "correct the path"]),
    "unknown named set": (["fit", "digit", *TO], ["'digit'", "digits"]),
    "unknown split": ([*["score", "images.fd"], "digits:tests", *OUT], ["'tests'", "'train', 'test'"]),
    "unknown ending": ([*SCORE, "notes.txt", *OUT], ["'notes.txt'", "'.txt'", ".csv"]),
    "one input twice": ([*SCORE, "new.csv", "new.csv", *OUT], ["'new.csv'", "twice"]),
    "a pipe": ([*SCORE, "pipe.csv", *OUT], ["pipe.csv", "not a regular file"]),
    "empty file": ([*SCORE, "empty.csv", *OUT], ["'empty.csv'", "complete"]),
    "header only": ([*SCORE, "header.csv", *OUT], ["'header.csv'", "header only"]),
    "header only, to fit": (["fit", "header.csv", *TO], ["'header.csv'", "header only"]),
    "no header": ([*SCORE, "numbers.csv", *OUT], ["'numbers.csv'", "'170'", "add a header"]),
    "other separator": ([*SCORE, "semicolons.csv", *OUT], ["'semicolons.csv'", "--separator ';'"]),
    "other encoding": ([*SCORE, "latin.csv", *OUT], ["'latin.csv'", "UTF-8"]),
    "cells without a column": ([*SCORE, "ragged.csv", *OUT], ["'ragged.csv'", "line 3", "saw 4"]),
    "name twice": ([*SCORE, "twice.csv", *OUT], ["'twice.csv'", "'height'", "rename"]),
    "text in a cell": ([*SCORE, "text.csv", *OUT], ["'heavy'", "row 1", "'weight'", "--drop"]),
    "date in a cell": (["fit", "dates.csv", *TO], ["'2024-01-02'", "row 1", "'age'", "TableVectorizer"]),
    "missing cell": ([*SCORE, "nan.csv", *OUT], ["NaN", "row 1", "'weight'"]),
    "infinite cell": (["fit", "inf.csv", *TO], ["inf", "row 1", "'age'"]),
    "missing value of an array": (["fit", "nan.npy", *TO], ["NaN", "row 1", "place 1"]),
    "missing label": (["fit", "labels.csv", *TO, "--label", "kind"], ["'kind'", "row 1"]),
    "unknown label": ([*FIT, *TO, "--label", "sex"], ["'sex'", "'height'", "--label"]),
    "unknown column": ([*FIT, *TO, "--columns", "height,sex"], ["'sex'", "--columns"]),
    "unknown column to drop": ([*FIT, *TO, "--drop", "sex"], ["'sex'", "--drop"]),
    "no column left": ([*FIT, *TO, "--drop", "height,weight,age"], ["at least one column"]),
    "one row": (["fit", "one.csv", *TO], ["at least 2 rows", "got 1", "'one.csv'"]),
    "one dimension": (["fit", "vector.npy", *TO], ["'vector.npy'", "(5,)", "reshape"]),
    "complex numbers": (["fit", "complex.npy", *TO], ["'complex.npy'", "complex128"]),
    "a pickle": (["fit", "objects.npy", *TO], ["'objects.npy'", "without pickles"]),
    "no array": (["fit", "broken.npy", *TO], ["'broken.npy'", "numpy.save"]),
    "several arrays": (["fit", "two.npz", *TO], ["'two.npz'", "'first', 'second'", "--array"]),
    "array that is not there": (["fit", "two.npz", *TO, "--array", "third"], ["'third'", "'first', 'second'"]),
    "labels that are not there": (["fit", "labelled.npz", *TO, "--array", "X", "--label", "z"], ["'z'", "--label"]),
    "no Parquet": (["fit", "broken.parquet", *TO], ["broken.parquet"]),
    "option for other inputs": ([*FIT, *TO, "--size", "8"], ["--size", "8,8", "pictures", "'normal.csv'"]),
    "no pictures": (["fit", "no_photos", *TO, "--size", "8"], ["no_photos", "no pictures"]),
    "no picture": (["fit", "broken.png", *TO, "--size", "8"], ["broken.png"]),
    "pictures and a table": (["fit", "photos", "normal.csv", *TO, "--size", "8"], ["'normal.csv'", "mixed"]),
    # inputs that are unlike the model's
    "renamed column": ([*SCORE, "renamed.csv", *OUT], ["'mass'", "lacks 'weight'"]),
    "other order": ([*SCORE, "order.csv", *OUT], ["order differs", "--columns height,weight,age"]),
    "one column more": ([*SCORE, "more.csv", *OUT], ["'shoe'", "--drop shoe"]),
    "one column fewer": ([*SCORE, "fewer.csv", *OUT], ["2 column(s)", "lacks 'age'"]),
    "numbered rows": ([*SCORE, "unnamed.csv", *OUT], ["'Unnamed: 0'", "--drop"]),
    "images to a table's model": ([*SCORE, "images.npy", *OUT], ["'images.npy'", "8 x 8", "table"]),
    "folder to a table's model": ([*SCORE, "photos", *OUT], ["'photos'", "table of the column(s) 'height'"]),
    "table to a model of images": (["score", "images.fd", "new.csv", *OUT], ["'new.csv'", "8 x 8"]),
    "larger images": (["score", "images.fd", "large_images.npy", *OUT], ["16 x 8", "8 x 8", "resize"]),
    "two kinds of input": ([*SCORE, "new.csv", "rows.npy", *OUT], ["'rows.npy'", "'new.csv'"]),
    # models that cannot be read
    "missing model": (["score", "modell.fd", "new.csv", *OUT], ["'modell.fd'", "flowdetect fit"]),  # codespell:ignore
    "a table as a model": (["score", "normal.csv", "new.csv", *OUT], ["normal.csv", "is not a flowdetect file"]),
    "damaged model": (["score", "damaged.fd", "images.npy", *OUT], ["damaged.fd", "checksum"]),
    "half a model": (["score", "cut.fd", "images.npy", *OUT], ["cut.fd", "is incomplete"]),
    "checkpoint as a model": (["score", "training.ckpt", "images.npy", *OUT], ["training.ckpt", "checkpoint"]),
    "model that is not fitted": (["score", "unfitted.fd", "images.npy", *OUT], ["'unfitted.fd'", "not fitted"]),
    "folder as a model": (["score", "photos", "new.csv", *OUT], ["photos", "directory"]),
    # outputs that cannot be written
    "output in no folder": ([*SCORE, "new.csv", "-o", "there/out.csv"], ["there/out.csv", "does not exist"]),
    "output in a file": ([*SCORE, "new.csv", "-o", "new.csv/out.csv"], ["new.csv/out.csv"]),
    "output is a folder": ([*SCORE, "new.csv", "-o", "photos/out.csv/"], ["'photos/out.csv/'"]),
    "output of another kind": ([*SCORE, "new.csv", "-o", "out.xlsx"], ["'out.xlsx'", ".csv, .parquet, .jsonl"]),
    "output is a device": ([*SCORE, "new.csv", "-o", "/dev/full"], ["'/dev/full'", ".csv"]),
    "output is the input": ([*SCORE, "new.csv", "-o", "./new.csv"], ["'./new.csv'", "choose another name"]),
    "model that ends like a table": ([*FIT, "-o", "out.csv"], ["'out.csv'", ".fd"]),
    "model in no folder": ([*FIT, "-o", "there/out.fd"], ["there/out.fd", "create it first"]),
    "model in the place of a folder": (["fit", "normal.csv", "-o", "photos"], ["'photos'", ".fd"]),
    "report of another kind": (
        ["report", "model.fd", "normal.csv", "new.csv", "-o", "out.pdf"],
        ["'out.pdf'", ".html"],
    ),
    # the other commands
    "report of one set": (["report", "model.fd", "normal.csv", "-o", "out.html"], ["OTHER"]),
    "sets of one name": (["report", "model.fd", "new.csv", "new=new.tsv", "-o", "out.html"], ["'new=new.tsv'"]),
    "false discoveries of a density": (["score", "density.fd", "images.npy", *OUT, "--fdr", "0.1"], ["--fdr", "Glow"]),
    "terms of another detector": (["score", "images.fd", "images.npy", *OUT, "--terms"], ["--terms", "'images.fd'"]),
    "explain a density": (["explain", "density.fd", "images.npy", *OUT], ["'density.fd'", "needs a detector"]),
    "row that is not there": (["explain", "model.fd", "new.csv", *OUT, "--rows", "3,80"], ["0 to 79", "80"]),
    "rows that are none": (["explain", "model.fd", "new.csv", *OUT, "--rows", "3-1"], ["--rows", "'3-1'"]),
    "rows and lowest": (
        ["explain", "model.fd", "new.csv", *OUT, "--rows", "3", "--lowest", "2"],
        ["--lowest", "--rows"],
    ),
    "no samples": (["sample", "images.fd", "-n", "0", "-o", "out.png"], ["-n/--number", "'0'"]),
    "table as a picture": (["sample", "model.fd", "-o", "out.png"], ["'out.png'", "tables"]),
    "sample of a class of none": (
        ["sample", "images.fd", "--label", "3", "-o", "out.png"],
        ["--label", "'3'", "no classes"],
    ),
    "sample of an unknown class": (["sample", "classes.fd", "--label", "3", "-o", "out.png"], ["'3'", "one of 0, 1"]),
    "temperature of none": (["sample", "model.fd", "--temperature", "0.5", "-o", "out.csv"], ["--temperature", "0.5"]),
    "temperature below zero": (
        ["sample", "images.fd", "--temperature", "-1", "-o", "out.npy"],
        ["--temperature", "'-1'"],
    ),
    "samples over other files": (["sample", "images.fd", "-o", "photos/"], ["'photos/'", "new or empty folder"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call(name, here, call):
    arguments, named = WRONG[name]
    before = contents(here)
    done = call(*arguments)
    assert done.code == 2
    assert contents(here) == before
    assert done.out == "" or "--json" in arguments
    sentence = last_line(done.err)
    assert "Traceback" not in done.err
    for words in named:
        assert words in sentence


def last_line(text):
    """The message of an error: one sentence in one line; the lines before it may be warnings."""
    *others, sentence = text.splitlines()
    assert all(line.startswith("flowdetect: warning: ") for line in others)
    assert re.fullmatch(r"flowdetect: (?!warning).*(?:[^.]\.|\?)", sentence)
    assert not re.search(r"[a-z)'\"][.] [A-Z]", sentence)
    return sentence


def test_there_are_enough_wrong_calls():
    assert len(WRONG) >= 40


@pytest.mark.parametrize(
    "name", ["unknown option", "missing input", "text in a cell", "damaged model", "fdr out of range"]
)
def test_an_error_for_machines(name, here, call):
    arguments, named = WRONG[name]
    done = call(*arguments, "--json")
    assert done.code == done.result["exit_code"] == 2
    for words in named:
        assert words in done.result["error"]
    assert last_line(done.err) == f"flowdetect: {done.result['error']}"


def test_what_should_not_happen_is_a_sentence_too(here, call, monkeypatch):
    def broken(*_):
        raise RuntimeError("the device is gone.")

    monkeypatch.setattr("flowdetect.commands.score._answers", broken)
    done = call(*SCORE, "new.csv", *OUT)
    assert done.code == 2
    assert last_line(done.err).startswith("flowdetect: RuntimeError: the device is gone; this is an error in")
    assert "Traceback" in call(*SCORE, "new.csv", *OUT, "--verbose").err


def test_a_wrong_call_of_a_process(here):
    before = contents(here)
    command = [sys.executable, "-m", "flowdetect", "score", "model.fd", "now.csv", "-o", "out.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flowdetect: there is no file or folder 'now.csv'; correct the path.\n"
    assert contents(here) == before
