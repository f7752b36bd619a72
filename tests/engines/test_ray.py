import numpy as np
import pytest
from dying import DyingScorer

from flowdetect import GlowDensity, Scorer, load_images

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


@pytest.mark.parametrize("batch_format", ["default", "pandas", "pyarrow"])
def test_images(batch_format, tmp_path):
    X = load_images("digits")[0][:100]
    density = GlowDensity(n_bins=17, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0).fit(X)
    density.save(tmp_path / "glow")
    rows = ray.data.from_numpy(X).map_batches(Scorer(tmp_path / "glow", columns="data"), batch_format=batch_format)
    found = np.sort(rows.to_pandas()["score"].to_numpy(float))
    np.testing.assert_array_equal(found, np.sort(density.score_samples(X)))


def test_an_error_of_a_worker_is_told(table, path):
    answers = ray.data.from_pandas(table.drop(columns="b")).map_batches(Scorer(path))
    with pytest.raises(Exception, match="lacks 'b'.*Rename them, or pass columns="):
        answers.materialize()
