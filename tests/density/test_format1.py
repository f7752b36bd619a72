"""Files that flowdetect 0.1.0 wrote (format 1) load, and give what they gave.

tests/data holds fits of that version, some rows, and its answers on one machine. There, today's scores, samples,
latents and terms are the same bit for bit; on other processors the last bits may differ.
"""

from pathlib import Path

import numpy as np
import pytest

from flowdetect import load

DATA = Path(__file__).parents[1] / "data"
ANSWERS = dict(np.load(DATA / "answers.npz"))
QUESTIONS = {
    "scores": lambda density, X, y: density.score_samples(X),
    "scores_y": lambda density, X, y: density.score_samples(X, y),
    "sample": lambda density, X, y: density.sample(70, random_state=1)[:10],
    "z": lambda density, X, y: density.transform(X),
    "terms.log_pz": lambda density, X, y: density.likelihood_terms(X).log_pz,
    "terms.log_px": lambda density, X, y: density.likelihood_terms(X).log_px,
}


@pytest.mark.parametrize("path", sorted(DATA.glob("*.safetensors")), ids=lambda path: path.stem)
def test_files_of_format_1_give_what_they_gave(path, tmp_path):
    own = {key.partition("/")[2]: value for key, value in ANSWERS.items() if key.startswith(f"{path.stem}/")}
    X, y = own.pop("X"), own.pop("y", None)
    assert "scores" in own
    estimator = load(path)
    estimator.save(tmp_path / "again")  # in today's format
    for loaded in (estimator, load(tmp_path / "again")):
        for what, expected in own.items():
            found = np.asarray(QUESTIONS[what](loaded, X, y))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=what)
