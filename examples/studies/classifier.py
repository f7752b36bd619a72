"""A small convolutional classifier of 28x28 images, for studies that ask what a picture shows."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from shared import SEED
from torch import Tensor, nn

BATCH = 128


def to_tensor(X: np.ndarray) -> Tensor:
    """(n, 28, 28) of 0..255 -> (n, 1, 28, 28) of 0..1."""
    return torch.from_numpy(np.asarray(X, dtype=np.float32))[:, None] / 255


def train_classifier(X: np.ndarray, y: np.ndarray, n_epochs: int, max_shift: int = 0) -> nn.Module:
    """Train two convolutions and two linear layers; every batch is moved by up to max_shift pixels."""
    torch.manual_seed(SEED)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10)),
    )
    images, labels = to_tensor(X), torch.from_numpy(y.astype(np.int64))
    n_batches = len(X) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=n_epochs * n_batches)
    for _ in range(n_epochs):
        order = torch.randperm(len(X))
        for index in order[: n_batches * BATCH].view(n_batches, BATCH):
            shift = torch.randint(-max_shift, max_shift + 1, (2,)).tolist()
            loss = F.cross_entropy(model(images[index].roll(shift, (2, 3))), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def probabilities(model: nn.Module, X: np.ndarray) -> np.ndarray:
    """Class probabilities, (n, 10)."""
    return torch.cat([model(part).softmax(1) for part in to_tensor(X).split(1000)]).numpy()
