"""The training loop of all densities, on lightning-fabric.

Everything random is a function of the seed and a counter (the order of the rows: the epoch; the noise: the step), and
all state is in one place, so a training that was killed goes on bit for bit where its last checkpoint stands.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowdetect import _persistence
from flowdetect._images import draw_seed
from flowdetect.density._checkpoint import Checkpoint
from flowdetect.density._devices import resolve_device, resolve_precision
from flowdetect.density._interruption import Interruption
from flowdetect.density._memory import freed_memory_kept
from flowdetect.density.base import BaseDensity
from flowdetect.density.model import DensityModel
from flowdetect.nets import set_training_dtype

GRADIENT_CLIP = 1.0  # norm of the gradient of bits/dim
WARM_UP = 0.1  # share of the steps, linear
EMA_DECAY = 0.99
AUTO_STEPS, AUTO_MAX_EPOCHS = 4000, 500
MIN_ROWS_TO_HOLD_OUT = 20
MAX_SKIPPED = 20  # non-finite steps in a row that end training
CHECKPOINT_SECONDS = 60.0
HISTORY = ("bits_per_dim", "validation_bits_per_dim", "skipped_steps", "seconds")
COUNTERS = (
    *("epoch", "batch", "step", "stale", "skipped", "skipped_in_a_row"),
    *("bits_sum", "best_bits", "finished", "history"),
)
Batch = tuple[Tensor, Tensor | None, Tensor | None]  # x, context, noise
INITIAL, SPLIT, ORDER, NOISE, SCORING, DROPOUT = range(6)  # streams of randomness


def stream(seed: int, kind: int, counter: int = 0) -> int:
    """Derive the seed of one stream of randomness, e.g. the noise of one step."""
    return int(np.random.SeedSequence([seed, kind, counter]).generate_state(1, np.uint64)[0] >> 1)


def fit_model(
    density: BaseDensity, rows: NDArray[Any], codes: NDArray[np.int64] | None, seed: int | None = None
) -> None:
    """Train a density's module on checked rows; the density is left fitted, also after an interruption or a failure.

    The seed is that of an earlier run of the same training, else the given one, else drawn from random_state.
    """
    checkpoint = None if density.checkpoint is None else Checkpoint(density.checkpoint, density, rows, codes)
    density.device_ = resolve_device(density.device)
    fabric = new_fabric(density)
    if checkpoint is not None and checkpoint.found:
        density.seed_ = checkpoint.found["seed"]
    elif not (density.warm_start and "model_" in density.__dict__):
        density.seed_ = draw_seed(density.random_state) if seed is None else seed
    density._prepare(rows, codes, None if checkpoint is None or not checkpoint.found else checkpoint.arrays)
    density.noise_seed_ = stream(density.seed_, SCORING)
    training = Training(density, rows, codes)
    if checkpoint is not None and checkpoint.found:
        training.restore(checkpoint.found, checkpoint.arrays)
    failure: BaseException | None = None
    try:
        if density.n_devices == 1:
            failure = training.run(fabric, checkpoint)
        else:
            failure = train_elsewhere(fabric, training, checkpoint)
    finally:
        density.model_ = training.best_model()
        density.history_ = training.history
        density.n_iter_ = training.epoch
    if failure is not None:
        raise failure


def new_fabric(density: BaseDensity) -> Any:
    """Lightning Fabric on the density's device, or on n_devices of its kind with one process each."""
    from lightning_fabric import Fabric

    kind, _, index = density.device_.partition(":")
    if density.n_devices == 1:
        return Fabric(accelerator=kind, devices=[int(index)] if index else 1, precision="32-true")
    there = {"cuda": torch.cuda.device_count(), "cpu": os.cpu_count() or 1}.get(kind, 1)
    if density.n_devices > there:
        raise ValueError(
            f"n_devices={density.n_devices}, but there are {there} of device {kind!r}; pass n_devices={there}."
        )
    return Fabric(accelerator=kind, devices=density.n_devices, strategy="ddp_spawn", precision="32-true")


