"""The training loop of all models, on lightning-fabric: `train(model, source, held_out, settings)`.

All randomness is a function of the seed and a counter (row order: the epoch; noise: the step), and all state is in one
place. A killed training therefore resumes from its last checkpoint with bitwise the same result.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from flowdetect.density._averages import Averages
from flowdetect.density._checkpoint import Checkpoint, Form
from flowdetect.density._devices import hints_unheard, resolve_precision
from flowdetect.density._events import watched
from flowdetect.density._leaps import Leaps
from flowdetect.density._memory import freed_memory_kept
from flowdetect.density._order import Order, shuffled
from flowdetect.density._processes import Processes, alone, present
from flowdetect.density._progress import Place
from flowdetect.density._ranks import run_in_processes
from flowdetect.density._small_steps import few_threads
from flowdetect.density._time_plan import TimePlan
from flowdetect.density.model import DensityModel, first_non_finite
from flowdetect.density.settings import TrainingResult, TrainingSettings
from flowdetect.density.spec import TensorSource
from flowdetect.density.streams import DROPOUT, INITIAL, NOISE, ORDER, SCORING, stream
from flowdetect.nets import set_training_dtype

GRADIENT_CLIP = 1.0  # maximum norm of the gradient of bits/dim
WARM_UP, FEWEST_WARM_UP = 0.1, 20  # linear warm-up: share of the steps; at least 20 steps, or half of a short training
MAX_SKIPPED = 20  # consecutive steps, non-finite or leaping, after which training cannot continue from its weights
MAX_RECOVERIES = 5
CHECKPOINT_SECONDS = 60.0
# rows for data-dependent initialisation, fewer for large images (the limit in values); at least batch_size
FIRST_BATCH, FIRST_VALUES = 256, 2**22
HISTORY = ("bits_per_dim", "validation_bits_per_dim", "skipped_steps", "seconds")
COUNTERS = (
    *("epoch", "batch", "step", "stale", "skipped", "skipped_in_a_row"),
    *("bits_sum", "best_bits", "finished", "history"),
)
Batch = tuple[Tensor, Tensor | None, Tensor | None]  # x, context, noise


def train(
    model: DensityModel,
    source: TensorSource,
    held_out: TensorSource | None,
    settings: TrainingSettings,
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Train an initialised model, with early stopping on held-out rows if there are any.

    Ctrl-C, or a loss that stays non-finite or leaps again and again, ends training with the best weights so far; the
    result holds the exception, which is not raised. All other errors are raised.
    """
    n, batch_size = settings.n_devices, min(settings.batch_size, len(source))
    if batch_size < n:
        raise ValueError(f"batch_size must be at least n_devices, {n}, got batches of {batch_size} rows; raise it.")
    args = (model, source, held_out, settings, checkpoint)
    if n == 1:
        result, leaps, step = train_one(alone(settings.device), *args)
    elif (processes := present()) is not None:
        result, leaps, step = train_one(processes, *args)
    else:
        args = (model, source, held_out, replace(settings, events=None), checkpoint)  # callbacks run only here
        (result, leaps, step), raised = run_in_processes(settings.name, train_one, args, settings.device, n)
        if raised is not None:
            result = replace(result, failure=raised)
    result.model.to(settings.device)
    leaps.warn(settings, step)
    return result


def train_one(
    processes: Processes,
    model: DensityModel,
    source: TensorSource,
    held_out: TensorSource | None,
    settings: TrainingSettings,
    checkpoint: Checkpoint | None,
) -> tuple[TrainingResult, Leaps, int]:
    """Run one process of a training; also return the leaps of its loss and the number of steps."""
    if processes.n > 1:
        settings = replace(settings, device=processes.device)
        source = source.on(processes.device)
        held_out = None if held_out is None else held_out.on(processes.device)
    training = Training(model, source, held_out, settings, processes)
    if checkpoint is not None and checkpoint.found:
        form = Form.of(*training.state(), training.model.parameters(), n_batches=training.n_batches)
        training.restore(*processes.in_first(lambda: checkpoint.read(form)))
    failure = training.run(checkpoint)
    best = training.best_model()
    processes.copy_first(best.state_dict())
    if processes.n > 1:
        best.cpu()
    history, seconds = processes.of_first((training.history, training.plan.seconds))
    result = TrainingResult(best, history, training.epoch, training.reason(failure), seconds, failure)
    return result, training.leaps, training.step


