"""The caller's torch state, process and environment change nothing: every public method gives the same result."""

import copy
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from density_table import DENSITIES
from sklearn import config_context

from flowdetect import GlowDensity, PixelCNNDensity
from flowdetect.density import _devices

NAMES = [
    "Glow, digits by class",
    "RealNVP, five columns",
    "PixelCNN++, all shortcuts, dropout, digits",
    "RealNVP, likelihood, digits as rows",
    "MAF, five columns",
    "VAE, digits",
]


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "float64 by default": lambda: default_dtype(torch.float64),
    "another device by default": lambda: torch.device("meta"),
    "pandas output": lambda: config_context(transform_output="pandas"),
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def answers(density, X, y):
    """What every public method gives, fit among them."""
    found = {
        "score": density.score_samples(X, y),
        "terms": next(iter(density.likelihood_terms(X, y).values())),
        "sample": np.asarray(density.sample(3, random_state=0)),
        "norms": density.layer_gradient_norms(X[:2]),
        "curvature": density.curvature(X[:1]),
        "derivatives": density.directional_derivatives(X[:1], np.ones((1, density.n_features_in_))),
        "copy": copy.deepcopy(density).score_samples(X[:3]),
    }
    if hasattr(density, "transform"):
        latents = np.asarray(density.transform(X, y))
        found |= {"latents": latents, "back": density.inverse_transform(latents, y)}
    if hasattr(density, "complete"):
        found["completed"] = np.asarray(density.complete(X[:2], 1, random_state=0))
    return found


@pytest.fixture(scope="module")
def expected():
    torch.set_num_threads(1)
    cases = {name: DENSITIES[name] for name in NAMES}
    return {
        name: answers(case.make(random_state=0).fit(case.X, case.y), case.X, case.y) for name, case in cases.items()
    }


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", NAMES)
def test_torchs_state_changes_no_answer(name, state, expected):
    case = DENSITIES[name]
    with STATES[state]():
        found = answers(case.make(random_state=0).fit(case.X, case.y), case.X, case.y)
    for what, value in expected[name].items():
        np.testing.assert_array_equal(np.asarray(found[what]), value, err_msg=what)


def torch_state():
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    return *modes, torch.get_default_dtype(), torch.get_default_device()


@pytest.mark.parametrize("state", STATES)
def test_torchs_state_is_left_as_it_was(state):
    X = DENSITIES["Glow, five columns"].X
    with STATES[state]():
        before = torch_state()
        GlowDensity(n_steps=1, hidden_channels=8, max_epochs=1).fit(X).sample(2)
        assert torch_state() == before


def run(code, **environment):
    """Run Python code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FIT = """
import numpy as np
from flowdetect import GlowDensity
X = np.random.default_rng(0).normal(size=(40, 2))
GlowDensity(n_steps=1, hidden_channels=8, max_epochs=1, random_state=0).fit(X)
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NODEID": "0"},
        {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "4"},
    ],
    ids=["SLURM", "LSF"],
)
def test_one_device_trains_within_a_job_of_many_tasks(environment):
    run(FIT, **environment)


def test_a_silent_fit_leaves_the_start_method_open():
    run(FIT + "import multiprocessing; multiprocessing.set_start_method('spawn')")


def test_a_job_that_ignores_ctrl_c_goes_on_ignoring_it():
    check = "\nassert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    run("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + FIT + check)


def test_precision_is_resolved_where_torch_tells_no_capabilities(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # torch 2.8
    assert _devices.resolve_precision("auto", "cpu") == "float32"
    PixelCNNDensity(n_filters=4, n_blocks=1, max_epochs=1).fit(np.random.default_rng(0).normal(size=(30, 2)))


def test_nothing_is_entered_where_nothing_is_to_be_undone():
    with nullcontext(), _devices.torch_state():
        assert torch.is_grad_enabled() is False
        assert torch.get_default_device().type == "cpu"
