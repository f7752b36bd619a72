"""What holds for every test: scikit-learn's array checks switched on, few hypothesis examples, no GPU assumed."""

import os
import signal

import hypothesis
import pytest

os.environ["SCIPY_ARRAY_API"] = "1"  # scipy reads it once, when it is first imported

hypothesis.settings.register_profile("flowdetect", deadline=None, max_examples=20)
hypothesis.settings.load_profile("flowdetect")


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard():
    """Let tests send Ctrl-C in a job in the background too, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_ignore_collect(collection_path, config):
    """Leave out what needs engines, unless asked for (make test-engines); files like this one have no doctests."""
    if collection_path.name == "conftest.py":
        return True
    if collection_path.name == "engines" and not any("engines" in argument for argument in config.args):
        return True
    return None


def pytest_collection_modifyitems(items):
    gpu_items = [item for item in items if "gpu" in item.keywords]
    if gpu_items and not _has_cuda():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_cuda():
    import torch

    return torch.cuda.is_available()
