"""How many threads a training computes with: where its steps are small, one is quicker than several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from flowdetect._threads import torch_threads

SMALL = 1.5e8  # parameters times positions (rows, times the pixels of an image) of a step


@contextmanager
def few_threads(training: Any) -> Iterator[None]:
    """Compute inside with one thread if a training's steps are small, on the CPU; else with those there are.

    To share out small operations, and to wait for each other, takes threads longer than they save: with two of them
    RealNVP on a table of ten columns, in batches of 256 and of 1,024, needs 1.19 to 1.32 times the time of one. The
    size alone decides, so that a training that was killed goes on with as many threads as before.
    """
    model, n_rows = training.model, training.batch_size // training.processes.n
    _, height, width = model.event_shape
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    is_small = n_parameters * n_rows * height * width <= SMALL
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    with torch_threads(1 if is_small and on_cpu else torch.get_num_threads()):
        yield
