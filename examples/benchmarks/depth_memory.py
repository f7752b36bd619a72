"""Peak memory and time of training a Glow against its depth: plain, memory_efficient=True, and normflows'.

    python examples/benchmarks/depth_memory.py [--quick] [--threads 1] [--out FILE]

8 and 32 steps a level, networks of 128 channels, three steps on a batch of 64 images: 28x28 at 2 levels, 32x32 and
32x32x3 at 3. "peak": by how many MB memory rose above what the process held before, at most, each from a process of its
own; "beside_state": without weights, gradients and Adam's moments, and in ours the averaged weights. "time": that of a
step, memory-efficient by plain, the two in turn in one process. "large": 4 images of 512x512x3, the peak of the whole
process with its libraries, and seconds of a step and of scoring one image.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
import warnings
from functools import partial
from typing import Any

import flows
import numpy as np
import peers
import rivals
import side_by_side as side
import torch
from peers import Size

from flowdetect.bijections.chain import set_memory_efficient
from flowdetect.density._memory import freed_memory_kept
from flowdetect.nets import set_training_dtype

CASES = {"28x28": ((1, 28, 28), 2), "32x32": ((1, 32, 32), 3), "32x32x3": ((3, 32, 32), 3)}
DEPTHS, BATCH, HIDDEN, N_STEPS = (8, 32), 64, 128, 3
LITTLE, NORMFLOWS = "memory_efficient", "normflows"
LARGE, N_LARGE = (3, 512, 512), 4
COPIES = 5  # of the weights that our training makes: with their average, gradients and two moments


def density(size: Size, batch: int, little: bool, max_epochs: int = N_STEPS) -> Any:
    """Make ours, to be trained for a step an epoch."""
    return flows.glow(size, "auto", max_epochs).set_params(batch_size=batch, memory_efficient=little)


def peak(name: str, size: Size, batch: int) -> dict[str, float]:
    """Train in this process; MB."""
    X = flows.images(size, batch)
    if name == NORMFLOWS:
        torch.manual_seed(0)
        x, model = flows.tensor(X) / 256, peers.GLOWS[name][1](size)
        rivals.Rival(copy.deepcopy(model), x[:2], 2, flows.PEAK, (2,)).train(1)  # loads what a step needs
        found = side.peak_of(partial(rivals.Rival(model, x, batch, flows.PEAK, (batch,)).train, N_STEPS))
        n_copies = COPIES - 2  # the weights were there before
    else:
        density(Size(size.shape, 1, 1, 4), 2, False, 1).fit(X[:2])  # imports what a fit imports
        fitted = density(size, batch, name == LITTLE)
        found, model = side.peak_of(partial(fitted.fit, X)), None
        model, n_copies = fitted.model_, COPIES
    state = n_copies * sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    return {"peak": round(found, 1), "beside_state": round(found - state, 1)}


def times(size: Size, batch: int, n_rounds: int) -> dict[str, Any]:
    """Time steps of training, plain and memory-efficient, in turn."""
    X = flows.images(size, batch)
    fitted = density(size, batch, False, 1).fit(X)
    x = fitted.spec_.to_tensor(X.reshape(batch, -1).astype(np.float64), "cpu")
    noise = torch.rand(batch, fitted.model_.n_noise)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        (-model(x, None, noise).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    blocks = {}
    for name in (side.OURS, LITTLE):
        model = copy.deepcopy(fitted.model_).train()
        set_training_dtype(model, torch.bfloat16)
        set_memory_efficient(model, name == LITTLE)
        blocks[name] = partial(step, model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True))
    with freed_memory_kept():
        seconds = side.in_turn(blocks, n_rounds)
    ratios = [little / plain for plain, little in zip(seconds[side.OURS], seconds[LITTLE], strict=True)]
    return {"ratio": side.spread(ratios), "seconds": {name: side.spread(values) for name, values in seconds.items()}}


def large(size: Size) -> dict[str, float]:
    """Train on few large images in this process, and score one."""
    X = flows.images(size, N_LARGE)
    started = time.perf_counter()
    fitted = density(size, N_LARGE, True).fit(X)
    seconds = time.perf_counter() - started
    whole = side._status("VmHWM")
    scoring = side.seconds_of(partial(fitted.score_samples, X[:1]))
    step = float(np.median(fitted.history_["seconds"]))
    return {"process_peak": whole, "fit_seconds": seconds, "step_seconds": step, "score_seconds": scoring}


def in_own_process(what: str, case: str, n_steps: int, name: str, quick: bool) -> dict[str, Any]:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--one", what, case, str(n_steps), name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(what: str, case: str, n_steps: int, name: str, quick: bool) -> dict[str, Any]:
    """Measure one thing in this process."""
    if what == "large":
        return large(Size((3, 64, 64) if quick else LARGE, 3, 1 if quick else 8, 8 if quick else HIDDEN))
    shape, n_levels = CASES[case]
    size, batch = Size(shape, n_levels, n_steps, 8 if quick else HIDDEN), 8 if quick else BATCH
    return times(size, batch, 2 if quick else 10) if what == "time" else peak(name, size, batch)


def main() -> None:
    """Run every measurement, print a line each and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--one", nargs=4, metavar=("WHAT", "CASE", "STEPS", "NAME"), help="one measurement, as JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads[0])
    if args.one:
        what, case, n_steps, name = args.one
        print(json.dumps(measured(what, case, int(n_steps), name, args.quick)))
        return
    depths, cases = ((1, 2), ["28x28"]) if args.quick else (DEPTHS, list(CASES))
    names = [side.OURS, LITTLE, *peers.available(peers.GLOWS, [NORMFLOWS])]
    results: list[dict[str, Any]] = []
    for case in cases:
        for n_steps in depths:
            line: dict[str, Any] = {"case": case, "steps": n_steps}
            line["memory"] = {name: in_own_process("peak", case, n_steps, name, args.quick) for name in names}
            line["time"] = in_own_process("time", case, n_steps, LITTLE, args.quick)
            results.append(line)
            print(line, flush=True)
    results.append({"case": "large", **in_own_process("large", "large", 0, LITTLE, args.quick)})
    print(results[-1], flush=True)
    side.keep(args.out, "depth_memory", args.quick, results)


if __name__ == "__main__":
    main()
