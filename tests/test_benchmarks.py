"""The benchmarks' parts: blocks in turn, ratios, slopes; kept results are whole, and the page's tables are theirs."""

import datetime
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from flowdetect import MAFDensity

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def in_the_folder():
    """Let the scripts find each other, as when one of them is run."""
    pytest.importorskip("zuko")  # of which tables_zuko.py compares
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def test_blocks_run_in_turn_and_the_first_round_does_not_count():
    import side_by_side as side

    calls = []
    seconds = side.in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert "".join(calls) == "abababab"
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_ratios_are_of_blocks_of_one_round():
    import side_by_side as side

    found = side.ratios({side.OURS: [1.0, 2.0, 4.0], "other": [3.0, 2.0, 8.0]})
    assert found == {"other": {"median": 2.0, "low": 1.0, "high": 3.0}}


def test_a_rival_trains_after_each_epoch_of_ours():
    import side_by_side as side
    import torch

    gradients = []
    X = np.random.default_rng(0).normal(size=(60, 2))
    density = MAFDensity(n_transforms=1, hidden_features=(4,), max_epochs=3, early_stopping=False, random_state=0)
    seconds = side.train_in_turn(density, X, {"rival": lambda: gradients.append(torch.is_grad_enabled())})
    assert gradients == [True] * 3
    assert len(seconds["rival"]) == len(seconds[side.OURS]) == 2
    assert min(seconds[side.OURS]) > 0


def test_a_slope_is_that_of_the_times():
    import slopes

    found = slopes.measured({n: lambda n=n: 0.01 * n**1.5 for n in (2, 8, 32)}, 2)
    assert found["slope"]["median"] == pytest.approx(1.5, abs=1e-3)


def test_the_time_to_some_bits_is_read_off_the_curve():
    from time_to_bits import time_to

    curve = [(1.0, 4.0), (4.0, 3.0)]
    assert time_to(3.5, curve) == pytest.approx(2.0)  # half of the way, on log time
    assert time_to(4.5, curve) == 1.0
    assert time_to(2.0, curve) is None


@pytest.mark.parametrize(
    ("operator", "group"),
    [
        ("aten::mkldnn_convolution", "convolutions, products"),
        ("autograd::engine::evaluate_function: AddmmBackward0", "convolutions, products"),
        ("ConvolutionsBackward", "convolutions, products"),
        ("aten::add_", "elementwise"),
        ("aten::_fused_adamw_", "optimiser"),
        ("aten::copy_", "copies, layout"),
        ("aten::sum", "reductions"),
        ("aten::conv2d", "convolutions, products"),
        ("SomeOtherFunction", "other"),
    ],
)
def test_operators_are_put_into_groups(operator, group):
    from where_time_goes import group_of

    assert group_of(operator) == group


def test_the_script_for_a_gpu_runs_anywhere(tmp_path, monkeypatch, capsys):
    import gpu

    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", "--device", "cpu", "--only", "Glow", "--out", str(out)])
    gpu.main()
    kept = json.loads(out.read_text())
    assert kept["quick"]
    assert kept["results"][0]["images_per_second"] > 0
    assert 0 < kept["results"][0]["of the limit"] < 10
    assert "Glow" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["Glow", "PixelCNN++"])
def test_the_papers_sizes_train_on_a_gpu(model, monkeypatch, capsys):
    import gpu

    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cuda", "--steps", "3", "--only", model])
    gpu.main()
    assert "'device': 'NVIDIA" in capsys.readouterr().out


def test_the_tables_of_the_page_are_those_of_the_kept_results():
    import results

    pages = "".join((BENCHMARKS.parents[1] / "docs" / "measured" / f"{name}.rst").read_text() for name in PAGES)
    for name, text in results.tables(results.FOLDER).items():
        written = (results.FOLDER / name).read_text()
        assert written == text, f"{name}: run python examples/benchmarks/draw_results.py"
        assert f"benchmarks/{name}" in pages
    pictures = re.findall(r"image:: (benchmarks/\S+)", pages)
    assert not [path for path in pictures if not (results.FOLDER.parent / path).is_file()]


PAGES = ("speed", "where_time_goes")


def test_the_history_is_well_formed_and_ends_with_what_is_kept():
    import results

    last = {}
    for line in results.history(results.FOLDER):
        datetime.datetime.strptime(line["date"], "%Y-%m-%d %H:%M")  # noqa: DTZ007, the dates are UTC
        assert re.fullmatch(r"[0-9a-f]{7,40}", line["commit"])
        assert line["machine"]["processor"]
        assert line["threads"] >= 1
        assert line["ratios"]
        for spread in line["ratios"].values():
            assert 0 < spread["low"] <= spread["median"] <= spread["high"] < math.inf
        last[line["benchmark"], line["threads"]] = line["date"], line["ratios"]
    assert last
    for found in results.read_all(results.FOLDER):
        assert not found.get("quick")
        if ratios := dict(results.ratios(found)):
            assert last[found["benchmark"], found["threads"]] == (found["date"], ratios)