def decay_groups(model: DensityModel, weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups: with and without weight decay."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_decayed = model.decayed is None or name.endswith(model.decayed)
        groups.setdefault(weight_decay if is_decayed else 0.0, []).append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()]


class Training(Averages):
    """One training: all its state, and the loop."""

    def __init__(
        self,
        model: DensityModel,
        source: TensorSource,
        held_out: TensorSource | None,
        settings: TrainingSettings,
        processes: Processes,
    ) -> None:
        self.settings, self.source, self.held_out, self.processes = settings, source, held_out, processes
        self.batch_size = min(settings.batch_size, len(source))
        self.n_batches = len(source) // self.batch_size
        self.n_steps = settings.max_epochs * self.n_batches
        self.model = model.to(settings.device)
        if settings.initialize:
            self._initialize()
        self.average = copy.deepcopy(self.model).eval()
        self.model.train()
        bfloat16 = resolve_precision(settings.precision, settings.device) == "bfloat16"
        set_training_dtype(self.model, torch.bfloat16 if bfloat16 else None)
        self.optimizer = torch.optim.AdamW(
            decay_groups(self.model, settings.weight_decay), lr=settings.learning_rate, fused=True
        )
        self.plan = TimePlan(settings.time_limit or math.inf, settings.started)
        if held_out is not None and self.plan.is_limited:
            self.plan.time_validation(self._held_out_bits, len(held_out), settings.chunk_length)
            self.plan.n_held_out = processes.of_first(self.plan.n_held_out)
        if held_out is not None and settings.start_counts:
            self.keep_if_best(self._held_out_bits())
        self.epoch = self.batch = self.step = self.stale = self.skipped = self.skipped_in_a_row = 0
        self.leaps = Leaps()
        self.bits_sum = 0.0
        self.finished = self.is_interrupted = False
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}

    # ---- data

    def _batch(self, order: Order, rank: int, n: int) -> Batch:
        """Build one process's share of the next batch; the whole batch does not depend on the number of processes."""
        index = order[self.batch * self.batch_size : (self.batch + 1) * self.batch_size]
        x, context, noise = self._with_noise(self.source, index, stream(self.settings.seed, NOISE, self.step))
        if n == 1:
            return x, context, noise
        share = slice(rank, None, n)
        return x[share], None if context is None else context[share], None if noise is None else noise[share]

    def _with_noise(self, source: TensorSource, index: NDArray[np.intp], noise_seed: int) -> Batch:
        x, context = source.batch(index)
        noise = None
        if self.model.n_noise:
            generator = torch.Generator().manual_seed(noise_seed)
            noise = torch.rand(len(x), self.model.n_noise, generator=generator, dtype=torch.float32).to(x.device)
        return x, context, noise

    def _initialize(self) -> None:
        """Set data-dependent parameters from a first batch."""
        seed = self.settings.seed
        order = shuffled(len(self.source), stream(seed, INITIAL))
        n_rows = max(self.batch_size, min(FIRST_BATCH, FIRST_VALUES // self.model.n_values))
        index = np.sort(order[:n_rows])
        with torch.no_grad():
            self.model.initialize(*self._with_noise(self.source, index, stream(seed, INITIAL, 1)))

    # ---- the loop

    def run(self, checkpoint: Checkpoint | None) -> BaseException | None:
        """Train to the end; return the interruption or failure that ended it early, to be raised after saving."""
        processes = self.processes
        checkpoint = checkpoint if processes.rank == 0 else None
        with hints_unheard():
            model, optimizer = processes.fabric.setup(self.model, self.optimizer)
        written = time.monotonic()
        with processes.interruption, freed_memory_kept(), few_threads(self), watched(self) as progress:
            while not self.finished:
                progress.begin()
                order = shuffled(len(self.source), stream(self.settings.seed, ORDER, self.epoch))
                started = time.monotonic()
                while self.batch < self.n_batches and not self._is_over:
                    self.plan.begin_step()
                    failure = self._step(model, optimizer, self._batch(order, processes.rank, processes.n))
                    self._keep_time(checkpoint)
                    progress.step(self._place(self.epoch + 1, self.bits_sum / self.batch))
                    if failure is not None or self.is_interrupted:
                        self._write(checkpoint)
                        if failure := failure or processes.outcome():
                            return failure
                    if time.monotonic() - written > CHECKPOINT_SECONDS:
                        self._write(checkpoint)
                        written = time.monotonic()
                self._end_epoch(time.monotonic() - started)
                held_out_bits = self.history["validation_bits_per_dim"][-1:]
                self._write(checkpoint)
                written = time.monotonic()
                place = self._place(self.epoch, self.history["bits_per_dim"][-1], *held_out_bits)
                self.finished = progress.epoch(place) or self.finished
                asked = processes.means(processes.interruption.pending)[0]
                self.finished, self.plan.exceeded = processes.of_first((self.finished, self.plan.exceeded))
                if asked and (failure := processes.outcome()):
                    return failure
        return processes.interruption.outcome()  # after the last step

    def _place(self, epoch: int, bits: float, held_out_bits: float | None = None) -> Place:
        return Place(self.step, self.n_steps, epoch, math.ceil(self.n_steps / self.n_batches), bits, held_out_bits)

    @property
    def _is_over(self) -> bool:
        """Whether all steps are done or the time limit is far exceeded."""
        return self.step >= self.n_steps or self.plan.exceeded

    def _keep_time(self, checkpoint: Checkpoint | None) -> None:
        """Plan the number of steps when their speed is known; the first process decides for all."""
        if not self.plan.is_limited:
            return
        can_plan = self.plan.end_step()
        if can_plan and self.processes.rank == 0:
            started = time.monotonic()
            self._write(checkpoint)
            self.plan.plan_steps(self.step, self.n_batches, time.monotonic() - started)
        plan = self.plan
        told = (plan.n_steps, plan.n_plans, plan.exceeded)
        plan.n_steps, plan.n_plans, plan.exceeded = self.processes.of_first(told)
        self._follow_plan()
        if can_plan:
            self._write(checkpoint)

    def _follow_plan(self) -> None:
        if self.plan.n_steps is not None:
            self.n_steps = min(self.settings.max_epochs * self.n_batches, self.plan.n_steps)

    def reason(self, failure: BaseException | None) -> str:
        """Return the reason for the end of training."""
        if failure is not None:
            return "failed" if isinstance(failure, FloatingPointError) else "interrupted"
        if self.step >= self.settings.max_epochs * self.n_batches:
            return "max_epochs"
        return "time_limit" if self._is_over else "early stopping"

    def _learning_rate(self) -> float:
        """Linear warm-up, then cosine decay to 0 at the last step; halved at each recovery."""
        warm_up = max(1.0, WARM_UP * self.n_steps, min(FEWEST_WARM_UP, self.n_steps / 2))
        rise = min(1.0, (self.step + 1) / warm_up)
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, self.step - warm_up) / max(1.0, self.n_steps - warm_up)))
        return self.settings.learning_rate * rise * fall * 0.5**self.leaps.recoveries

    def _step(self, model: nn.Module, optimizer: Optimizer, batch: Batch) -> BaseException | None:
        """Make one step; skip and count it if the loss is non-finite or leaps; too many in a row are a failure."""
        for group in optimizer.param_groups:
            group["lr"] = self._learning_rate()
        processes, (x, context, noise) = self.processes, batch
        dropout = stream(self.settings.seed, DROPOUT, self.step * processes.n + processes.rank)
        self.model.begin_step(dropout, self.step / self.n_steps)
        loss = -model(x, context, noise).mean() / (x[0].numel() * math.log(2))  # bits/dim
        if processes.n > 1:
            loss = loss * (len(x) * processes.n / self.batch_size)  # mean over processes = mean over rows
        # several processes stop at the same step; they exchange requests while gradients are computed
        means = processes.begin_means(loss.detach(), processes.interruption.pending)
        processes.fabric.backward(loss)
        norm = processes.fabric.clip_gradients(model, optimizer, max_norm=GRADIENT_CLIP, error_if_nonfinite=False)
        assert norm is not None  # None only if single values were clipped
        value, asked = means()
        self.is_interrupted = asked > 0 or (processes.n == 1 and processes.interruption.pending)
        self.step += 1
        self.batch += 1
        finite = math.isfinite(value) and bool(torch.isfinite(norm))
        if finite and not self.leaps.is_leap(value):
            optimizer.step()
            self.move_average()
            self.bits_sum += value
            self.leaps.accept(value)
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
            self.bits_sum += self.bits_sum / max(1, self.batch - 1)  # a skipped step counts as the mean so far
        optimizer.zero_grad()
        if self.skipped_in_a_row < MAX_SKIPPED:
            return None
        return self._recover(optimizer) if finite else self._not_finite(batch)

    # ---- skipped steps

    @torch.no_grad()
    def _recover(self, optimizer: Optimizer) -> BaseException | None:
        """After several leaps in a row, return to the best or averaged weights with half the learning rate."""
        self.skipped_in_a_row = 0
        self.leaps.recoveries += 1
        if self.leaps.recoveries > MAX_RECOVERIES:
            return FloatingPointError(
                f"{self.settings.name}: the loss leapt again after each of {MAX_RECOVERIES} returns to earlier weights "
                f"(up to {self.leaps.largest:.3g} bits/dim); the best weights so far are kept. Lower learning_rate "
                f"(now {self.settings.learning_rate:g}) or check X for extreme values."
            )
        self.model.load_state_dict(self.average.state_dict() if self.best is None else self.best)
        optimizer.state.clear()
        return None

    def _not_finite(self, batch: Batch) -> BaseException:
        return FloatingPointError(
            f"{self.settings.name}: {MAX_SKIPPED} steps in a row were not finite, first in layer "
            f"{first_non_finite(self.model, *batch)!r}; the best weights so far are kept. Lower learning_rate (now "
            f"{self.settings.learning_rate:g}) or check the scale of X."
        )

    # ---- the end of an epoch

    def _end_epoch(self, seconds: float) -> None:
        self.history["bits_per_dim"].append(self.bits_sum / self.batch)  # the last epoch may be incomplete
        self.history["skipped_steps"].append(self.skipped)
        self.history["seconds"].append(seconds)
        self.epoch += 1
        self.batch, self.bits_sum = 0, 0.0
        if self.held_out is not None:
            bits = self._held_out_bits()
            self.history["validation_bits_per_dim"].append(bits)
            gained = bits < self.best_bits - self.settings.tol or self.step < self.model.warm_up * self.n_steps
            self.stale = 0 if gained else self.stale + 1
            self.keep_if_best(bits)
        self.plan.check()
        self.finished = self._is_over or self.stale >= self.settings.n_iter_no_change

    @torch.no_grad()
    def _held_out_bits(self, n_rows: int | None = None) -> float:
        """Bits/dim of (evenly spaced) held-out rows under the averaged weights, always with the same noise."""
        assert self.held_out is not None
        self.copy_buffers()
        n_rows = n_rows or self.plan.n_held_out or len(self.held_out)
        rows = np.arange(n_rows) * len(self.held_out) // n_rows
        total, length, processes = 0.0, self.settings.chunk_length, self.processes
        for start in range(processes.rank * length, n_rows, processes.n * length):
            index = rows[start : start + length]
            batch = self._with_noise(self.held_out, index, stream(self.settings.seed, SCORING, 1 + start))
            total -= self.average(*batch).double().sum().item()
        return processes.total(total) / (n_rows * self.model.n_values * math.log(2))

    # ---- checkpoints

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Collect the state of training: counters, history, and weights and moments as arrays."""
        groups = {"model": self.model.state_dict(), "average": self.average.state_dict(), "best": self.best or {}}
        for i, parameter in enumerate(self.model.parameters()):
            if parameter in self.optimizer.state:
                groups[f"adam{i}"] = self.optimizer.state[parameter]
        arrays = {
            f"{group}/{name}": value.cpu().numpy() for group, values in groups.items() for name, value in values.items()
        }
        header = {"seed": self.settings.seed, "leaps": asdict(self.leaps), "time_plan": self.plan.state()}
        return {**header, **{name: getattr(self, name) for name in COUNTERS}}, arrays

    def _write(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            checkpoint.write(*self.state())

    def restore(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the result of `state`."""
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in arrays.items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = torch.from_numpy(value)
        self.model.load_state_dict(groups["model"])
        self.average.load_state_dict(groups["average"])
        self.best = groups.get("best")
        for i, parameter in enumerate(self.model.parameters()):
            if f"adam{i}" in groups:  # moments must have the memory format of their parameter
                state = groups[f"adam{i}"]
                self.optimizer.state[parameter] = {
                    name: value if name == "step" else torch.empty_like(parameter).copy_(value)
                    for name, value in state.items()
                }
        for name in COUNTERS:
            setattr(self, name, header[name])
        self.leaps = Leaps(**header["leaps"])
        if "time_plan" in header:  # older files have none
            self.plan.restore(header["time_plan"])
        self._follow_plan()
        if self.stale < self.settings.n_iter_no_change:
            self.finished = self.epoch >= self.settings.max_epochs or (self._is_over and self.batch == 0)
