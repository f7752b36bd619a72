"""Random streams: all randomness in training is a function of a seed, a stream and a counter."""

from __future__ import annotations

import numpy as np

INITIAL, SPLIT, ORDER, NOISE, SCORING, DROPOUT = range(6)


def stream(seed: int, kind: int, counter: int = 0) -> int:
    """Derive the seed of one random stream, e.g. of the noise of one step."""
    return int(np.random.SeedSequence([seed, kind, counter]).generate_state(1, np.uint64)[0] >> 1)
