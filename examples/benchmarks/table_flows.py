"""Flows on a table of 100,000 x 10 beside those of other libraries: rows a second of training, scoring and sampling.

    python examples/benchmarks/table_flows.py [--quick] [--threads 1 2] [--kind "affine couplings" ...] [--rounds 6]
        [--out FILE]

Three kinds, each at one size in all libraries: autoregressive splines and autoregressive affine maps (three transforms,
two hidden layers of 64) and affine couplings (six of them). Batches of 256 of the curved columns of `tables_zuko.py`,
standardised. Ours trains by `fit`, with all that it does beside (clipping, averaged weights); peers take steps of Adam.
Then scikit-learn's `KernelDensity` and `GaussianMixture` (10 components, full covariances): seconds of fit and of
scoring, and test nats beside those of our default densities. `tables_zuko.py` compares likelihoods at equal time.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import peers
import rivals
import side_by_side as side
import torch
from peers_tables import HIDDEN, N_COUPLINGS, N_TRANSFORMS, TABLES
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from tables_zuko import rows

from flowdetect import MAFDensity, RealNVPDensity
from flowdetect._threads import torch_threads

SEED, BATCH, PEAK, PIECES = 0, 256, 1e-3, (256, 2048, 16_384)
N_KERNEL_TEST = 200  # rows scored by KernelDensity, which looks at all training rows for each


def ours(kind: str, n_epochs: int) -> Any:
    """Our density of a kind."""
    common = {"batch_size": BATCH, "max_epochs": n_epochs, "early_stopping": False, "random_state": SEED}
    common |= {"preprocessing": "linear"}
    if kind == "affine couplings":
        sizes = {"n_steps": N_COUPLINGS // 2, "hidden_channels": HIDDEN, "n_blocks": 1, "coupling": "affine"}
        return RealNVPDensity(**common, **sizes)
    univariate = kind.split()[0]
    net = (HIDDEN, HIDDEN)
    return MAFDensity(n_transforms=N_TRANSFORMS, hidden_features=net, univariate=univariate, **common)


def compare(kind: str, n_steps: int, n_scored: int, n_rounds: int) -> dict[str, Any]:
    """Compare training, scoring and sampling of one kind."""
    X = rows(max(n_steps * BATCH, n_scored), 0)
    X = (X - X.mean(0)) / X.std(0)
    x = torch.from_numpy(X.astype(np.float32))
    torch.manual_seed(SEED)
    makers = peers.available(TABLES[kind], list(TABLES[kind]))
    others = {name: rivals.Rival(make(X.shape[1]), x, BATCH, PEAK, PIECES) for name, make in makers.items()}
    blocks = {name: partial(rival.train, n_steps) for name, rival in others.items()}
    density = ours(kind, 1 + n_rounds)
    seconds = side.train_in_turn(density, X[: n_steps * BATCH], blocks)
    found = {"training": side.compared(seconds, n_steps * BATCH)}
    scored, n_sampled = X[:n_scored], n_scored // 4
    works = {
        "scoring": lambda: density.score_samples(scored),
        "sampling": lambda: density.sample(n_sampled, random_state=SEED),
    }
    return found | rivals.score_and_sample(works, others, x[:n_scored], n_sampled, n_rounds)


def estimators(n_rows: int, n_rounds: int) -> dict[str, Any]:
    """Compare scoring with scikit-learn's densities, and give seconds of fit and test nats of each."""
    X, X_test = rows(n_rows, 0), rows(10_000, 1)
    bandwidth = n_rows ** (-1 / (X.shape[1] + 4)) * X.std()
    makers = {
        "RealNVPDensity": RealNVPDensity(random_state=SEED, time_limit=60 if n_rows > 1000 else 1),
        "MAFDensity": MAFDensity(random_state=SEED, time_limit=60 if n_rows > 1000 else 1),
        "GaussianMixture": GaussianMixture(10, random_state=SEED),
        "KernelDensity": KernelDensity(bandwidth=bandwidth),
    }
    found: dict[str, Any] = {}
    for name, density in makers.items():
        fitted = side.seconds_of(partial(density.fit, X))
        few = X_test[:N_KERNEL_TEST] if name == "KernelDensity" else X_test
        scoring = side.in_turn({side.OURS: partial(density.score_samples, few)}, n_rounds)
        rate = side.rates(scoring, len(few))[side.OURS]
        nats = float(np.mean(density.score_samples(few)))
        found[name] = {"fit_seconds": round(fitted, 2), "scores_per_second": rate, "nats": round(nats, 3)}
        print(name, found[name], flush=True)
    return found


def main() -> None:
    """Run the benchmark, print a line a comparison and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--kind", nargs="+", choices=[*TABLES, "estimators"], default=[*TABLES, "estimators"])
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    n_steps, n_scored, n_rows, n_rounds = (2, 512, 500, 2) if args.quick else (40, 20_000, 100_000, args.rounds)
    results = []
    for n in args.threads:
        with torch_threads(n):
            for kind in args.kind:
                if kind == "estimators":
                    results.append({"kind": kind, "threads": n, **estimators(n_rows, n_rounds)})
                    continue
                found = compare(kind, n_steps, n_scored, n_rounds)
                for what, comparison in found.items():
                    side.told(f"{kind}, {n} thread(s): {what}", comparison)
                results.append({"kind": kind, "threads": n, **found})
    side.keep(args.out, "table_flows", args.quick, results)


if __name__ == "__main__":
    main()
