import pytest
from dying import DyingScorer

from flowdetect import Scorer

ray = pytest.importorskip("ray")
BATCH = 100  # rows


pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.parametrize("batch_format", ["default", "pandas", "pyarrow"])
def test_map_batches_and_a_killed_worker(batch_format, table, path, compare, tmp_path):
    scorer = DyingScorer(Scorer(path, keep="key"), tmp_path / "died")
    rows = ray.data.from_pandas(table).repartition(2)
    answers = rows.map_batches(scorer, batch_size=BATCH, batch_format=batch_format)
    compare(answers.to_pandas(), tmp_path / "died")


def test_rows_in_one_column(table, path, compare, tmp_path):
    X = table[["a", "b", "c"]].to_numpy()
    rows = [{"data": row, "key": key} for key, row in enumerate(X)]
    answers = ray.data.from_items(rows).map_batches(
        Scorer(path, columns="data", keep="key")
    )  # no wrapper: the scorer itself
    (tmp_path / "died").touch()
    compare(answers.to_pandas(), tmp_path / "died")


def test_an_error_of_a_worker_is_told(table, path):
    answers = ray.data.from_pandas(table.drop(columns="b")).map_batches(Scorer(path))
    with pytest.raises(Exception, match="lacks 'b'.*Rename them, or pass columns="):
        answers.materialize()
