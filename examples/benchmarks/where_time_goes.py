"""Where the time of a training step, a score and a sample goes, and which share of the machine's limit is reached.

    python examples/benchmarks/where_time_goes.py [--quick] [--threads 1 2] [--only Glow ...] [--out FILE]

torch's profiler adds up the time that operators spend in themselves, in groups: convolutions and matrix products;
elementwise functions; copies and changes of layout; sums and other reductions; the optimiser; anything else, most of it
our own functions of autograd. What is left of the time of the same work without profiler is Python's; the profiler
lengthens small operators, so that it is rather more. The operations of convolutions and matrix products are counted (of
training three times those of a pass forward), and their rate is set beside what this machine reaches, in the same run:
the fastest product of matrices of the size that the model's largest layers have, in float32 and bfloat16, and the bytes
a second of a sum of two large arrays into a third. Training is compared with the limit of the format that its networks
compute in, the rest with that of float32.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import flows
import limits
import numpy as np
import side_by_side as side
from peers import Size
from tables_zuko import rows
from torch.profiler import ProfilerActivity, profile, record_function

from flowdetect import MAFDensity, PixelCNNDensity, RealNVPDensity, VAEDensity
from flowdetect._threads import torch_threads
from flowdetect.density._devices import resolve_precision
from flowdetect.nets import compiled

SEED = 0
GROUPS = {  # how the names of operators begin, first match
    "convolutions, products": (
        "conv convolution convolutions mkldnn_convolution slow_conv thnn_conv mm addmm bmm baddbmm linear "
        "matmul mv addmv dot einsum"
    ),
    "optimiser": ("adam adamw fused_adam fused_adamw foreach lerp optimizer"),
    "copies, layout": (
        "copy contiguous clone cat stack index gather scatter select slice permute reorder to pad empty zero "
        "fill split view reshape roll flip repeat expand narrow transpose t as_strided chunk squeeze "
        "unsqueeze resize flatten constant arange ones detach alias pixel_unshuffle pixel_shuffle "
        "channel_shuffle new"
    ),
    "reductions": (
        "sum mean norm max min amax cumsum softmax logsumexp argmax any all var logcumsumexp prod batch_norm "
        "native_batch_norm linalg_vector_norm searchsorted"
    ),
    "elementwise": (
        "add mul sub rsub div exp log tanh sigmoid relu elu threshold where clamp pow sqrt rsqrt neg "
        "reciprocal square softplus erf round floor abs sign eq ne lt gt le ge logical bitwise isfinite isnan "
        "rand normal uniform masked addcmul addcdiv maximum minimum expm1 log1p silu gelu leaky special "
        "random"
    ),
}
ALSO_COUNTED = "other"
OUTSIDE = "Python"


# ---- one measurement


def group_of(name: str) -> str:
    """Which group an operator, or a node of autograd, is of."""
    plain = name.lower().rsplit("evaluate_function: ", 1)[-1].removeprefix("aten::").lstrip("_")
    for group, words in GROUPS.items():
        if re.match(rf"(?:{words.replace(' ', '|')})(?:[12]d|backward|(?![a-z]))", plain):
            return group
    return ALSO_COUNTED


def shares(profiler: Any, seconds: float) -> dict[str, float]:
    """Shares by group of the seconds that the profiled work takes by itself; what is left is Python's."""
    spent = dict.fromkeys([*GROUPS, ALSO_COUNTED], 0.0)
    for event in profiler.key_averages():
        spent[group_of(event.key)] += event.self_cpu_time_total / 1e6
    whole = max(seconds, sum(spent.values()))
    spent[OUTSIDE] = whole - sum(spent.values())
    return {name: round(value / whole, 4) for name, value in spent.items()}


def seen_by_the_profiler(run: Callable[..., Any]) -> Callable[..., Any]:
    """Give a compiled function a name among the operators."""

    def named(*args: Any) -> Any:
        with record_function("convolutions"):
            return run(*args)

    return named


def new_profiler() -> Any:
    """Give a profiler of the operators."""
    return profile(activities=[ProfilerActivity.CPU])


class ProfiledEpoch:
    """A callback that profiles one epoch of a training, the second."""

    def __init__(self) -> None:
        self.profiler, self.n_begun = new_profiler(), 0

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing to set up."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing to take down."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Start with the second epoch."""
        if context.task_name == "epoch":
            self.n_begun += 1
            if self.n_begun == 2:
                self.profiler.__enter__()

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Stop at its end."""
        if context.task_name == "epoch" and self.n_begun == 2:
            self.profiler.__exit__(None, None, None)


