"""The papers' sizes on a GPU: images a second of training, peak memory, and the share of the card's matrix rate.

    python examples/benchmarks/gpu.py [--quick] [--device cuda] [--steps 50] [--only Glow ...]
        [--precision auto float32] [--out FILE]

32x32x3 images, as of CIFAR-10 in shape. "Glow": 3 levels of 32 steps, networks of 512 channels, batches of 64.
"PixelCNN++": 160 filters, 5 blocks a stage, 10 mixtures, all shortcuts, dropout 0.5, batches of 16. A first epoch of as
many steps does not count. The share is that of the fastest product of two matrices of 8,192 x 8,192 in the same run, in
the format that the networks compute in; a step is counted as three times the operations of a score. With --quick the
models are tiny, and run where there is no card, too: it shows that the script works, and nothing else.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import flows
import limits
import side_by_side as side
import torch
from peers import Size

from flowdetect import GlowDensity, PixelCNNDensity
from flowdetect._threads import torch_threads
from flowdetect.density._devices import resolve_device, resolve_precision

SEED, SHAPE, PRODUCT = 0, (3, 32, 32), (8192, 8192, 8192)
TINY_SHAPE, TINY_PRODUCT = (3, 8, 8), (64, 64, 64)


def densities(quick: bool) -> dict[str, Any]:
    """Give the papers' models."""
    glow = {"n_levels": 3, "n_steps": 32, "hidden_channels": 512, "batch_size": 64}
    pixelcnn = {"n_filters": 160, "n_blocks": 5, "n_mixtures": 10, "shortcuts": "all", "dropout": 0.5, "batch_size": 16}
    if quick:
        glow |= {"n_levels": 2, "n_steps": 1, "hidden_channels": 4, "batch_size": 8}
        pixelcnn |= {"n_filters": 4, "n_blocks": 1, "n_mixtures": 2, "batch_size": 8}
    return {"Glow": GlowDensity(**glow), "PixelCNN++": PixelCNNDensity(variant="pixelcnn++", **pixelcnn)}


def peak_memory(fit: Any, device: str) -> float:
    """MB that a fit takes at most: of the card's memory, or by how much this process grows."""
    if not device.startswith("cuda"):
        return side.peak_of(fit)
    torch.cuda.reset_peak_memory_stats()
    fit()
    return torch.cuda.max_memory_allocated() / 1e6


def measured(density: Any, precision: str, device: str, n_steps: int, quick: bool) -> dict[str, Any]:
    """Train two epochs of so many steps, score as many images as a batch has, and give the figures."""
    X = flows.images(Size(TINY_SHAPE if quick else SHAPE, 1, 1, 1), n_steps * density.batch_size)
    density.set_params(max_epochs=2, early_stopping=False, precision=precision, device=device, random_state=SEED)
    memory = peak_memory(partial(density.fit, X), device)
    per_second = len(X) / density.history_["seconds"][-1]
    form = resolve_precision(precision, device)
    found = limits.of_the_machine(TINY_PRODUCT if quick else PRODUCT, quick, device)
    operations = 3 * limits.operations_of_a_score(density, X)
    scored = X[: density.batch_size]
    scoring = side.in_turn({side.OURS: partial(density.score_samples, scored)}, 3)[side.OURS]
    return {
        "format": form,
        "steps": n_steps,
        "batch": density.batch_size,
        "parameters": sum(parameter.numel() for parameter in density.model_.parameters()),
        "images_per_second": float(f"{per_second:.4g}"),
        "scores_per_second": float(f"{len(scored) / min(scoring):.4g}"),
        "peak_MB": round(memory, 1),
        "GFLOP/s": float(f"{per_second * operations / 1e9:.4g}"),
        "of the limit": float(f"{per_second * operations / 1e9 / found[f'{form} GFLOP/s']:.3g}"),
        "limits": found,
    }


def main() -> None:
    """Train what is wanted, print a line each and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=list(densities(True)), default=list(densities(True)))
    parser.add_argument("--precision", nargs="+", default=["auto"])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    device, n_steps = resolve_device(args.device), 2 if args.quick else args.steps
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{args.threads[0]} CPU thread(s)"
    print(f"on {name}")
    results = []
    with torch_threads(args.threads[0]):
        for precision in args.precision:
            for model in args.only:
                found = measured(densities(args.quick)[model], precision, device, n_steps, args.quick)
                results.append({"model": model, "device": name, "precision": precision, **found})
                print(results[-1], flush=True)
    side.keep(args.out, "gpu", args.quick, results)


if __name__ == "__main__":
    main()
