import pytest
from dying import DyingScorer

from flowdetect import Scorer

pytest.importorskip("pyspark")


def rows(spark, table):
    cells = table.astype(object).to_numpy().tolist()
    return spark.createDataFrame(cells, ", ".join(f"{name} double" for name in "abc") + ", key bigint").repartition(2)


@pytest.mark.parametrize("method", ["mapInPandas", "mapInArrow"])
def test_map_in_frames_and_a_killed_worker(method, spark, table, path, compare, tmp_path):
    scorer = Scorer(path, keep="key")
    dying = DyingScorer(scorer, tmp_path / "died")
    answers = getattr(rows(spark, table), method)(dying.map_frames, schema=f"key bigint, {scorer.schema}")
    compare(answers.toPandas(), tmp_path / "died")


def test_rows_in_a_column_of_arrays_and_an_empty_partition(spark, table, path, compare, tmp_path):
    cells = [[row[:3].tolist(), int(row[3])] for row in table.to_numpy()]
    frame = spark.createDataFrame(cells, "x array<double>, key bigint").repartition(3).where("key >= 0")
    scorer = Scorer(path, columns="x", keep="key", n_threads=1)
    (tmp_path / "died").touch()
    answers = frame.mapInPandas(scorer.map_frames, schema=f"key bigint, {scorer.schema}")
    compare(answers.toPandas(), tmp_path / "died")
    none = frame.where("key < 0").mapInPandas(scorer.map_frames, schema=f"key bigint, {scorer.schema}")
    assert none.count() == 0


def test_an_error_of_a_worker_is_told(spark, table, path):
    scorer = Scorer(path)
    answers = rows(spark, table).drop("b").mapInPandas(scorer.map_frames, schema=scorer.schema)
    with pytest.raises(Exception, match=r"lacks 'b'[\s\S]*pass columns="):
        answers.collect()
