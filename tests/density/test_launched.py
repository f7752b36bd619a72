"""n_devices="auto": how many processes a fit joins, and where the tasks of a step of SLURM meet."""

import json
import os

import numpy as np
import pytest
import torch
from shared_training import HEAD, N_ROWS, SETTINGS, agents, free_port, run, tasks

from flowdetect import EnsembleDensity, GlowDensity, load_images
from flowdetect.density import _launched
from flowdetect.density._launched import check_n_devices, first_host, resolve_n_devices, writes_checkpoints

STEP = {
    **{"SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "7", "SLURM_PROCID": "5"},
    **{"SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1"},
    "SLURM_STEP_NODELIST": "node[03-05,9]",
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in os.environ:
        if name.startswith(("SLURM", "TORCHELASTIC", "MASTER")):
            monkeypatch.delenv(name)
    return lambda values: [monkeypatch.setenv(*each) for each in values.items()]


@pytest.mark.parametrize(
    ("values", "n_devices", "n"),
    [
        ({}, "auto", 1),
        ({}, 3, 3),
        (TORCHRUN, "auto", 3),
        (TORCHRUN, 1, 1),
        ({**TORCHRUN, "WORLD_SIZE": "1"}, "auto", 1),
        ({**STEP, **TORCHRUN}, "auto", 3),  # srun may start torchrun, a task a machine
        (STEP, "auto", 7),
        (STEP, 1, 1),
        (STEP, 2, 2),  # two devices of this machine, as anywhere
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, "auto", 1),
        ({"SLURM_NTASKS": "7", "SLURM_PROCID": "0"}, "auto", 1),  # sbatch's script itself, without srun
    ],
)
def test_how_many_processes_there_are(values, n_devices, n, environment):
    environment(values)
    assert resolve_n_devices(n_devices, "cpu") == n


def test_else_all_cuda_devices_where_cuda_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [resolve_n_devices("auto", device) for device in ("cuda", "cuda:1", "cpu")] == [4, 1, 1]


def test_the_place_in_a_step(environment, monkeypatch):
    environment(STEP)
    assert _launched._launched().position == (5, 7, 1, 2)
    assert not writes_checkpoints("auto")
    assert writes_checkpoints(2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # each task sees the device that is its own
    assert _launched._launched().position == (5, 7, 0, 1)


def test_tasks_meet_on_the_first_machine_at_a_port_of_their_step(environment):
    environment(STEP)
    assert _launched._meeting_point() == ("node03", 20000 + 6703)
    environment({"MASTER_ADDR": "head", "MASTER_PORT": "29500"})
    assert _launched._meeting_point() == ("head", 29500)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node7", "node7"),
        ("login,node[1-2]", "login"),
        ("node[03-05,9]", "node03"),
        ("node[9,03-05],other", "node9"),
        ("rack[1-2]n[3-4]", "rack1n3"),
        ("n[1-2]-ib,x", "n1-ib"),
        ("a1.site.org", "a1.site.org"),
    ],
)
def test_the_first_machine_of_a_list(nodes, host):
    assert first_host(nodes) == host


def test_a_workers_worker_and_more_tasks_than_cores_are_refused(environment, monkeypatch):
    environment({**STEP, "SLURM_STEP_TASKS_PER_NODE": "7000"})
    monkeypatch.setenv("SLURM_NODEID", "0")
    with pytest.raises(ValueError, match="n_devices=7000, but this machine has"):
        check_n_devices("auto", "cpu")
    monkeypatch.setattr(_launched.multiprocessing, "parent_process", object)
    with pytest.raises(ValueError, match="processes that srun started, but this is a worker process .* n_jobs=1"):
        check_n_devices("auto", "cpu")


def test_words_and_numbers_that_are_none(environment):
    with pytest.raises(ValueError, match="'n_devices' parameter of GlowDensity must be a str among {'auto'} or an int"):
        GlowDensity(n_devices="all").fit(load_images("digits")[0][:20])


def test_a_task_that_waits_in_vain_says_where(environment, monkeypatch):
    port = free_port()
    environment({**STEP, "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(port)})
    monkeypatch.setattr(_launched, "MEET_SECONDS", 0.2)
    X = load_images("digits")[0][:40]
    with pytest.raises(
        RuntimeError, match=f"7 tasks .* connect to localhost:{port} within 0.2 s, but task 0 could not"
    ):
        GlowDensity(n_devices="auto", device="cpu").fit(X)


# ---- one model


ALONE = """
print(json.dumps(told(ensemble(n_jobs=2))))
"""


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory):
    return agents(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module", params=["one agent", "two agents", "two tasks"])
def found(request, tmp_path_factory):
    if request.param == "one agent":
        return request.getfixturevalue("one_machine")
    folder = tmp_path_factory.mktemp("two")
    return tasks(folder) if request.param == "two tasks" else agents(2, folder)


@pytest.mark.slow
def test_two_processes_train_the_model_of_one_bit_for_bit_each_time(one_machine):
    two = json.loads(run(HEAD + ALONE).stdout)
    assert two == one_machine[0]["ensemble"]  # a second run, in processes that torchrun started
    X, _ = load_images("digits")
    one = EnsembleDensity(GlowDensity(**SETTINGS), n_members=1, random_state=0).fit(X[:N_ROWS]).members_[0]
    np.testing.assert_allclose(two["bits"], one.history_["validation_bits_per_dim"], atol=1e-3)  # bits/dim


@pytest.mark.slow
class TestLaunched:
    def test_all_processes_have_one_model(self, found):
        assert found[0]["ensemble"] == found[1]["ensemble"]
        assert found[0]["drawn"] == found[1]["drawn"]  # the seed of random_state=None with it

    def test_agents_and_tasks_of_slurm_train_the_model_of_one_agent(self, found, one_machine):
        assert found[0]["ensemble"] == one_machine[0]["ensemble"]

    def test_the_first_process_writes_the_checkpoint_and_all_are_restored(self, found):
        assert found[0]["n_written"] > 0
        assert found[1]["n_written"] == 0
        assert found[0]["restored"] == found[1]["restored"] == found[0]["drawn"]

    def test_what_disagrees_is_refused_in_all(self, one_machine):
        assert one_machine[0]["refusals"] == one_machine[1]["refusals"]
        n_devices, X, checkpoint = one_machine[0]["refusals"]
        assert "torchrun started, 2, got 3; pass n_devices=2" in n_devices
        assert "X of process 1 differs from that of process 0" in X
        assert "random_state: None in the file, 1 now" in checkpoint

    def test_a_time_limit_is_one_plan(self, one_machine):
        assert one_machine[0]["reason"] == one_machine[1]["reason"] == "time_limit"

    def test_one_device_trains_alone(self, found):
        X, _ = load_images("digits")
        alone = GlowDensity(**{**SETTINGS, "random_state": 0, "max_epochs": 1}).fit(X[:N_ROWS])
        assert found[0]["alone"]["bits"] == alone.history_["validation_bits_per_dim"]
