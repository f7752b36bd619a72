"""A VAE on 8x8 digits with each posterior of `VAEDensity`: the bounds of the test images' log-likelihood, and the time.

    python examples/studies/posteriors.py [--quick] [--results DIR]

Every fit has the same decoder, encoder, number of epochs and learning rate, and three seeds; flows have 4 steps. Of
each the mean over the test images of two bounds, nats: the evidence lower bound (64 draws of z, averaged) and the
importance-weighted bound of 64 draws. Intervals are Student's over the seeds, at 95 %; a gain is paired by seed. Times
are of the processor, one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from shared import t_interval

from flowdetect import VAEDensity, load_images

POSTERIORS = "gaussian", "planar", "radial", "iaf", "realnvp"
N_DRAWS = 64


class Size(NamedTuple):
    """How much is computed."""

    n_seeds: int
    max_epochs: int
    n_train: int
    n_test: int


FULL, QUICK = Size(3, 40, 1297, 500), Size(2, 2, 300, 60)


@torch.no_grad()
def bounds(density: VAEDensity, X: np.ndarray) -> tuple[float, float]:
    """Give the mean evidence lower bound of some images and their mean importance-weighted bound, nats."""
    model, generator = density.model_, torch.Generator().manual_seed(0)
    x = density.spec_.to_tensor(X.reshape(len(X), -1), "cpu")
    log_w = model.log_prob_draws(x, None, torch.rand(N_DRAWS, len(x), model.n_noise, generator=generator)).double()
    return log_w.mean().item(), (log_w.logsumexp(0) - math.log(N_DRAWS)).mean().item()


def measure(posterior: str, seed: int, X: np.ndarray, X_test: np.ndarray, size: Size) -> dict[str, float]:
    """Fit and score one VAE."""
    density = VAEDensity(
        n_bins=17,
        posterior=posterior,
        latent_dim=8,
        hidden_channels=8,
        max_epochs=size.max_epochs,
        early_stopping=False,
        random_state=seed,
    )
    started = time.process_time()
    density.fit(X)
    fitted = time.process_time()
    elbo, weighted = bounds(density, X_test)
    return {
        "elbo": elbo,
        "bound": weighted,
        "fit_seconds": fitted - started,
        "score_seconds": time.process_time() - fitted,
    }


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Intervals of each posterior's bounds and times, and of its gains on the Gaussian one."""
    found: dict[str, dict[str, list[float]]] = {}
    for posterior, of_seeds in runs.items():
        found[posterior] = {key: t_interval([run[key] for run in of_seeds]) for key in of_seeds[0]}
        for key in ("elbo", "bound"):
            pairs = zip(of_seeds, runs["gaussian"], strict=True)
            found[posterior][f"{key}_gain"] = t_interval([run[key] - plain[key] for run, plain in pairs])
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Lay the summary out."""
    lines = [
        f"{'posterior':10} {'ELBO':>24} {'bound of 64 draws':>24} {'gain of the ELBO':>24} "
        f"{'gain of the bound':>24} {'fit, s':>7} {'score, s':>8}"
    ]
    for posterior, values in found.items():
        cells = ["{:8.2f} ({:.2f} .. {:.2f})".format(*values[key]) for key in ("elbo", "bound")]
        gains = ["{:+.2f} ({:+.2f} .. {:+.2f})".format(*values[f"{key}_gain"]) for key in ("elbo", "bound")]
        lines.append(
            f"{posterior:10} "
            + " ".join(f"{cell:>24}" for cell in cells + gains)
            + f" {values['fit_seconds'][0]:7.1f} {values['score_seconds'][0]:8.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 seeds, 2 epochs, 300 images")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    torch.set_num_threads(1)
    X, X_test = load_images("digits")[0][: size.n_train], load_images("digits", split="test")[0][: size.n_test]
    runs: dict[str, list[dict[str, float]]] = {posterior: [] for posterior in POSTERIORS}
    for seed in range(size.n_seeds):
        for posterior in POSTERIORS:
            runs[posterior].append(measure(posterior, seed, X, X_test, size))
            print(seed, posterior, runs[posterior][-1], flush=True)
    found, folder = summary(runs), Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "posteriors.json").write_text(
        json.dumps({"size": size._asdict(), **found, "runs": runs}, indent=1) + "\n"
    )
    (folder / "posteriors.txt").write_text(table(found) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
