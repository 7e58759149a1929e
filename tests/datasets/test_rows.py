"""Rows read from a file are those of the whole image, for every kind of file; damage is told in one line."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from data_trees import random_mask
from PIL import Image

from segloss.datasets import rows as rows_module
from segloss.datasets.images import image_size, read_image
from segloss.datasets.masks import read_mask
from segloss.datasets.rows import image_rows, mask_rows
from segloss.errors import InputError


def smooth(seed=0, size=(61, 83)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (9, 9), 3)


def gathered(read, height, step=7):
    return np.concatenate([read(top, min(height, top + step)) for top in range(0, height, step)])


IMAGES = {
    "rgb.png": lambda path: Image.fromarray(smooth()).save(path),
    "grey.png": lambda path: Image.fromarray(smooth()[..., 0]).save(path),
    "palette.png": lambda path: Image.fromarray(smooth()).convert("P").save(path),
    "one_bit.png": lambda path: Image.fromarray(smooth()[..., 0] > 127).save(path),
    "deep.png": lambda path: cv2.imwrite(str(path), smooth().astype(np.uint16) * 257),
    "alpha.png": lambda path: Image.fromarray(smooth()).convert("RGBA").save(path),
    "strips.tif": lambda path: Image.fromarray(smooth()).save(path, compression="tiff_lzw"),
    "plain.tif": lambda path: Image.fromarray(smooth()).save(path),
    "grey.tif": lambda path: Image.fromarray(smooth()[..., 0]).save(path),
    "alpha.tif": lambda path: Image.fromarray(smooth()).convert("RGBA").save(path),
    "palette.tif": lambda path: Image.fromarray(smooth()).convert("P").save(path),
    "picture.bmp": lambda path: Image.fromarray(smooth()).save(path),
    "tiles.tif": lambda path: tiled(path, smooth()),
    "planes.tif": lambda path: tiled(path, smooth(), interleave="band"),
}


def tiled(path, pixels, **options):
    import rasterio

    height, width, bands = pixels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": pixels.dtype}
    profile |= {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate", "photometric": "RGB"}
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path, "w", **profile, **options) as file:
        file.write(np.moveaxis(pixels, -1, 0))


@pytest.mark.parametrize("name", IMAGES)
def test_rows_of_an_image_are_those_of_the_whole_one(tmp_path, name):
    path = tmp_path / name
    IMAGES[name](path)
    np.testing.assert_array_equal(gathered(image_rows(path), 61), read_image(path))


def test_rows_of_a_jpeg_are_the_whole_one_but_for_how_a_decoder_rounds(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(size=(64, 96))).save(path, quality=95, subsampling=0)
    difference = gathered(image_rows(path), 64).astype(int) - read_image(path)
    assert np.abs(difference).max() <= 2  # the two inverse cosine transforms


def test_a_turned_photograph_is_upright_by_rows_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", exif=exif)
    np.testing.assert_array_equal(gathered(image_rows(tmp_path / "a.jpg"), 83), read_image(tmp_path / "a.jpg"))


MASKS = {
    "ids.png": lambda path: Image.fromarray(random_mask(0, (61, 83))).save(path),
    "deep.png": lambda path: cv2.imwrite(str(path), random_mask(0, (61, 83)).astype(np.uint16) * 200),
    "palette.png": lambda path: palette(path),
    "palette.tif": lambda path: palette(path),
    "two_bit.png": lambda path: two_bit(path),
    "color.png": lambda path: Image.fromarray(smooth()).save(path),
    "alpha.png": lambda path: Image.fromarray(smooth()).convert("RGBA").save(path),
    "ids.tif": lambda path: Image.fromarray(random_mask(0, (61, 83))).save(path, compression="tiff_deflate"),
    "one_bit.tif": lambda path: Image.fromarray(random_mask(0, (61, 83)) > 0).save(path),
}


def palette(path):
    picture = Image.fromarray(random_mask(0, (61, 83)), mode="P")
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    picture.save(path)


def two_bit(path):
    picture = Image.fromarray(random_mask(0, (61, 83), ids=(0, 1, 2, 3)), mode="P")
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 12).tolist())
    picture.save(path, bits=2)


@pytest.mark.parametrize("name", MASKS)
def test_rows_of_a_mask_are_those_of_the_whole_one(tmp_path, name):
    path = tmp_path / name
    MASKS[name](path)
    np.testing.assert_array_equal(gathered(mask_rows(path), 61), read_mask(path))


def interlaced(path):
    """A PNG in Adam7 order of 1x1 pixel: the smallest there is."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0\7")), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)
    return path


def test_what_cannot_be_read_by_rows_is_decoded_whole(tmp_path, monkeypatch):
    assert rows_module._opened(interlaced(tmp_path / "a.png")) is None
    assert gathered(image_rows(tmp_path / "a.png"), 1).tolist() == [[[7, 7, 7]]]
    Image.fromarray(smooth()).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={278: 61})
    monkeypatch.setattr(rows_module, "LARGE", 1000)  # pixels: its only strip has more
    assert rows_module._opened(tmp_path / "a.tif") is None
    np.testing.assert_array_equal(gathered(image_rows(tmp_path / "a.tif"), 61), smooth())


@pytest.mark.parametrize("name", ["rgb.png", "strips.tif", "plain.tif", "tiles.tif", "picture.jpg"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_one_line(tmp_path, name, share):
    whole = tmp_path / name
    IMAGES.get(name, lambda path: Image.fromarray(smooth()).save(path))(whole)
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        InputError, match=rf"{name}: (is cut off|is damaged or cut off at rows|is not a readable image)"
    ):
        gathered(image_rows(whole), 61)


def test_a_changed_byte_of_a_png_is_found_where_it_is_read(tmp_path):
    IMAGES["rgb.png"](tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png: is damaged or cut off at rows \d+ to \d+"):
        gathered(image_rows(tmp_path / "a.png"), 61)


def test_alpha_that_says_something_is_refused_as_in_the_whole_image(tmp_path):
    pixels = np.dstack([smooth(), np.full((61, 83), 255, np.uint8)])
    pixels[40, 3, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="has 4 bands"):
        gathered(image_rows(tmp_path / "a.tif"), 61)


def test_a_mask_as_jpeg_or_of_several_channels_is_refused(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "a.jpg")
    Image.fromarray(smooth()[..., :2]).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="a JPEG does not keep ids"):
        mask_rows(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="mask has 2 channels of uint8"):
        mask_rows(tmp_path / "b.png")


@pytest.mark.parametrize("turn", [3, 6])
def test_a_mask_that_exif_turns_is_refused_by_rows_too(tmp_path, turn):
    """It was read as it lies in the file."""
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(random_mask(0, (61, 83))).save(tmp_path / "a.png", exif=exif)
    for read in (read_mask, mask_rows):
        with pytest.raises(InputError, match=r"a\.png: is turned by its EXIF orientation; save it upright, as PNG"):
            read(tmp_path / "a.png")


def test_the_header_of_an_image_beyond_pillows_limit_is_read_and_its_pixels_refused(tmp_path, monkeypatch):
    IMAGES["plain.tif"](tmp_path / "a.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert image_size(tmp_path / "a.tif") == (61, 83)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(InputError, match=r"a\.tif: has more pixels than Pillow opens; .*--tile reads by windows"):
        read_image(tmp_path / "a.tif")


def test_without_rasterio_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    IMAGES["plain.tif"](tmp_path / "a.tif")
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(InputError, match=r"a\.tif: .*rasterio reads by windows.*; pip install rasterio"):
        image_rows(tmp_path / "a.tif")
