"""Parquet and Arrow as rows: the values are those of the frame, in any order, in little memory; wrong ones refused."""

import decimal
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from flowdetect import LikelihoodDetector, RealNVPDensity, load_parquet
from flowdetect.datasets._arrow import to_rows

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N = 1000


def table(n=N, seed=0):
    """Columns of four types, a number a cell, and labels."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "a": rng.normal(size=n),
            "b": rng.integers(-100, 100, n, dtype=np.int8),
            "c": rng.random(n) < 0.5,
            "d": rng.normal(size=n).astype(np.float32),
            "kind": np.array(["x", "yy", "zzz"])[rng.integers(0, 3, n)],
        }
    )


def expected(t):
    return t.drop_columns("kind").to_pandas().astype(float).to_numpy()


@pytest.fixture
def folder(tmp_path):
    """Three files of several row groups, one of no rows."""
    for i, (n, group) in enumerate([(400, 90), (0, 10), (600, 250)]):
        part = table().slice(0 if i == 0 else 400, n)
        pq.write_table(part, tmp_path / f"part{i}.parquet", row_group_size=group)
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "notes.txt").write_text("no table")
    return tmp_path


SOURCES = {
    "a folder": lambda folder: folder,
    "files": lambda folder: [folder / "part0.parquet", str(folder / "part2.parquet")],
    "a table": lambda folder: table(),
    "a table of chunks": lambda folder: pa.concat_tables([table().slice(0, 123), table().slice(123)]),
    "a batch": lambda folder: table().combine_chunks().to_batches()[0],
    "a dataset": lambda folder: __import__("pyarrow.dataset").dataset.dataset(
        [str(folder / f"part{i}.parquet") for i in range(3)]
    ),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_values_columns_and_labels_are_those_of_the_table(folder, make):
    source = load_parquet(make(folder), y="kind")
    assert (len(source), source.row_shape, source.dtype, source.columns) == (N, (4,), np.float64, ["a", "b", "c", "d"])
    np.testing.assert_array_equal(source.array(), expected(table()))
    np.testing.assert_array_equal(source.y, table()["kind"].to_numpy())
    order = np.random.default_rng(1).permutation(N)[:77]
    np.testing.assert_array_equal(source.read(order), expected(table())[order])
    np.testing.assert_array_equal(source[3:900:7].array(), expected(table())[3:900:7])
    chosen = load_parquet(make(folder), columns=["d", "a"])
    np.testing.assert_array_equal(chosen.array(), expected(table())[:, [3, 0]])
    assert source.read(np.array([], dtype=int)).shape == (0, 4)


QUESTIONS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, N - 1), st.integers(1, N)).map(lambda t: np.arange(t[0], min(N, t[0] + t[1]))),
        st.lists(st.integers(0, N - 1), min_size=1, max_size=20).map(np.array),
        st.integers(1, 30).map(lambda step: np.arange(0, N, step)),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def two_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    pq.write_table(table().slice(0, 600), folder / "a.parquet", row_group_size=130)
    pq.write_table(table().slice(600), folder / "b.parquet", row_group_size=1000)
    return folder


@settings(max_examples=30, deadline=None)
@given(QUESTIONS, st.sampled_from([1, 17, 64]), st.sampled_from([0, 2**28]))
def test_rows_in_whatever_order_are_those_of_the_array(two_files, questions, batch_rows, cache_bytes):
    source = load_parquet(two_files, columns=["a", "b", "c", "d"], cache_bytes=cache_bytes)
    source._batch_rows = batch_rows
    for indices in questions:
        np.testing.assert_array_equal(source.read(indices), expected(table())[indices])


def test_types_become_floats_as_stated():
    t = pa.table(
        {
            "uint64": pa.array([2**64 - 1, 2**53 + 1, None], pa.uint64()),
            "bool": [True, None, False],
            "decimal": [decimal.Decimal("1.25"), decimal.Decimal("-3.50"), None],
            "half": pa.array(np.array([0.5, 1, 2], np.float16)),
            "single": pa.array([0.1, None, 3.0], pa.float32()),
        }
    )
    nan = np.nan
    by_hand = [[2.0**64, 1, 1.25, 0.5, np.float32(0.1)], [2.0**53, nan, -3.5, 1, nan], [nan, 0, nan, 2, 3]]
    np.testing.assert_array_equal(load_parquet(t).array(), np.array(by_hand, dtype=float))
    assert load_parquet(t, columns=["half", "single"]).dtype == np.float32
    assert load_parquet(t, columns=["half", "bool"]).dtype == np.float64


def test_names_of_folders_are_columns(tmp_path):
    for year in (2020, 2021):
        for place in ("here", "there"):
            at = tmp_path / f"year={year}" / f"place={place}"
            at.mkdir(parents=True)
            pq.write_table(pa.table({"a": [float(year), 1.0]}), at / "0.parquet")
    source = load_parquet(tmp_path, y="place")
    assert source.columns == ["a", "year"]
    np.testing.assert_array_equal(source.array()[::2], [[2020, 2020], [2020, 2020], [2021, 2021], [2021, 2021]])
    assert source.y.tolist() == ["here", "here", "there", "there"] * 2
    with pytest.raises(ValueError, match=r"got 'place' \(string\); pass columns=\['a', 'year'\]"):
        load_parquet(tmp_path)


# Random order


def written():
    return set(Path(tempfile.gettempdir()).glob("flowdetect-rows-*"))


@pytest.fixture
def own_temporary_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("rows")))


def test_rows_are_written_down_once_and_removed(folder, own_temporary_folder):
    source = load_parquet(folder, columns=["a", "b"], cache_bytes=0)
    source._batch_rows = 50
    for _, _part in source.parts(64):
        pass
    assert not written()  # in order
    order = np.random.default_rng(0).permutation(N)
    for k in range(0, N, 10):
        np.testing.assert_array_equal(source.read(order[k : k + 10]), expected(table())[order[k : k + 10], :2])
    (file,) = written()
    assert file.stat().st_size == N * 2 * 8

    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(order), expected(table())[order, :2])
    assert written() == {file}  # the copy reads the same file, and does not remove it
    del copy
    assert written() == {file}
    del source
    assert not written()


def test_a_copy_whose_file_is_gone_writes_its_own(folder, own_temporary_folder):
    source = load_parquet(folder, columns=["a", "b"], cache_bytes=0)
    source._batch_rows, order = 50, np.array([900, 3])
    source.read(order)
    travelled = pickle.dumps(source)
    del source
    late = pickle.loads(travelled)
    np.testing.assert_array_equal(late.read(order), expected(table())[order, :2])
    copy = pickle.loads(pickle.dumps(late))
    del late  # which takes the file with it
    np.testing.assert_array_equal(copy.read(order), expected(table())[order, :2])


def test_many_questions_about_few_rows_end_in_writing_down(folder, own_temporary_folder):
    source = load_parquet(folder, columns=["a", "b"], cache_bytes=0)
    for i in np.random.default_rng(0).permutation(N)[:40]:
        np.testing.assert_array_equal(source[i], expected(table())[i, :2])
    assert written()


def test_the_file_is_removed_when_python_ends(folder):
    code = (
        "import sys, numpy as np, tempfile; from flowdetect import load_parquet; from pathlib import Path;"
        "s = load_parquet(sys.argv[1], columns=['a'], cache_bytes=0); s._batch_rows = 9; s.read(np.array([900, 3]));"
        "print(len(list(Path(tempfile.gettempdir()).glob('flowdetect-rows-*'))))"
    )
    env = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code, folder], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert not list(folder.glob("flowdetect-rows-*"))


def test_nothing_is_left_of_a_file_that_could_not_be_written(folder, own_temporary_folder, monkeypatch):
    source = load_parquet(folder, columns=["a"], cache_bytes=0)
    source._batch_rows = 9
    (folder / "part2.parquet").write_bytes((folder / "part2.parquet").read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"part2\.parquet cannot be read"):
        source.read(np.array([900, 3]))
    assert not written()


@pytest.mark.parametrize("n", [500, 700])
@pytest.mark.parametrize("cache_bytes", [0, 2**28])
def test_files_that_change_are_noticed(folder, n, cache_bytes):
    source = load_parquet(folder, columns=["a"], cache_bytes=cache_bytes)
    source._batch_rows = 50
    pq.write_table(table(n), folder / "part2.parquet")
    with pytest.raises(ValueError, match="must stay as they were when it was opened, with 1000 rows, got"):
        source.read(np.array([900, 3]))
    if n < 600:
        with pytest.raises(ValueError, match="must stay as they were"):
            source.array()


def test_ctrl_c_in_the_middle_loses_no_rows(folder, monkeypatch):
    source = load_parquet(folder, columns=["a", "b"])
    source._batch_rows = 50
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return to_rows(*arguments)

    monkeypatch.setattr("flowdetect.datasets.parquet.to_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.read(np.arange(400))
    np.testing.assert_array_equal(source.read(np.arange(130, 260)), expected(table())[130:260, :2])


def test_too_little_room_is_told(folder, monkeypatch):
    source = load_parquet(folder, columns=["a"], cache_bytes=0)
    source._batch_rows = 9
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OSError, match="has 0.0 GB free; name another in the environment variable TMPDIR"):
        source.read(np.array([900, 3]))


@pytest.mark.parametrize("cache_bytes", [0, 2**28])
def test_threads_read_the_same(folder, cache_bytes, own_temporary_folder):
    source = load_parquet(folder, columns=["a", "b"], cache_bytes=cache_bytes)
    source._batch_rows = 50
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            low = rng.integers(0, N - 40)
            indices = np.arange(low, low + 40) if rng.random() < 0.8 else rng.integers(0, N, 40)
            wrong.append(not np.array_equal(source.read(indices), expected(table())[indices, :2]))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(wrong) == 120
    assert not any(wrong)


# Fits


def test_densities_and_detectors_take_it_for_the_frame(folder):
    frame = table().to_pandas()[["a", "d"]].astype(float)
    source = load_parquet(folder, columns=["a", "d"])
    density = RealNVPDensity(max_epochs=1, hidden_channels=8, n_steps=2, random_state=0)
    by_frame = density.fit(frame).score_samples(frame)
    np.testing.assert_array_equal(density.fit(source).score_samples(source), by_frame)
    assert density.feature_names_in_.tolist() == ["a", "d"]
    detector = LikelihoodDetector(clone(density), random_state=0)
    np.testing.assert_array_equal(detector.fit(source).predict(source), detector.fit(frame).predict(frame))
    with pytest.raises(ValueError, match="must have the columns passed during fit"):
        detector.predict(load_parquet(folder, columns=["d", "a"]))


def test_null_is_refused_with_its_row(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 2))
    values[33, 1] = np.nan
    t = pa.table({"a": values[:, 0], "b": pa.array(values[:, 1], from_pandas=True)})
    pq.write_table(t, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="NaN in row 33, column 1"):
        RealNVPDensity(max_epochs=1).fit(load_parquet(tmp_path / "a.parquet"))


@pytest.mark.parametrize("make", [lambda t: t, lambda t: t.to_batches()[0]], ids=["Table", "RecordBatch"])
def test_a_bare_table_of_arrow_is_taken_for_its_frame(make):
    t = table(100).select(["a", "b", "c"])
    density = RealNVPDensity(max_epochs=1, hidden_channels=8, n_steps=2, random_state=0)
    by_frame = density.fit(t.to_pandas()).score_samples(t.to_pandas())
    np.testing.assert_array_equal(density.fit(make(t)).score_samples(make(t)), by_frame)
    assert density.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"column\(s\) 'kind'.*skrub"):
        density.fit(make(table(100)))


# Wrong calls


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({}, ValueError, r"must hold numbers, got 'kind' \(string\); pass columns=\['a', 'b', 'c', 'd'\].*skrub"),
        ({"columns": ["a", "z"]}, ValueError, r"names of the table's columns, got 'z'; it has \['a'"),
        ({"columns": ["a", "a"]}, ValueError, "got 'a' twice"),
        ({"columns": []}, ValueError, "at least one column"),
        ({"columns": "a"}, TypeError, "columns must be a list of names or None for all, got 'a'"),
        ({"y": "z"}, ValueError, "got 'z'"),
        ({"y": np.zeros(3)}, TypeError, r"y must be the name of a column.*fit\(X, y\)"),
        ({"y": "a", "columns": ["b"]}, ValueError, "y='a' must be a column of whole numbers, booleans or text"),
        ({"cache_bytes": -1, "y": "kind"}, ValueError, "cache_bytes must be a whole number >= 0"),
    ],
)
@pytest.mark.parametrize("kind", ["a folder", "a table"])
def test_wrong_parameters(folder, parameters, error, message, kind):
    with pytest.raises(error, match=message):
        load_parquet(SOURCES[kind](folder), **parameters)


def test_other_types_of_columns_are_refused_by_name():
    t = pa.table({"day": pd.to_datetime(["2020-01-01"]), "many": [[1, 2]], "ok": [1], "none": [None]})
    with pytest.raises(ValueError, match=r"'day' \(timestamp.*'many' \(list.*'none' \(null\); pass columns=\['ok'\]"):
        load_parquet(t)


def test_labels_without_null_of_one_kind(folder):
    t = pa.table({"a": [1.0, 2.0], "y": pa.array(["k", None]).dictionary_encode()})
    with pytest.raises(ValueError, match="y='y' must name a label in each row, got null in row 1"):
        load_parquet(t, y="y")
    assert load_parquet(t.slice(0, 1), y="y").y.tolist() == ["k"]
    pq.write_table(t, folder / "labels.parquet", row_group_size=1)
    with pytest.raises(ValueError, match="got null in row 1"):
        load_parquet(folder / "labels.parquet", y="y")


def test_wrong_paths(folder, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match="path must be a Parquet file.*nowhere', which does not exist"):
        load_parquet(folder / "nowhere")
    with pytest.raises(ValueError, match=r"notes\.txt cannot be read as Parquet: .*; write it again"):
        load_parquet(folder / "notes.txt")
    with pytest.raises(ValueError, match=r"found no file in .* whose name ends in \.parquet"):
        load_parquet(tmp_path_factory.mktemp("empty"))
    with pytest.raises(TypeError, match="got a list of nothing"):
        load_parquet([])
    with pytest.raises(TypeError, match="got a list of 3"):
        load_parquet([folder / "part0.parquet", 3])
    with pytest.raises(TypeError, match="got 3 of type int"):
        load_parquet(3)
    with pytest.raises(TypeError, match=r"RecordBatchReader, whose rows come once; pass path\.read_all\(\)"):
        load_parquet(table().to_reader())


def test_files_of_other_columns_are_refused_by_name(folder):
    pq.write_table(table(10).drop_columns("b"), folder / "part9.parquet")
    with pytest.raises(ValueError, match=r"same columns, got .*part9\.parquet without \['b'\]"):
        load_parquet(folder, y="kind")
    pq.write_table(table(10).set_column(1, "b", pa.array(["x"] * 10)), folder / "part9.parquet")
    with pytest.raises(ValueError, match=r"got 'b' \(string\) in .*part9\.parquet"):
        load_parquet(folder, y="kind")


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'flowdetect-ood\[parquet\]'"):
        load_parquet("a.parquet")


def test_a_damaged_file_is_read_or_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(300).drop_columns("kind"), path, row_group_size=100)
    whole, draw = path.read_bytes(), random.Random(0)
    n_refused = 0
    for trial in range(150):
        changed = bytearray(whole if trial % 3 else whole[: draw.randrange(len(whole))])
        for _ in range(draw.randrange(1, 5)):
            at = draw.randrange(len(changed)) if trial % 2 else -draw.randrange(1, min(len(changed), 1500))
            changed[at] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            load_parquet(path).array()
        except (ValueError, OSError) as error:
            assert "a.parquet" in str(error) or "columns" in str(error)  # noqa: PT017
            n_refused += 1
    assert n_refused > 40
