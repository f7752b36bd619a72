"""Small files that ask for much memory or time: refused within 5 s and 200 MiB, or models that are what they say."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np

from flowdetect import GlowDensity, PixelCNNDensity, VAEDensity, _tensor_file
from flowdetect._persistence import _encode

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(60, 3))


def safetensors_of(header, data=b"", *, length=None):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def whole(header, declared=None, **more):
    """Metadata of a file of ours whose checksum is that of no tensors."""
    text = json.dumps({"format": 2, "kind": "estimator", "version": "0", **header})
    return {"__metadata__": {"flowdetect": text, "sha256": _tensor_file._digest(text, {})}, **(declared or {}), **more}


def a_state(**changes):
    """A tree of a small, whole density with some parts changed, and its arrays."""
    arrays = {}
    estimator = GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, random_state=0).fit(TABLE)
    tree = _encode(estimator, arrays, "G")
    entries = dict(tree["state"]["dict"])
    for name, value in changes.items():
        if name in entries:
            entries[name] = value
        entries["_fitted_params"] = {
            "dict": [[k, value if k == name else v] for k, v in entries["_fitted_params"]["dict"]]
        }
    tree["state"] = {"dict": [[key, value] for key, value in entries.items()]}
    return tree, arrays


def sparse(path, n_bytes):
    with open(path, "r+b") as file:
        file.truncate(n_bytes)


def steps_bomb(path):
    tree, arrays = a_state(n_steps=10**7)
    _tensor_file.write(path, "estimator", {"estimator": tree}, arrays)


def channels_bomb(path):
    tree, arrays = a_state(hidden_channels=10**9)
    _tensor_file.write(path, "estimator", {"estimator": tree}, arrays)


def both_bomb(path):
    tree, arrays = a_state(n_steps=10**5, hidden_channels=3)
    _tensor_file.write(path, "estimator", {"estimator": tree}, arrays)


def declared_bomb(path):
    entry = {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}
    path.write_bytes(safetensors_of(whole({"estimator": {"array": "x"}}, {"x": entry})))


def sparse_bomb(path):
    tree, arrays = a_state()
    huge, size = next(name for name in arrays if ".weights_." in name), 2**31
    entries, content = {}, b""
    for name in arrays:
        value = arrays[name] if name != huge else np.zeros(0, np.float32)
        dtype = {np.dtype(kind): text for text, kind in _tensor_file.DTYPES.items()}[value.dtype]
        entries[name] = {"dtype": dtype, "shape": value.shape, "data_offsets": [len(content)] * 2}
        content += value.tobytes()
        entries[name]["data_offsets"] = [entries[name]["data_offsets"][0], len(content)]
    entries.pop(huge)
    entries[huge] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [len(content), len(content) + size]}
    content = safetensors_of(whole({"estimator": tree}, entries), content)
    path.write_bytes(content)
    sparse(path, len(content) + size)


def larger_than_the_limit(path):
    path.write_bytes(b"\0" * 100)
    sparse(path, 2**40)


def header_length_bomb(path):
    path.write_bytes(safetensors_of(whole({"estimator": {}}), length=2**62))


def long_header_bomb(path):
    path.write_bytes(b"")
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 2**30) + b"{")
    sparse(path, 2**30 + 8)


def nested_bomb(path):
    text = "[" * 10**6 + "]" * 10**6
    content = json.dumps({"__metadata__": {"flowdetect": text, "sha256": ""}}).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content)


def text_bomb(path):
    tree = {"estimator": "GlowDensity", "state": {"strings": ["a" * 10**6] + [""] * 10**4, "object": False}}
    _tensor_file.write(path, "estimator", {"estimator": tree}, {})


def columns_bomb(path):
    tree, arrays = a_state(n_features_in_=10**9)
    spec = next(value for key, value in tree["state"]["dict"] if key == "spec_")
    spec["dict"] = [[k, 10**9 if k == "n_features" else v] for k, v in spec["dict"]]
    _tensor_file.write(path, "estimator", {"estimator": tree}, arrays)


def pixels_bomb(path):
    """A model whose weights know no size of the image."""
    density = PixelCNNDensity(n_bins=4, n_filters=2, n_blocks=1, max_epochs=1, random_state=0)
    density.fit(RNG.integers(0, 4, (20, 4, 4)))
    arrays = {}
    tree = _encode(density, arrays, "P")
    for key, value in tree["state"]["dict"]:
        if key == "spec_":
            value["dict"] = [
                [k, {"n_features": 9000**2, "layout": [[9000, 9000, 1], "nhw"]}.get(k, v)] for k, v in value["dict"]
            ]
    tree["state"]["dict"] = [[k, 9000**2 if k == "n_features_in_" else v] for k, v in tree["state"]["dict"]]
    _tensor_file.write(path, "estimator", {"estimator": tree}, arrays)


def draws_bomb(path):
    arrays = {}
    density = VAEDensity(n_bins=4, latent_dim=2, hidden_channels=4, max_epochs=1, n_draws=10_000, random_state=0)
    tree = _encode(density.fit(RNG.integers(0, 4, (20, 4, 4))), arrays, "V")
    _tensor_file.write(path, "estimator", {"estimator": tree}, arrays)


def numbers_bomb(path):
    text = json.dumps({"estimator": [0.1] * 3_000_000})
    content = json.dumps({"__metadata__": {"flowdetect": text, "sha256": ""}}).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content)


def lists_bomb(path):
    text = json.dumps({"estimator": [{}] * 900_000})
    content = json.dumps({"__metadata__": {"flowdetect": text, "sha256": ""}}).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content)


def zip_bomb(path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * 2**28)
    tree = {"estimator": "LikelihoodDetector", "state": {"dict": [["density", {"skops": "x"}]]}}
    _tensor_file.write(path, "estimator", {"estimator": tree}, {"x": np.frombuffer(inner.getvalue(), np.uint8)})


BOMBS = [
    *(steps_bomb, channels_bomb, both_bomb, declared_bomb, sparse_bomb, larger_than_the_limit, header_length_bomb),
    *(long_header_bomb, nested_bomb, text_bomb, columns_bomb, zip_bomb, numbers_bomb, lists_bomb),
]


LOADER = """
import sys, time
import peak_memory
import flowdetect, flowdetect.density, flowdetect.detectors, safetensors.numpy, skops.io
for path in sys.argv[1:]:
    before, started = peak_memory.reset(), time.process_time()
    try:
        flowdetect.load(path)
    except (ValueError, OSError) as error:
        assert path in str(error), error
    else:
        assert path.endswith("large_but_whole"), path
    mebibytes = peak_memory.most() - before
    assert mebibytes < 200, f"{path}: {mebibytes} MiB"
    assert time.process_time() - started < 5, path
    print(path, round(mebibytes), "MiB", round(time.process_time() - started, 2), "s")
"""


def test_size_bombs(tmp_path):
    paths = [tmp_path / bomb.__name__ for bomb in BOMBS]
    for bomb, path in zip(BOMBS, paths, strict=True):
        bomb(path)
    for bomb in (pixels_bomb, draws_bomb):  # models of their weights: they load, and are not tried
        paths.append(tmp_path / f"{bomb.__name__} large_but_whole")
        bomb(paths[-1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LOADER, *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == len(BOMBS) + 2 == 16
    print(done.stdout)  # noqa: T201, for `make fuzz`
