"""Files under use: several writers, readers beside them, links, pipes, bombs, full and closed folders, locks."""

import errno
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

import flowdetect
from flowdetect import MAFDensity, NeighborsDensity, _files, _tensor_file
from flowdetect._tensor_file import TensorFile

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(60, 3))
SMALL = {"n_transforms": 1, "hidden_features": (8,), "max_epochs": 2, "random_state": 0}

WRITER = """
import sys, numpy as np, flowdetect
path, seed, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
density = flowdetect.NeighborsDensity().fit(np.random.default_rng(seed).normal(size=(200, 3)))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(n):
    density.save(path)
"""
TRAINER = """
import sys, numpy as np, flowdetect
path, n = sys.argv[1], int(sys.argv[2])
X = np.random.default_rng(0).normal(size=(60, 3))
density = flowdetect.MAFDensity(checkpoint=path, n_transforms=1, hidden_features=(8,), random_state=0)
print("ready", flush=True)
sys.stdin.readline()
refused = 0
for i in range(n):
    try:
        density.set_params(max_epochs=i + 1).fit(X)
    except BlockingIOError as error:
        assert "in use" in str(error) and path in str(error)
        refused += 1
print(refused)
"""


@pytest.fixture(scope="module")
def density():
    return MAFDensity(**SMALL).fit(TABLE)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def two(script, *args):
    """Start two processes that begin at one moment."""
    command = [sys.executable, "-c", script, *args]
    pair = [
        subprocess.Popen(
            [*command[:4], *(str(i + 1),) * (script is WRITER), *command[4:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.stdin.write("\n")
        process.stdin.flush()
    return pair


class TestTwoWriters:
    def test_saves(self, path):
        pair = two(WRITER, str(path), str(50))
        n_read = 0
        while any(process.poll() is None for process in pair):
            if path.exists():
                assert isinstance(flowdetect.load(path), NeighborsDensity)
                n_read += 1
        for process in pair:
            process.communicate()
            assert process.returncode == 0
        assert n_read > 5
        assert isinstance(flowdetect.load(path), NeighborsDensity)
        assert [file.name for file in path.parent.iterdir()] == ["file"]

    def test_checkpoints(self, path):
        pair = two(TRAINER, str(path), str(50))
        while any(process.poll() is None for process in pair):
            if path.exists():
                with TensorFile(path, "checkpoint") as file:
                    file.arrays()
        printed = [process.communicate()[0] for process in pair]
        assert all(process.returncode == 0 for process in pair)
        assert all(0 <= int(text) <= 50 for text in printed)
        with TensorFile(path, "checkpoint") as file:
            assert file.header["epoch"] >= 1
        assert [file.name for file in path.parent.iterdir()] == ["file"]

    def test_a_second_training_is_refused_by_name(self, path):
        lock = _files.Lock(path, "checkpoint")
        lock.acquire()
        with pytest.raises(BlockingIOError, match=f"checkpoint='{path}' is in use: another training"):
            MAFDensity(checkpoint=path, **SMALL).fit(TABLE)
        lock.release()
        MAFDensity(checkpoint=path, **SMALL).fit(TABLE)
        assert [file.name for file in path.parent.iterdir()] == ["file"]

    def test_a_killed_training_leaves_no_lock(self, path):
        code = (
            "import os, signal, sys; from pathlib import Path; from flowdetect._files import Lock\n"
            "Lock(Path(sys.argv[1]), 'checkpoint').acquire(); os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=False)
        MAFDensity(checkpoint=path, **SMALL).fit(TABLE)

    def test_many_threads_one_lock(self, path):
        held, most = [0], [0]

        def take():
            for _ in range(200):
                lock = _files.Lock(path, "x")
                try:
                    lock.acquire()
                except BlockingIOError:
                    continue
                held[0] += 1
                most[0] = max(most[0], held[0])
                held[0] -= 1
                lock.release()

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]
        assert not list(path.parent.iterdir())


class TestWhatAPathMayBe:
    def test_a_link_is_followed(self, density, path, tmp_path):
        target = tmp_path / "elsewhere"
        target.write_bytes(b"older")
        path.symlink_to(target)
        density.save(path)
        assert path.is_symlink()
        assert isinstance(flowdetect.load(target), MAFDensity)
        (tmp_path / "dangling").symlink_to(tmp_path / "to be written")
        density.save(tmp_path / "dangling")
        assert isinstance(flowdetect.load(tmp_path / "to be written"), MAFDensity)

    def test_permissions_stay(self, density, path):
        path.write_bytes(b"older")
        path.chmod(0o640)
        density.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_a_pipe_is_neither_waited_for_nor_replaced(self, density, path):
        os.mkfifo(path)
        for do in (
            lambda: flowdetect.load(path),
            lambda: density.save(path),
            lambda: MAFDensity(checkpoint=path, **SMALL).fit(TABLE),
        ):
            with pytest.raises(OSError, match="not a regular file"):
                do()
        assert stat.S_ISFIFO(path.stat().st_mode)

    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full"])
    def test_a_device(self, density, device):
        for do in (lambda: flowdetect.load(device), lambda: density.save(device)):
            with pytest.raises(OSError, match="not a regular file"):
                do()

    @pytest.mark.parametrize("name", ["", "/", ".", "folder", "folder/"])
    def test_a_directory(self, density, tmp_path, name):
        (tmp_path / "folder").mkdir()
        for do in (lambda: flowdetect.load(f"{tmp_path}/{name}"), lambda: density.save(f"{tmp_path}/{name}")):
            with pytest.raises(OSError, match="is a directory"):
                do()

    @pytest.mark.parametrize("wrong", [None, 3, b"\0", [], object()])
    def test_no_path(self, density, wrong):
        for do in (lambda: flowdetect.load(wrong), lambda: density.save(wrong)):
            with pytest.raises((TypeError, ValueError, OSError)):
                do()

    def test_a_folder_that_is_gone(self, density, tmp_path):
        gone = tmp_path / "gone" / "file"
        with pytest.raises(FileNotFoundError, match=f"{gone}.*its folder does not exist"):
            density.save(gone)
        with pytest.raises(OSError, match="cannot be written: its folder does not exist"):
            MAFDensity(checkpoint=gone, **SMALL).fit(TABLE)

    def test_a_folder_that_is_deleted_in_training(self, tmp_path, monkeypatch):
        folder = tmp_path / "folder"
        folder.mkdir()
        write = _files.write_atomically

        def delete_first(path, content):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
            write(path, content)

        monkeypatch.setattr(_tensor_file, "write_atomically", delete_first)
        before = MAFDensity(checkpoint=folder / "file", **SMALL)
        with pytest.raises(OSError, match=f"{folder}/file.*folder does not exist"):
            before.fit(TABLE)
        assert not hasattr(before, "model_")

    def test_links_in_a_circle(self, density, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        for do in (density.save, flowdetect.load):
            with pytest.raises(OSError, match="a symbolic link to itself"):
                do(tmp_path / "a")

    def test_a_checkpoint_is_not_saved_over(self, path):
        density = MAFDensity(checkpoint=path, **SMALL).fit(TABLE)
        with pytest.raises(ValueError, match="holds the checkpoint of a training"):
            density.save(path)
        MAFDensity(checkpoint=path, **SMALL).fit(TABLE)

    def test_a_name_that_cannot_be(self, density, tmp_path):
        with pytest.raises(ValueError, match="cannot be a file name"):
            density.save(f"{tmp_path}/x\ud800")

    @pytest.mark.parametrize("trusted", ["abc", [1]])
    def test_what_is_trusted_is_a_list(self, density, path, trusted):
        density.save(path)
        with pytest.raises(TypeError, match="trusted must be a list of type names"):
            flowdetect.load(path, trusted=trusted)

    def test_bytes_and_long_names(self, density, tmp_path):
        long = tmp_path / ("\u4e00" * 80)  # 240 of the 255 bytes that a name may have
        density.save(os.fsencode(long))
        assert isinstance(flowdetect.load(os.fsencode(long)), MAFDensity)
        MAFDensity(checkpoint=os.fsencode(tmp_path / "checkpoint"), **SMALL).fit(TABLE)
        with pytest.raises(ValueError, match="zero byte"):
            density.save(f"{tmp_path}/a\0b")

    def test_a_file_system_without_locks(self, path, monkeypatch):
        def none(*_):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(_files.fcntl, "flock", none)
        with pytest.warns(UserWarning, match=f"checkpoint='{path}' is not locked.*no locks"):
            MAFDensity(checkpoint=path, **SMALL).fit(TABLE)
        assert [file.name for file in path.parent.iterdir()] == ["file"]

    def test_a_file_system_without_links(self, path, monkeypatch):
        def none(*_):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", none)
        _files.write_new(path, b"first")
        _files.write_new(path, b"second")
        assert path.read_bytes() == b"first"
        assert [file.name for file in path.parent.iterdir()] == ["file"]

    def test_a_full_disk_names_the_file(self, density, path, monkeypatch):
        def full(fd):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=f"No space left on device; the file could not be written: '{path}'"):
            density.save(path)
        assert not list(path.parent.iterdir())


def test_max_bytes(density, path):
    density.save(path)
    with pytest.raises(ValueError, match=r"more than the limit of 100; .*a larger max_bytes"):
        flowdetect.load(path, max_bytes=100)
    with pytest.raises(ValueError, match="max_bytes must be a whole number"):
        flowdetect.load(path, max_bytes=True)