class Model:
    """A density of one size and what is done with it."""

    def __init__(self, density: Any, X: np.ndarray, batch: int, n_sampled: int, product: tuple[int, int, int]) -> None:
        self.density, self.X, self.n_sampled, self.product = density, X, n_sampled, product
        self.density.set_params(batch_size=batch, max_epochs=1, early_stopping=False, random_state=SEED).fit(X)

    def train(self, n_epochs: int) -> tuple[float, Any]:
        """Seconds of the fastest epoch, and the profile of another one."""
        callback = ProfiledEpoch()
        self.density.set_params(max_epochs=2 + n_epochs).set_callbacks(callback).fit(self.X)
        self.density.set_callbacks()
        return min(self.density.history_["seconds"][2:]), callback.profiler

    def score(self) -> None:
        """Score all rows."""
        self.density.score_samples(self.X)

    def sample(self) -> None:
        """Draw some."""
        self.density.sample(self.n_sampled, random_state=SEED)


def timed(work: Callable[[], object], n_rounds: int) -> tuple[float, Any]:
    """Seconds of the fastest call after a first, and the profile of another one."""
    work()
    seconds = min(side.seconds_of(work) for _ in range(n_rounds))
    with new_profiler() as profiler:
        work()
    return seconds, profiler


def models(quick: bool) -> dict[str, Callable[[], Model]]:
    """Give the five, at the sizes of the other benchmarks, each with the size (n, k, m) of its largest product."""
    n, n_rows, length = (64, 512, 8) if quick else (256, 10_240, 28)
    X = flows.images(Size((1, length, length), 2, 1, 1), n)
    width, steps = (8, 1) if quick else (128, 8)
    filters = 8 if quick else 100
    glow = flows.glow(Size((1, length, length), 2, steps, width), "auto", 1)
    pixelcnn = PixelCNNDensity(variant="pixelcnn++", n_filters=filters, n_blocks=2, n_mixtures=3)
    table = rows(n_rows, 0)
    return {
        "Glow": lambda: Model(glow, X, 64, n, (64 * (length // 2) ** 2, width, width)),
        "PixelCNN++": lambda: Model(pixelcnn, X[: n // 4], 32, 2, (32 * length**2, 6 * filters, 2 * filters)),
        "VAE": lambda: Model(VAEDensity(), X, 64, n, (64 * length**2, 9 * 32, 32)),
        "RealNVP, table": lambda: Model(RealNVPDensity(), table, 256, n_rows // 4, (256, 64, 64)),
        "MAF, table": lambda: Model(MAFDensity(), table, 256, n_rows // 20, (256, 64, 64 * 3)),
    }


def measured(model: Model, quick: bool) -> dict[str, Any]:
    """Rates, shares and the share of the limit of each case."""
    n_rounds, n, n_sampled, of_score = (
        1 if quick else 3,
        len(model.X),
        model.n_sampled,
        limits.operations_of_a_score(model.density, model.X),
    )
    rates = limits.of_the_machine(model.product, quick)
    half = resolve_precision("auto", "cpu") == "bfloat16"
    cases = {  # seconds and profile, rows, operations of a row, format
        "training": (model.train(n_rounds), n, 3 * of_score, "bfloat16" if half else "float32"),
        "scoring": (timed(model.score, n_rounds), n, of_score, "float32"),
        "sampling": (timed(model.sample, n_rounds), n_sampled, limits.counted(model.sample) / n_sampled, "float32"),
    }
    found: dict[str, Any] = {"limits": rates}
    for name, ((seconds, profiler), n_done, operations, form) in cases.items():
        reached = n_done * operations / seconds / 1e9
        found[name] = {
            "per_second": float(f"{n_done / seconds:.4g}"),
            "GFLOP/s": float(f"{reached:.4g}"),
            "of the limit": float(f"{reached / rates[f'{form} GFLOP/s']:.3g}"),
            "format": form,
            "shares": shares(profiler, seconds),
        }
    return found


def main() -> None:
    """Profile all models, print a line a case and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--only", nargs="+", help="names of models, such as Glow")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    compiled._run = seen_by_the_profiler(compiled._run)
    results = []
    for n_threads in args.threads:
        with torch_threads(n_threads):
            for name, make in models(args.quick).items():
                if args.only and name.split(",")[0] not in args.only:
                    continue
                found = measured(make(), args.quick)
                results.append({"model": name, "threads": n_threads, **found})
                print(name, found.pop("limits"))
                for case, figures in found.items():
                    print(f"  {case}: {figures}", flush=True)
    side.keep(args.out, "where_time_goes", args.quick, results)


if __name__ == "__main__":
    main()
