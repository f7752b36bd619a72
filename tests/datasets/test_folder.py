"""A folder of pictures: which are found, what becomes of labels, damaged files, memory; and that fits take it."""

import pickle
import random
import threading

import numpy as np
import pytest
from PIL import Image

from flowdetect import RealNVPDensity, load_folder


def picture(seed=0, size=(9, 7), mode="RGB"):
    height, width = size
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def photos(tmp_path):
    """Two classes of three pictures each, and what is no picture."""
    for name in ("dogs", "cats"):
        for i in range(3):
            (tmp_path / name / "more").mkdir(parents=True, exist_ok=True)
            where = tmp_path / name / ("more" if i == 1 else "")
            picture(i + 10 * (name == "dogs")).save(where / f"{i}.{('png', 'WEBP', 'bmp')[i]}", lossless=True)
    (tmp_path / "README.txt").write_text("no picture")
    (tmp_path / "cats" / "._0.png").write_bytes(b"a finder's file")
    (tmp_path / ".hidden").mkdir()
    picture().save(tmp_path / ".hidden" / "0.png")
    return tmp_path


def test_pictures_are_found_in_order_with_their_labels(photos):
    source = load_folder(photos, size=(9, 7))
    names = [str(path.relative_to(photos)) for path in source.paths]
    assert names == ["cats/0.png", "cats/2.bmp", "cats/more/1.WEBP", "dogs/0.png", "dogs/2.bmp", "dogs/more/1.WEBP"]
    assert source.y.tolist() == ["cats"] * 3 + ["dogs"] * 3
    assert (source.row_shape, source.dtype, source.skipped_) == ((9, 7, 3), np.uint8, {})
    expected = [np.asarray(picture(seed)) for seed in (0, 2, 1, 10, 12, 11)]
    np.testing.assert_array_equal(source.array(), expected)
    np.testing.assert_array_equal(source.read(np.array([4, 0, 4])), [expected[i] for i in (4, 0, 4)])


def test_pictures_beside_subfolders_have_no_labels(photos):
    picture().save(photos / "loose.png")
    assert load_folder(photos, size=4).y is None
    assert load_folder(photos / "cats" / "more", size=4).y is None


def test_limit_takes_its_share_of_every_subfolder(photos):
    source = load_folder(photos, size=4, limit=4)
    assert source.y.tolist() == ["cats", "cats", "dogs", "dogs"]
    assert len(load_folder(photos, size=4, limit=100)) == 6


def test_lists_of_files_and_of_pictures_keep_their_order(photos):
    files = [photos / "dogs" / "0.png", str(photos / "cats" / "0.png")]
    (photos / "without_ending").write_bytes((photos / "cats" / "2.bmp").read_bytes())
    source = load_folder([*files, photos / "without_ending", picture(5)], size=(9, 7))
    np.testing.assert_array_equal(source.array(), [np.asarray(picture(seed)) for seed in (10, 0, 2, 5)])
    assert source.y is None
    assert source.paths[3] is None


@pytest.mark.parametrize("cache_bytes", [0, 200, 2**28])
def test_values_are_the_same_whatever_is_kept_threads_and_pickles_included(photos, cache_bytes):
    source = load_folder(photos, size=(9, 7), cache_bytes=cache_bytes)
    expected = load_folder(photos, size=(9, 7)).array()
    order = np.random.default_rng(0).permutation(6)
    answers = {}

    def read(k):
        answers[k] = [source.read(order) for _ in range(20)]

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for each in (a for k in range(4) for a in answers[k]):
        np.testing.assert_array_equal(each, expected[order])
    travelled = pickle.dumps(source)
    assert len(travelled) < 3000
    np.testing.assert_array_equal(pickle.loads(travelled).array(), expected)


def test_a_picture_that_is_kept_is_decoded_once(photos):
    source = load_folder(photos, size=(9, 7), cache_bytes=2 * 9 * 7 * 3)
    first = source.array()
    for path in source.paths[:2]:
        path.unlink()
    np.testing.assert_array_equal(source.read(np.arange(2)), first[:2])
    source.paths[2].unlink()
    with pytest.raises(ValueError, match=r"1\.WEBP cannot be read.*No such file"):
        source.read(np.array([2]))


def test_a_density_takes_a_folder_for_what_its_array_is(photos):
    source = load_folder(photos, size=4, mode="L")
    density = RealNVPDensity(max_epochs=1, hidden_channels=4, n_levels=1, random_state=0)
    lazy = density.fit(source).score_samples(source)
    np.testing.assert_array_equal(lazy, density.fit(source.array()).score_samples(source.array()))
    assert density.n_bins_ == 256


# Damaged files


@pytest.fixture
def damaged(photos):
    whole = (photos / "cats" / "0.png").read_bytes()
    (photos / "cats" / "cut.png").write_bytes(whole[:-40])
    (photos / "dogs" / "text.jpg").write_text("no picture")
    return photos