def train_elsewhere(fabric: Any, training: Training, checkpoint: Checkpoint | None) -> BaseException | None:
    """Run a training in one process a device; the first one's state comes back in a file, too large for their pipe."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        failure: BaseException | None = fabric.launch(train_one, training, checkpoint, path)
        training.restore(*_persistence.read(path, "training"))
    return failure


def train_one(fabric: Any, training: Training, checkpoint: Checkpoint | None, path: Path) -> BaseException | None:
    """Be one of the processes of a distributed training."""
    failure = training.run(fabric, checkpoint)
    if fabric.is_global_zero:
        _persistence.write(path, "training", *training.state())
    fabric.barrier()  # nobody leaves while another still speaks to it
    torch.distributed.destroy_process_group()
    return failure


def new_model(density: BaseDensity) -> DensityModel:
    """Build the module and draw its parameters; with warm_start, take over the present weights."""
    model = density._build(density._event_shape())
    if density.warm_start and "model_" in density.__dict__:
        try:
            model.load_state_dict(density.model_.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"warm_start needs the same architecture and width of X; set it to False, or clone: {error}"
            ) from error
        return model
    model.reset_parameters(torch.Generator().manual_seed(stream(density.seed_, INITIAL)))
    return model


class Training:
    """One training: all its state, and the loop."""

    def __init__(self, density: BaseDensity, rows: NDArray[Any], codes: NDArray[np.int64] | None) -> None:
        self.density = density
        self._hold_out(rows, codes)
        n_rows = len(self.rows)
        self.batch_size = min(density._rows_a_step(), n_rows)
        self.n_batches = n_rows // self.batch_size
        self.max_epochs = density._epochs(
            min(AUTO_MAX_EPOCHS, math.ceil(AUTO_STEPS / self.n_batches))
            if isinstance(density.max_epochs, str)
            else density.max_epochs
        )
        self.model = new_model(density).to(density.device_)
        if not (density.warm_start and "model_" in density.__dict__):
            self._initialize()
        self.average = copy.deepcopy(self.model).eval()
        bfloat16 = resolve_precision(density.precision, density.device_) == "bfloat16"
        set_training_dtype(self.model, torch.bfloat16 if bfloat16 else None)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=density.learning_rate, weight_decay=density.weight_decay, fused=True
        )
        self.best: dict[str, Tensor] | None = None
        self.best_bits = math.inf
        if len(self.held_out) and density.image_shape_ is None:  # of a table, the start may be the best there is
            self._keep_if_best(self._held_out_bits())
        self.epoch = self.batch = self.step = self.stale = self.skipped = self.skipped_in_a_row = 0
        self.bits_sum = 0.0
        self.finished = False
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}

    # ---- data

    def _hold_out(self, rows: NDArray[Any], codes: NDArray[np.int64] | None) -> None:
        density, n_rows = self.density, len(rows)
        order = np.random.default_rng(stream(density.seed_, SPLIT)).permutation(n_rows)
        n_held_out = 0
        if density.early_stopping and n_rows >= MIN_ROWS_TO_HOLD_OUT:
            n_held_out = min(max(1, round(density.validation_fraction * n_rows)), n_rows - 2)
        held_out, kept = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
        self.rows, self.codes = rows[kept], None if codes is None else codes[kept]
        self.held_out, self.held_out_codes = rows[held_out], None if codes is None else codes[held_out]

    def _tensors(self, rows: NDArray[Any], codes: NDArray[np.int64] | None, noise_seed: int) -> Batch:
        density = self.density
        x = density._to_tensor(rows)
        noise = None
        if density.dequantizes and density.n_bins_ is not None:
            generator = torch.Generator().manual_seed(noise_seed)
            noise = torch.rand(x.shape, generator=generator).to(x.device)
        return x, density._to_context(codes), noise

    def _batch(self, order: NDArray[Any], rank: int, world_size: int) -> Batch:
        """Make one process's share of the next batch; all shares together do not depend on how many there are."""
        index = order[self.batch * self.batch_size : (self.batch + 1) * self.batch_size]
        codes = None if self.codes is None else self.codes[index]
        x, context, noise = self._tensors(self.rows[index], codes, stream(self.density.seed_, NOISE, self.step))
        if world_size == 1:
            return x, context, noise
        share = slice(rank, None, world_size)
        return x[share], None if context is None else context[share], None if noise is None else noise[share]

    def _initialize(self) -> None:
        """Set data-dependent parameters from a first batch of 256 rows, or of batch_size if that is more."""
        order = np.random.default_rng(stream(self.density.seed_, INITIAL)).permutation(len(self.rows))
        index = np.sort(order[: max(256, self.batch_size)])
        codes = None if self.codes is None else self.codes[index]
        with torch.no_grad():
            self.model.initialize(*self._tensors(self.rows[index], codes, stream(self.density.seed_, INITIAL, 1)))

    # ---- the loop

    def run(self, fabric: Any, checkpoint: Checkpoint | None) -> BaseException | None:
        """Train to the end; give the interruption or failure that ended it early, to be raised once all is kept."""
        rank, world_size = fabric.global_rank, fabric.world_size
        checkpoint = checkpoint if rank == 0 else None
        model, optimizer = fabric.setup(self.model, self.optimizer)
        written = time.monotonic()
        with freed_memory_kept(), Interruption() as interruption, self._progress(rank) as bar:
            while not self.finished:
                order = np.random.default_rng(stream(self.density.seed_, ORDER, self.epoch)).permutation(len(self.rows))
                started = time.monotonic()
                while self.batch < self.n_batches:
                    failure = self._step(fabric, model, optimizer, self._batch(order, rank, world_size))
                    bar.update()
                    bar.set_postfix_str(f"{self.bits_sum / self.batch:.4f} bits/dim", refresh=False)
                    # several processes stop together, at an epoch's end
                    if failure is not None or (interruption.pending and world_size == 1):
                        self._write(checkpoint)
                        return failure or KeyboardInterrupt()
                    if time.monotonic() - written > CHECKPOINT_SECONDS:
                        self._write(checkpoint)
                        written = time.monotonic()
                self._end_epoch(time.monotonic() - started)
                self._write(checkpoint)
                written = time.monotonic()
                self.finished, interrupted = fabric.broadcast((self.finished, interruption.pending))
                if interrupted:
                    return KeyboardInterrupt()
        return None

    def _progress(self, rank: int) -> Any:
        from tqdm.auto import tqdm

        return tqdm(
            total=self.max_epochs * self.n_batches,
            initial=self.step,
            desc=type(self.density).__name__,
            unit="batch",
            disable=rank > 0 or not self.density.verbose,
        )

    def _learning_rate(self) -> float:
        """Linear warm-up, then half a cosine to 0 at the last step."""
        total = self.max_epochs * self.n_batches
        warm_up = max(1.0, WARM_UP * total)
        rise = min(1.0, (self.step + 1) / warm_up)
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, self.step - warm_up) / max(1.0, total - warm_up)))
        return self.density.learning_rate * rise * fall

    def _step(self, fabric: Any, model: Any, optimizer: Any, batch: Batch) -> BaseException | None:
        """One step; a non-finite one is skipped and counted, a run of them is a failure."""
        for group in optimizer.param_groups:
            group["lr"] = self._learning_rate()
        x, context, noise = batch
        self.model.begin_step(stream(self.density.seed_, DROPOUT, self.step))
        loss = -model(x, context, noise).mean() / (x[0].numel() * math.log(2))  # bits/dim
        fabric.backward(loss)
        norm = fabric.clip_gradients(model, optimizer, max_norm=GRADIENT_CLIP, error_if_nonfinite=False)
        value = loss.item()
        self.step += 1
        self.batch += 1
        if math.isfinite(value) and bool(torch.isfinite(norm)):
            optimizer.step()
            self._move_average()
            self.bits_sum += value
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
            self.bits_sum += self.bits_sum / max(1, self.batch - 1)  # the mean so far stands in
        optimizer.zero_grad()
        if self.skipped_in_a_row < MAX_SKIPPED:
            return None
        return FloatingPointError(
            f"{type(self.density).__name__}: {MAX_SKIPPED} steps in a row were not finite, first in layer "
            f"{first_non_finite(self.model, batch)!r}; the best weights so far are kept. Lower learning_rate (now "
            f"{self.density.learning_rate:g}) or check the scale of X."
        )

    @torch.no_grad()
    def _move_average(self) -> None:
        weight = 1 - min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), weight)

    @torch.no_grad()
    def _copy_buffers(self) -> None:
        """Take running statistics over into the averaged model."""
        for there, here in zip(self.average.buffers(), self.model.buffers(), strict=True):
            there.copy_(here)

    def _end_epoch(self, seconds: float) -> None:
        self.history["bits_per_dim"].append(self.bits_sum / self.n_batches)
        self.history["skipped_steps"].append(self.skipped)
        self.history["seconds"].append(seconds)
        self.epoch += 1
        self.batch, self.bits_sum = 0, 0.0
        if len(self.held_out):
            bits = self._held_out_bits()
            self.history["validation_bits_per_dim"].append(bits)
            self.stale = 0 if bits < self.best_bits - self.density.tol else self.stale + 1
            self._keep_if_best(bits)
        self.finished = self.epoch >= self.max_epochs or self.stale >= self.density.n_iter_no_change

    @torch.no_grad()
    def _held_out_bits(self) -> float:
        """Bits/dim of the held-out rows under the averaged weights, always with the same noise."""
        self._copy_buffers()
        total, length = 0.0, self.density._chunk_length()
        for start in range(0, len(self.held_out), length):
            part = slice(start, start + length)
            codes = None if self.held_out_codes is None else self.held_out_codes[part]
            noise_seed = stream(self.density.seed_, SCORING, 1 + start)
            x, context, noise = self._tensors(self.held_out[part], codes, noise_seed)
            total -= self.average(x, context, noise).double().sum().item()
        return total / (self.held_out.size * math.log(2))

    def _keep_if_best(self, bits: float) -> None:
        if bits < self.best_bits:
            self.best_bits = bits
            self.best = {name: value.clone() for name, value in self.average.state_dict().items()}

    def best_model(self) -> DensityModel:
        """Give the averaged weights, of the best epoch where rows are held out."""
        if self.best is not None:
            self.average.load_state_dict(self.best)
        else:
            self._copy_buffers()
        return self.average

    # ---- checkpoints

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Collect everything that training goes on from: counters, history, and weights and moments as arrays."""
        groups = {"model": self.model.state_dict(), "average": self.average.state_dict(), "best": self.best or {}}
        for i, moments in enumerate(self.optimizer.state.values()):
            groups[f"adam{i}"] = moments
        arrays = {
            f"{group}/{name}": value.cpu().numpy() for group, values in groups.items() for name, value in values.items()
        }
        counters = {name: getattr(self, name) for name in COUNTERS}
        return {"seed": self.density.seed_, "max_epochs": self.max_epochs, **counters}, arrays

    def _write(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            checkpoint.write(*self.state())

    def restore(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what `state` collected."""
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in arrays.items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = torch.from_numpy(value)
        self.model.load_state_dict(groups["model"])
        self.average.load_state_dict(groups["average"])
        self.best = groups.get("best")
        for i, parameter in enumerate(self.model.parameters()):
            if f"adam{i}" in groups:  # moments keep the memory format of their parameter
                state = groups[f"adam{i}"]
                self.optimizer.state[parameter] = {
                    name: value if name == "step" else torch.empty_like(parameter).copy_(value)
                    for name, value in state.items()
                }
        for name in COUNTERS:
            setattr(self, name, header[name])
        if self.stale < self.density.n_iter_no_change:
            self.finished = self.epoch >= self.max_epochs


def first_non_finite(model: DensityModel, batch: Batch) -> str:
    """Name of the first layer whose weights or outputs are not finite."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return name
    found: list[str] = []

    def note(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            if not all(torch.isfinite(value).all() for value in outputs if isinstance(value, Tensor)):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        model(*batch)
    for handle in hooks:
        handle.remove()
    return found[0] if found else "the gradient"
