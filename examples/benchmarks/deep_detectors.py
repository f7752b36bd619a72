"""pyod's deep detectors beside our VAE at equal size on a table: rows a second of fitting an epoch and of scoring.

    python examples/benchmarks/deep_detectors.py [--quick] [--threads 1 2] [--rounds 5] [--out FILE]

20,000 rows of the ten curved columns of `tables_zuko.py`, batches of 256, 4 epochs a fit. pyod's VAE has encoder and
decoder of three layers of 128 and 10 latents, ours the same (a residual block is two of them); AutoEncoder and DeepSVDD
have layers of 128, too. Numbers of parameters are printed. A fit is a whole one: of pyod with the scores of all
training rows, which it computes at its end, of ours with averaged weights and clipping.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import partial
from typing import Any

import side_by_side as side
from tables_zuko import rows

from flowdetect import VAEDensity
from flowdetect._threads import torch_threads

SEED, BATCH, WIDTH, LATENTS, N_EPOCHS = 0, 256, 128, 10, 4


def quietly(function: Any) -> None:
    """Call what prints a line an epoch."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        function()


def detectors(n_columns: int) -> dict[str, Any]:
    """pyod's, and ours as a density."""
    from pyod.models.auto_encoder import AutoEncoder
    from pyod.models.deep_svdd import DeepSVDD
    from pyod.models.vae import VAE

    layers = [WIDTH] * 3
    common = {"batch_size": BATCH, "random_state": SEED, "verbose": 0}
    vae = {"encoder_neuron_list": layers, "decoder_neuron_list": layers, "latent_dim": LATENTS}
    return {
        side.OURS: VAEDensity(
            hidden_channels=WIDTH // 4,
            n_blocks=1,
            latent_dim=LATENTS,
            batch_size=BATCH,
            max_epochs=N_EPOCHS,
            early_stopping=False,
            random_state=SEED,
        ),
        "pyod VAE": VAE(epoch_num=N_EPOCHS, device="cpu", **vae, **common),
        "pyod AutoEncoder": AutoEncoder(epoch_num=N_EPOCHS, device="cpu", hidden_neuron_list=layers, **common),
        "pyod DeepSVDD": DeepSVDD(n_columns, epochs=N_EPOCHS, hidden_neurons=[WIDTH, WIDTH], **common),
    }


def n_parameters(detector: Any) -> int:
    """Count what was trained."""
    found = next(getattr(detector, name) for name in ("model_", "model") if getattr(detector, name, None) is not None)
    module = getattr(found, "model", found)
    return sum(parameter.numel() for parameter in module.parameters())


def compare(n_rows: int, n_rounds: int) -> dict[str, Any]:
    """Fit and score all in turn."""
    X = rows(n_rows, 0)
    found: dict[str, Any] = {}
    them = detectors(X.shape[1])
    fits = {name: partial(quietly, partial(detector.fit, X)) for name, detector in them.items()}
    found["fitting"] = side.compared(side.in_turn(fits, n_rounds), n_rows * N_EPOCHS)
    scorings = {name: detector.decision_function for name, detector in them.items() if name != side.OURS}
    works = {side.OURS: partial(them[side.OURS].score_samples, X)}
    works |= {name: partial(quietly, partial(score, X)) for name, score in scorings.items()}
    found["scoring"] = side.compared(side.in_turn(works, n_rounds), n_rows)
    found["parameters"] = {name: n_parameters(detector) for name, detector in them.items()}
    return found


def main() -> None:
    """Run the benchmark, print a line a comparison and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    n_rows, n_rounds = (600, 1) if args.quick else (20_000, args.rounds)
    results = []
    for n in args.threads:
        with torch_threads(n):
            found = compare(n_rows, n_rounds)
            for what in ("fitting", "scoring"):
                side.told(f"{n} thread(s): {what}", found[what])
            print("parameters", found["parameters"])
            results.append({"threads": n, **found})
    side.keep(args.out, "deep_detectors", args.quick, results)


if __name__ == "__main__":
    main()