def test_damaged_files_are_left_out_and_named(damaged):
    with pytest.warns(
        UserWarning, match=r"left out 2 file\(s\).*cut\.png.*text\.jpg \(no picture of a format"
    ) as found:
        source = load_folder(damaged, size=(9, 7), on_error="skip")
    assert found[0].filename == __file__
    assert {path.rsplit("/", 1)[-1] for path in source.skipped_} == {"cut.png", "text.jpg"}
    assert source.y.tolist() == ["cats"] * 3 + ["dogs"] * 3
    np.testing.assert_array_equal(source.array()[0], np.asarray(picture(0)))
    assert len(source.paths) == len(source) == 6


def test_damaged_files_are_refused_at_once_or_when_read(damaged):
    with pytest.raises(ValueError, match=r"1 of 8 cannot be read: .*text\.jpg.*on_error='skip'"):
        load_folder(damaged, size=8)
    (damaged / "dogs" / "text.jpg").unlink()
    source = load_folder(damaged, size=8)
    with pytest.raises(ValueError, match=r"cut\.png cannot be read: .*; repair or remove it, or pass on_error='skip'"):
        RealNVPDensity(max_epochs=1).fit(source)


def test_only_damaged_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 files can be read: .*a\.png"):
        load_folder(tmp_path, size=8, on_error="skip")


def test_a_picture_that_claims_too_many_pixels_is_refused(tmp_path, monkeypatch):
    Image.new("1", (300, 300)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    with pytest.raises(ValueError, match=r"bomb\.png.*exceeds limit.*MAX_IMAGE_PIXELS"):
        load_folder(tmp_path, size=8)


def test_files_that_run_programs_are_never_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"a\.png \(no picture of a format that is read"):
        load_folder([tmp_path / "a.png"], size=8)


@pytest.mark.parametrize("ending", ["avif", "bmp", "gif", "jp2", "jpg", "png", "ppm", "tif", "webp"])
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    picture(size=(24, 24)).save(path)
    whole, draw = path.read_bytes(), random.Random(ending)
    n_refused = 0
    for trial in range(60):
        changed = bytearray(whole if trial % 2 else whole[: draw.randrange(len(whole))])
        for _ in range(draw.randrange(1, 6) if changed else 0):
            changed[draw.randrange(min(len(changed), 200 if trial % 3 else len(changed)))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            image = load_folder([path], size=8).array()
        except ValueError as error:
            assert f"a.{ending}" in str(error)  # noqa: PT017
            n_refused += 1
        else:
            assert (image.shape, image.dtype) == ((1, 8, 8, 3), np.uint8)
    assert n_refused > 10


# Wrong calls


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"size": 0}, r"size must be \(height, width\) or one whole number.*got 0; pass"),
        ({"size": (8, 8, 3)}, r"size must be .* got \(8, 8, 3\)"),
        ({"size": "large"}, "size must be .* got 'large'"),
        ({"size": 2.5}, "size must be .* got 2.5"),
        ({"mode": "RGBA"}, "mode must be 'RGB' or 'L', got 'RGBA'"),
        ({"fit": "squeeze"}, "fit must be 'crop', 'pad' or 'stretch', got 'squeeze'"),
        ({"limit": 0}, "limit must be a whole number >= 1, got 0"),
        ({"limit": True}, "limit must be"),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip', got 'ignore'"),
        ({"ground": 256}, "ground must be a level 0..255 or three"),
        ({"ground": (1, 2)}, "ground must be"),
        ({"ground": (1, 2, 3), "mode": "L"}, "ground must be one level 0..255 with mode='L'"),
        ({"cache_bytes": -1}, "cache_bytes must be a whole number >= 0, got -1"),
    ],
)
def test_wrong_parameters(photos, parameters, message):
    with pytest.raises(ValueError, match=message):
        load_folder(photos, **({"size": 8} | parameters))


def test_wrong_paths(photos):
    with pytest.raises(FileNotFoundError, match="path must be a folder.*nowhere', which does not exist"):
        load_folder(photos / "nowhere", size=8)
    with pytest.raises(NotADirectoryError, match=r"got the file .*README\.txt'; pass \[path\]"):
        load_folder(photos / "README.txt", size=8)
    with pytest.raises(ValueError, match="got an empty list"):
        load_folder([], size=8)
    with pytest.raises(TypeError, match="got 3 of type int"):
        load_folder(3, size=8)
    with pytest.raises(TypeError, match=r"a list with a ndarray at place 1.*PIL\.Image\.fromarray"):
        load_folder([picture(), np.zeros((8, 8))], size=8)


def test_folders_without_pictures_say_what_they_hold(tmp_path):
    with pytest.raises(ValueError, match="found no pictures in .*no files at all"):
        load_folder(tmp_path, size=8)
    (tmp_path / "a.HEIC").write_bytes(b"x")
    (tmp_path / "notes").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"1 \.heic, 1 without ending.*it reads the endings \.avif.*convert"):
        load_folder(tmp_path, size=8)
    picture().save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"formats that it does not read \(1 \.heic\)"):
        load_folder(tmp_path, size=8)
