import pandas as pd
import pytest
from dying import DyingScorer

from flowdetect import Scorer

frames = pytest.importorskip("dask.dataframe")
pytestmark = pytest.mark.usefixtures("dask_client")


def test_map_partitions_and_a_killed_worker(table, path, compare, tmp_path):
    rows = frames.from_pandas(table, npartitions=10)
    scorer = Scorer(path, keep="key")
    meta = {"key": "int64", **scorer.meta.dtypes}
    answers = rows.map_partitions(DyingScorer(scorer, tmp_path / "died"), meta=meta).compute()
    compare(answers, tmp_path / "died")
    pd.testing.assert_index_equal(answers.index, table.index)


def test_without_meta_and_with_empty_partitions(table, path, compare, tmp_path):
    rows = frames.from_pandas(table, npartitions=5)
    (tmp_path / "died").touch()
    compare(rows.map_partitions(Scorer(path, keep="key")).compute(), tmp_path / "died")
    few = rows[rows["key"] < 10].map_partitions(Scorer(path), meta=Scorer(path).meta)
    pd.testing.assert_frame_equal(few.compute(), Scorer(path)(table[:10]))


def test_an_error_of_a_worker_is_told(table, path):
    rows = frames.from_pandas(table.drop(columns="b"), npartitions=2)
    with pytest.raises(ValueError, match="lacks 'b'.*pass columns="):
        rows.map_partitions(Scorer(path), meta=Scorer(path).meta).compute()
