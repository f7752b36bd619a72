"""Number of threads of a training: for small steps, one thread is faster than several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from flowdetect._threads import torch_threads

SMALL = 1.5e8  # parameters times positions (rows, times the pixels of an image) of a step


@contextmanager
def few_threads(training: Any) -> Iterator[None]:
    """Use one thread inside if the steps of a training on the CPU are small; otherwise leave the number unchanged.

    Distributing small operations among threads takes longer than it saves: with two threads, RealNVP on a table of ten
    columns, in batches of 256 and of 1,024, takes 1.19 to 1.32 times as long as with one. Only the size decides, so
    that a resumed training uses the same number of threads as before.
    """
    model, n_rows = training.model, training.batch_size // training.processes.n
    _, height, width = model.event_shape
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    is_small = n_parameters * n_rows * height * width <= SMALL
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    with torch_threads(1 if is_small and on_cpu else torch.get_num_threads()):
        yield
