"""What becomes of one picture, against definitions written out in numpy: sizes, modes, EXIF, alpha, 16 bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flowdetect import load_folder

BICUBIC = Image.Resampling.BICUBIC
SIDES = st.integers(1, 40)
UPRIGHT = {  # EXIF's orientation -> what turns the stored values upright
    1: lambda v: v,
    2: lambda v: v[:, ::-1],
    3: lambda v: v[::-1, ::-1],
    4: lambda v: v[::-1],
    5: lambda v: v.swapaxes(0, 1),
    6: lambda v: v.swapaxes(0, 1)[:, ::-1],
    7: lambda v: v.swapaxes(0, 1)[::-1, ::-1],
    8: lambda v: v.swapaxes(0, 1)[::-1],
}


def values(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def row(picture, **parameters):
    return load_folder([picture], **parameters).array()[0]


def fitted(image, height, width, fit, ground):
    """Say what each fit means, an own way: the crop is of the picture scaled whole, the padding a filled array."""
    wide, high = image.size
    if fit == "stretch":
        return np.asarray(image.resize((width, height), BICUBIC))
    if fit == "crop":
        scale = max(width / wide, height / high)
        left, top = (wide - width / scale) / 2, (high - height / scale) / 2
        box = (left, top, left + width / scale, top + height / scale)
        return np.asarray(image.resize((width, height), BICUBIC, box=np.clip(box, 0, [wide, high] * 2).tolist()))
    scale = min(width / wide, height / high)
    new = max(1, round(high * scale)), max(1, round(wide * scale))
    top, left = (height - new[0]) // 2, (width - new[1]) // 2
    small = np.asarray(image.resize(new[::-1], BICUBIC))
    out = np.empty((height, width, *small.shape[2:]), np.uint8)
    out[...] = ground
    out[top : top + new[0], left : left + new[1]] = small
    return out


@settings(max_examples=60, deadline=None)
@given(
    SIDES, SIDES, SIDES, SIDES, st.sampled_from(["crop", "pad", "stretch"]), st.sampled_from(["RGB", "L"]), st.data()
)
def test_every_size_is_fitted_as_defined(high, wide, height, width, fit, mode, data):
    given_mode = data.draw(st.sampled_from(["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "RGBA", "PA"]))
    image = Image.fromarray(values(high, wide, 3, seed=high * wide)).convert(given_mode)
    if given_mode in ("LA", "RGBA", "PA"):
        image.putalpha(Image.new("L", image.size, 255))
    plain = image.convert("RGB").convert(mode)
    got = row(image, size=(height, width), fit=fit, mode=mode, ground=7)
    expected = fitted(plain, height, width, fit, 7).astype(int)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1  # the edges of the crop may differ in the last bit


def test_shorter_side_is_covered_and_the_middle_kept():
    across = np.repeat(np.arange(30, dtype=np.uint8)[None], 10, axis=0)  # 10 x 30, a value a column
    image = Image.fromarray(across)
    np.testing.assert_array_equal(row(image, size=10, mode="L"), across[:, 10:20])
    padded = row(image, size=30, mode="L", fit="pad", ground=99)
    np.testing.assert_array_equal(padded[10:20], across)
    assert (np.delete(padded, range(10, 20), axis=0) == 99).all()


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg", "avif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path, orientation, ending):
    stored = values(12, 20, 3)
    if ending in ("jpg", "avif"):  # lossy: large blocks, compared with what Pillow decodes of the same without EXIF
        stored = np.repeat(np.repeat(values(3, 5, 3), 8, axis=0), 8, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"a.{ending}", exif=exif, lossless=True)
    expected = UPRIGHT[orientation](stored)
    got = row(tmp_path / f"a.{ending}", size=expected.shape[:2])
    assert np.abs(got.astype(int) - expected).mean() <= (0 if ending in ("png", "tif", "webp") else 8)


def test_exif_of_a_picture_in_memory_and_broken_exif(tmp_path):
    image = Image.fromarray(values(4, 6, 3))
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(row(image, size=(6, 4)), UPRIGHT[6](values(4, 6, 3)))
    Image.fromarray(values(4, 6, 3)).save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF")
    np.testing.assert_array_equal(row(tmp_path / "a.png", size=(4, 6)), values(4, 6, 3))


@pytest.mark.parametrize("ground", [0, 255, (10, 200, 30)])
def test_transparent_parts_show_the_ground(ground):
    rgba = values(8, 8, 4)
    share = rgba[..., 3:] / 255
    expected = share * rgba[..., :3] + (1 - share) * np.array(ground)
    assert np.abs(row(Image.fromarray(rgba), size=8, ground=ground) - expected).max() <= 1
    grey_alpha = Image.fromarray(rgba[..., [0, 3]])
    if isinstance(ground, int):
        expected = share[..., 0] * rgba[..., 0] + (1 - share[..., 0]) * ground
        assert np.abs(row(grey_alpha, size=8, ground=ground, mode="L") - expected).max() <= 1


def test_transparent_colour_of_a_palette(tmp_path):
    image = Image.fromarray(values(8, 8) % 3)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=1)
    colours = np.array([[255, 0, 0], [40, 40, 40], [0, 0, 255]])
    np.testing.assert_array_equal(row(tmp_path / "a.png", size=8, ground=40), colours[values(8, 8) % 3])


@pytest.mark.parametrize("ending", ["png", "tif", "pgm", "jp2"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_sixteen_bits_become_the_high_byte(tmp_path, ending, mode):
    deep = values(8, 8, dtype=np.uint16)
    deep[0, :3] = 0, 65535, 255
    Image.fromarray(deep).save(tmp_path / f"a.{ending}")
    expected = deep // 256 if mode == "L" else np.repeat((deep // 256)[..., None], 3, axis=2)
    np.testing.assert_array_equal(row(tmp_path / f"a.{ending}", size=8, mode=mode), expected)


def test_deep_integers_and_floats(tmp_path):
    ints, floats = values(8, 8, dtype=np.uint16).astype(np.int32), np.linspace(0, 1, 64, dtype=np.float32)
    Image.fromarray(ints).save(tmp_path / "ints.tif")
    Image.fromarray(floats.reshape(8, 8)).save(tmp_path / "floats.tif")
    np.testing.assert_array_equal(row(tmp_path / "ints.tif", size=8, mode="L"), ints // 256)
    expected = np.rint(255 * floats.astype(float)).reshape(8, 8)
    np.testing.assert_array_equal(row(tmp_path / "floats.tif", size=8, mode="L"), expected)


@pytest.mark.parametrize("lost", [np.int32(70000), np.int32(-1), np.float32(1.5), np.float32("nan")])
def test_values_of_no_known_range_are_refused(tmp_path, lost):
    Image.fromarray(np.full((8, 8), lost)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: values of mode '[IF]' must be 0.*save them with 8"):
        row(tmp_path / "a.tif", size=8)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(values(8, 8, seed=i)) for i in range(3)]
    for ending in ("gif", "tif"):
        frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(row(tmp_path / f"a.{ending}", size=8, mode="L"), values(8, 8))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_large_jpegs_are_decoded_at_less_than_full_size_with_the_same_values(tmp_path, fit, mode):
    smooth = Image.fromarray(values(12, 16, 3)).resize((640, 480), BICUBIC)
    noisy = np.clip(np.asarray(smooth) + np.random.default_rng(0).normal(0, 12, (480, 640, 3)), 0, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / "a.jpg", quality=90, exif=exif)
    full = Image.open(tmp_path / "a.jpg")
    full.load()  # what is decoded whole in memory is not decoded at less
    got = row(tmp_path / "a.jpg", size=16, fit=fit, mode=mode)
    assert np.abs(got - row(full, size=16, fit=fit, mode=mode).astype(int)).max() <= 2
