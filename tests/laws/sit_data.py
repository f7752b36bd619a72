"""What the tests of semantic-invariant transformations draw."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings

few = settings(deadline=None, max_examples=25)
shapes = st.tuples(st.integers(2, 6), st.integers(2, 6), st.sampled_from([1, 3]))
seeds = st.integers(0, 2**16)


def images_8_bit(n, shape, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)


def table(n=40, n_features=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_features))
