"""What an image or mask file holds beyond three bands, one page and upright rows is refused, not dropped."""

import json
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from data_trees import random_image, random_mask, write_png
from PIL import Image

from segloss.datasets.class_files import read_class_file
from segloss.datasets.finding import list_images
from segloss.datasets.images import image_size, read_image
from segloss.datasets.masks import read_mask
from segloss.datasets.transforms import read_augmentations
from segloss.errors import InputError
from segloss.pixel_counts import PixelCounts

SIZE = (20, 30)


def bands(seed, count, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 200, (*SIZE, count)).astype(dtype)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_band_is_refused_unless_it_is_full(tmp_path, name, dtype):
    pixels = bands(0, 4, dtype)
    path = write_png(tmp_path / name, pixels)
    with pytest.raises(InputError, match=r"has 4 bands, of which images here have 1 or 3"):
        read_image(path)
    if name == "a.png" or dtype == np.uint8:
        pixels[..., 3] = np.iinfo(dtype).max
        write_png(path, pixels)
        expected = pixels[..., 2::-1] if dtype == np.uint8 else pixels[..., 2::-1] >> 8
        np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("extra", ["unspecified", "assocalpha", "unassalpha"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_fourth_band_in_a_tiff_is_not_dropped_whatever_it_is_called(tmp_path, extra, compression):
    path, pixels = tmp_path / "a.tif", bands(0, 4)
    options = {"photometric": "rgb", "extrasamples": [extra], "compression": compression}
    tifffile.imwrite(path, pixels, **options)
    with pytest.raises(InputError, match=r"has 4 bands, of which images here have 1 or 3"):
        read_image(path)
    pixels[..., 3] = 255
    tifffile.imwrite(path, pixels, **options)
    np.testing.assert_array_equal(read_image(path), pixels[..., :3])


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("frames", [2, 3])
def test_an_animated_png_is_refused_and_one_frame_is_a_picture(tmp_path, frames, read):
    pictures = [Image.fromarray(random_mask(seed, SIZE, (0, 1))) for seed in range(frames)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:])
    with pytest.raises(InputError, match=r"a\.png: is an animation, of which one picture is read"):
        read(tmp_path / "a.png")
    pictures[0].save(tmp_path / "b.png", save_all=True)
    assert read(tmp_path / "b.png").shape[:2] == SIZE


def raw_tiff(path, pixels, photometric=1, compression=1, bits=8, pages=1):
    """A little-endian TIFF of one strip a page, written by hand."""
    out = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for _ in range(pages):
        data = pixels.tobytes() if compression == 1 else zlib.compress(pixels.tobytes())
        out += b"\0" * (len(out) % 2)
        at = len(out)
        out += data + b"\0" * (len(data) % 2)
        count = 1 if pixels.ndim == 2 else pixels.shape[2]
        tags = [(256, SIZE[1]), (257, SIZE[0]), (258, bits), (259, compression), (262, photometric), (273, at)]
        tags += [(277, count), (278, SIZE[0]), (279, len(data))]
        if count > 1:
            places = len(out)
            out += struct.pack(f"<{count}H", *[bits] * count) + b"\0" * (2 * count % 4)
        out[link : link + 4] = struct.pack("<I", len(out))
        out += struct.pack("<H", len(tags))
        for tag, value in tags:
            wide = tag == 258 and count > 2
            fields = (
                (3, count, places) if wide else (3, 2, bits * 65537) if tag == 258 and count == 2 else (4, 1, value)
            )
            out += struct.pack("<HHII", tag, *fields)
        link = len(out)
        out += b"\0\0\0\0"
    path.write_bytes(out)
    return path


@pytest.mark.parametrize("count", [2, 5, 8])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_other_numbers_of_bands_are_refused(tmp_path, count, read):
    with pytest.raises(InputError, match=r"a\.tif: "):
        read(raw_tiff(tmp_path / "a.tif", bands(0, count)))


@pytest.mark.parametrize("pages", [2, 3])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_several_pages_are_refused(tmp_path, pages, read):
    with pytest.raises(InputError, match=rf"a\.tif: has {pages} pages, of which one is read"):
        read(raw_tiff(tmp_path / "a.tif", random_mask(0, SIZE, (0, 1)), pages=pages))


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path):
    mask = Image.fromarray(random_mask(0, SIZE, (0, 1, 2)))
    small = mask.resize((15, 10), 0)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    mask.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), np.array(mask))


@pytest.mark.parametrize("bits", [1, 8])
def test_a_mask_stored_inverted_is_refused(tmp_path, bits):
    mask = np.zeros((SIZE[0], 4 if bits == 1 else SIZE[1]), np.uint8)
    with pytest.raises(InputError, match=r"stored inverted \(WhiteIsZero\)"):
        read_mask(raw_tiff(tmp_path / "a.tif", mask, photometric=0, bits=bits))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_in_tiff_keep_their_ids(tmp_path, compression, dtype):
    ids = random_mask(0, SIZE, (0, 1, 7)).astype(dtype) * (1 if dtype == np.uint8 else 300)
    Image.fromarray(ids).save(tmp_path / "a.tif", compression=compression)
    read = read_mask(tmp_path / "a.tif")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, ids)


@pytest.mark.parametrize("compression", ["none", "deflate", "lzw", "zstd", "lerc"])
@pytest.mark.parametrize("kind", ["rgb", "palette", "ids", "ids16", "bits"])
def test_tiles_that_gdal_did_not_store_hold_nothing(tmp_path, compression, kind):
    """Their first byte is 0: the header of the file, or another tile, was read in their place."""
    rasterio = pytest.importorskip("rasterio")
    bands, bits = 3 if kind == "rgb" else 1, {"nbits": 1} if kind == "bits" and compression != "lerc" else {}
    pixels = np.zeros((bands, 64, 64), np.uint16 if kind == "ids16" else np.uint8)
    pixels[:, :32] = np.random.default_rng(0).integers(0, 2 if bits else 9, (bands, 32, 64))
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": bands, "dtype": pixels.dtype, **bits}
    profile |= {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True, "interleave": "pixel"}
    profile |= {"photometric": "RGB"} if kind == "rgb" else {}
    colors = {value: (value, value // 2, 255 - value, 255) for value in range(256)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path := tmp_path / "a.tif", "w", compress=compression, **profile) as file:
            if kind == "palette":
                file.write_colormap(1, colors)
            file.write(pixels[:, :32], window=rasterio.windows.Window(0, 0, 64, 32))
    assert 0 in tifffile.TiffFile(path).pages[0].databytecounts
    read = read_mask(path)
    np.testing.assert_array_equal(read, np.moveaxis(pixels, 0, 2) if kind == "rgb" else pixels[0])
    if kind in ("rgb", "palette"):
        expected = read if kind == "rgb" else np.array([colors[value][:3] for value in range(256)])[read]
        np.testing.assert_array_equal(read_image(path), expected)
    elif bits:
        np.testing.assert_array_equal(read_image(path), np.repeat(255 * read[..., None], 3, 2))  # as dense ones


@pytest.mark.parametrize("fourth", [0, 255, None])
def test_a_fourth_band_of_bmp_is_dropped_only_where_it_says_nothing(tmp_path, fourth):
    pixels = bands(0, 4)
    pixels[..., 3] = pixels[..., 3] if fourth is None else fourth
    path = write_png(tmp_path / "a.bmp", pixels)
    if fourth is not None:
        np.testing.assert_array_equal(read_image(path), pixels[..., 2::-1])
        return
    with pytest.raises(InputError, match=r"a\.bmp: has 4 bands"):
        read_image(path)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("read", [read_mask, read_image])
def test_every_changed_byte_of_deflate_is_seen(tmp_path, read, tile):
    """Pillow stops where the picture is full, before the checksum: two changed bytes in five gave other ids."""
    ids = np.kron(random_mask(3, (12, 12), (0, 1, 2)), np.ones((8, 8), np.uint8))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ids, compression="deflate", tile=tile)
    whole, expected = path.read_bytes(), read(path)
    with tifffile.TiffFile(path) as file:
        places = [*zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True)]
    for place in range(60):
        start, length = places[place % len(places)]
        content = bytearray(whole)
        content[start + place * 7919 % length] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            np.testing.assert_array_equal(read(path), expected)
        except InputError:
            continue


@pytest.mark.parametrize("bits", [2, 4])
def test_a_tiff_mask_of_few_bits_keeps_its_ids(tmp_path, bits):
    """Pillow spreads them over 0..255: id 1 of 4 bits was read as 17, which may be a class."""
    ids = random_mask(0, SIZE, (0, 1, 3))
    tifffile.imwrite(tmp_path / "a.tif", ids, bitspersample=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), ids)


def test_a_tiff_mask_of_two_bands_or_negative_numbers_is_refused(tmp_path):
    ids = random_mask(0, SIZE, (0, 1))
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([ids, ids]), photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match="2 bands; save class ids"):
        read_mask(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", ids.astype(np.int8))
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), ids)
    tifffile.imwrite(tmp_path / "b.tif", -ids.astype(np.int8))
    with pytest.raises(InputError, match=r"b\.tif: mask holds negative numbers"):
        read_mask(tmp_path / "b.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_opacity_that_tells_apart_what_colours_do_not_is_refused(tmp_path, name):
    """A mask drawn in opacity alone was read as one class everywhere."""
    ids = random_mask(0, SIZE, (0, 1))
    colours = np.repeat(ids[..., None] * np.uint8(200), 3, 2)
    for opacity in (ids * 255, np.full_like(ids, 9), 255 - ids):
        Image.fromarray(np.dstack([colours, opacity])).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name), colours)
    Image.fromarray(np.dstack([0 * colours, ids * 255])).save(tmp_path / name)
    with pytest.raises(InputError, match="its opacity tells apart pixels that are of one colour"):
        read_mask(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_mask_that_exif_turns_is_refused(tmp_path, name, turn):
    """Its image is turned as it is read: a mask of 180 degrees lay upside down."""
    exif = Image.Exif()
    exif[274] = turn
    colours = np.repeat(random_mask(0, SIZE, (0, 200))[..., None], 3, 2)
    Image.fromarray(colours).save(tmp_path / name, exif=exif, lossless=True)
    if turn == 1:
        np.testing.assert_array_equal(read_mask(tmp_path / name), colours)
        return
    with pytest.raises(InputError, match=rf"{name}: is turned by its EXIF orientation; save it upright"):
        read_mask(tmp_path / name)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("read", [read_mask, read_image])
def test_a_damaged_tiff_is_no_half_picture(tmp_path, compression, read):
    blocks = np.kron(random_mask(0, (20, 30), range(9)), np.ones((8, 8), np.uint8))
    path = tmp_path / "a.tif"
    Image.fromarray(blocks).save(path, compression=compression)
    content, whole = path.read_bytes(), read(path)
    rng, refused, half = np.random.default_rng(1), 0, 0
    for _ in range(60):
        copy = bytearray(content)
        copy[int(rng.integers(8, len(content) // 2))] ^= int(rng.integers(1, 256))
        path.write_bytes(copy)
        try:
            pixels = read(path)
        except InputError as error:
            assert "a.tif" in str(error) and "\n" not in str(error)
            refused += 1
            continue
        half += pixels.shape == whole.shape and bool((pixels[-8:] == 0).all())
    assert refused > 10 and half == 0


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_a_turned_tiff_is_read_as_its_header_says(tmp_path, turn):
    image = Image.fromarray(random_image(0, SIZE))
    image.save(tmp_path / "a.tif", tiffinfo={274: turn})
    assert read_image(tmp_path / "a.tif").shape[:2] == image_size(tmp_path / "a.tif")
    expected = np.rot90(np.array(image), {3: 2, 6: 3, 8: 1}[turn])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)
    with pytest.raises(InputError, match="turned by its orientation tag"):
        read_mask(tmp_path / "a.tif")


# ---- files that are none


def test_a_pipe_is_refused_at_once(tmp_path):

    os.mkfifo(tmp_path / "a.png")
    for read in (read_image, read_mask, image_size):
        with pytest.raises(InputError, match=r"a\.png: is no regular file"):
            read(tmp_path / "a.png")


def test_a_name_that_is_no_utf_8_is_one_line(tmp_path):

    os.mknod(os.fsencode(tmp_path) + b"/a\xff.png")
    with pytest.raises(InputError, match=r"a\\xff\.png: has a name that is not UTF-8; rename it"):
        list_images(tmp_path)


NESTED = {"brackets": "[" * 5000, "braces": "{a: " * 3000, "dashes": "- " * 4000}
BOMB = "a: &a [x, x]\n" + "".join(
    f"{c}: &{c} [*{b}, *{b}, *{b}]\n" for b, c in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize("text", [*NESTED.values(), BOMB])
@pytest.mark.parametrize("name", ["classes.yaml", "classes.json", "augmentations.yaml"])
def test_nested_files_are_refused_at_once(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    read = read_augmentations if name.startswith("aug") else read_class_file
    with pytest.raises(InputError) as refusal:
        read(tmp_path / name)
    assert len(str(refusal.value)) < 600 and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "line"), [("classes.yaml", "- wall\n"), ("classes.txt", "wall\n"), ("class_dict.csv", "wall,1,2,3\n")]
)
def test_a_file_of_more_than_a_class_file_needs_is_refused_at_once(tmp_path, name, line):
    (tmp_path / name).write_text(line * 300_000)
    with pytest.raises(InputError, match=rf"{name}: has [\d,]+ bytes, more than 4096 classes need"):
        read_class_file(tmp_path / name)


def test_a_color_used_twice_by_an_alias_is_no_bomb(tmp_path):
    (tmp_path / "classes.yaml").write_text("classes: [{name: a, color: &c [1, 2, 3]}, b]\nignore: [7, *c]\n")
    assert read_class_file(tmp_path / "classes.yaml").ignore_ids == (7, 255)


# ---- class files of other tools


CLASSES = {
    "name and id": ("classes.txt", "crack 1\nbackground 0\n", ("crack", "background"), (1, 0)),
    "name, id": ("classes.txt", "bg,0\ncrack,255\n", ("bg", "crack"), (0, 255)),
    "name: id": ("classes.txt", "bg: 0\nlong crack: 3\n", ("bg", "long crack"), (0, 3)),
    "header": ("classes.txt", "name\nwall\nfloor\n", ("wall", "floor"), (0, 1)),
    "header of two": ("classes.txt", "name id\nwall 4\nfloor 2\n", ("wall", "floor"), (4, 2)),
    "cvat": ("labelmap.txt", "# label:color_rgb:parts:actions\nbg:0,0,0::\ncar:1,2,3::\n", ("bg", "car"), (0, 1)),
    "labelme": ("labels.txt", "__ignore__\n_background_\ncar\n", ("_background_", "car"), (0, 1)),
    "csv of ids": ("class_dict.csv", "name,id\nwall,3\nfloor,9\n", ("wall", "floor"), (3, 9)),
    "csv of ids and colours": ("class_dict.csv", "id;name;r;g;b\n5;a;1;2;3\n2;b;4;5;6\n", ("a", "b"), (5, 2)),
    "csv of red": ("class_dict.csv", "name,red,green,blue\nwall,1,2,3\nfloor,4,5,6\n", ("wall", "floor"), (0, 1)),
    "csv of label_id": ("class_dict.csv", "name,label_id,r,g,b\na,7,1,2,3\nb,11,4,5,6\n", ("a", "b"), (7, 11)),
    "csv of Class ID": ("class_dict.csv", "Class Name,Class ID\na,7\nb,11\n", ("a", "b"), (7, 11)),
    "csv of gray": ("class_dict.csv", "Name,R,G,B,Gray\na,1,2,3,26\nb,4,5,6,90\n", ("a", "b"), (26, 90)),
    "csv of pandas": ("class_dict.csv", ",name,r,g,b,a\n0,a,1,2,3,255\n1,b,4,5,6,255\n", ("a", "b"), (0, 1)),
    "a dict": ("classes.yaml", "background: 0\ncrack: 255\n", ("background", "crack"), (0, 255)),
    "a dict of classes": ("classes.json", '{"classes": {"bg": 0, "crack": 255}}', ("bg", "crack"), (0, 255)),
    "yolo": ("classes.yaml", "names:\n  0: bg\n  2: crack\n", ("bg", "crack"), (0, 2)),
    "quotes": ("classes.txt", "'wall'\n'long crack'\n", ("wall", "long crack"), (0, 1)),
    "a list of yaml in a text file": ("classes.txt", "- wall\n- \"floor\"\n", ("wall", "floor"), (0, 1)),
    "name=id in quotes": ("classes.txt", '"wall=4"\n"floor=2"\n', ("wall", "floor"), (4, 2)),
    "colours behind names": ("classes.txt", "sky 0 0 128\nroad,128,0,5\n", ("sky", "road"), (0, 1)),
    "labelme in yaml": ("classes.yaml", "- __ignore__\n- _background_\n- car\n", ("_background_", "car"), (0, 1)),
    "labelme in csv": ("class_dict.csv", "name,r,g,b\n__ignore__,0,0,0\na,1,2,3\nb,4,5,6\n", ("a", "b"), (0, 1)),
    "a header of category": ("classes.txt", "Category\nwall\nfloor\n", ("wall", "floor"), (0, 1)),
    "a header of two words": ("classes.txt", "Class Names:\nwall\nfloor\n", ("wall", "floor"), (0, 1)),
    "a key above a list": ("classes.txt", "names:\n- wall\n- floor\n", ("wall", "floor"), (0, 1)),
    "commas behind names": ("classes.txt", "wall,\n'floor',\n", ("wall", "floor"), (0, 1)),
    "void of 255": ("classes.txt", "wall 0\nfloor 1\nvoid 255\n", ("wall", "floor"), (0, 1)),
    "void of 255 in yaml": ("classes.yaml", "wall: 0\nunlabeled: 255\nfloor: 2\n", ("wall", "floor"), (0, 2)),
    "numbered names": ("classes.txt", "zone 1\nzone 2\n", ("zone 1", "zone 2"), (0, 1)),
    "ids behind digits": ("classes.txt", "bg 0\nzone1 2\nzone 2 1\n", ("bg", "zone1", "zone 2"), (0, 2, 1)),
    "colours behind such names": ("classes.txt", "zone1 0 0 128\nzone2,128,0,5\n", ("zone1", "zone2"), (0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("form", CLASSES)
def test_class_files_of_other_tools_give_their_own_ids(tmp_path, form):
    name, text, names, ids = CLASSES[form]
    (tmp_path / name).write_text(text)
    table = read_class_file(tmp_path / name)
    assert (table.names, table.ids) == (names, ids)


def test_colours_behind_names_are_those_of_colour_masks(tmp_path):
    (tmp_path / "classes.txt").write_text("sky 0 0 128\nvoid: 0,0,0\nroad,128,0,5\n")
    table = read_class_file(tmp_path / "classes.txt")
    assert (table.names, table.ids, 1 in table.ignore_ids) == (("sky", "road"), (0, 2), True)
    assert dict(table.mask_colors) == {(0, 0, 128): 0, (128, 0, 5): 1, (0, 0, 0): 255}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "wall\n__ignore__\nfloor\n", "__ignore__ is not the first line"),
        ("classes.yaml", "- wall\n- __ignore__\n- floor\n", "__ignore__ is not the first line"),
        ("classes.yaml", "- {name: __ignore__, id: 0}\n- floor\n- wall\n", "__ignore__ is not the first line, or has"),
        ("label_colors.txt", "0 128 64 128 road\n1 1 2 3 sky\n", "'0 128 64 128 road' has more than three numbers"),
        ("classes.txt", "road 0 128 64 128\nsky 1 1 2 3\n", "'road 0 128 64 128' has more than three numbers"),
        ("classes.txt", "void -1\nroad 0\n", "class ids must be in 0..65535"),
        ("class_dict.csv", "wall,0,0,0\nfloor,1,1,1\n", "begins with 'wall,0,0,0', which names no columns"),
        ("classes.txt", "wall\nfloor,3\n", "'floor,3' ends with a number, other lines do not"),
        ("classes.yaml", "- {name: a, name: b}\n- c\n", "has the key 'name' twice"),
        ("classes.json", '{"a": 0, "b": 1, "a": 2}', "has the key 'a' twice"),
        ("classes.txt", "1. wall\n2. floor\n", "'1. wall' begins with a number"),
        ("classes.txt", "0) wall\n1) floor\n", "'0. wall' begins with a number"),
        ("classes.txt", "0;wall\n1;floor\n", "'0;wall' begins with a number"),
        ("classes.txt", "7=wall\n2=floor\n", "'7=wall' begins with a number"),
        ("class_dict.csv", "name,r,g,b,red\na,1,2,3,4\nb,1,2,5,4\n", "has two columns 'r': r and red"),
        ("class_dict.csv", "name,id,gray\na,0,26\nb,1,90\n", "has two columns 'id': id and gray; keep one of them"),
        ("class_dict.csv", "name,nr,r,g,b\na,1,1,2,3\nb,2,4,5,6\n", "a column 'nr' of numbers, which may be the ids"),
        ("class_dict.csv", "name,label,r,g,b\na,0.0,1,2,3\nb,5.0,4,5,6\n", "a column 'label' of numbers.*; call it id"),
    ],
)
def test_class_files_that_say_two_things_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_class_file(tmp_path / name)


# ---- counts


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": [-1, 4]},
        {"pixels": [3]},
        {"images": [1, None]},
        {"ignored_pixels": None},
        {"pixels": [0, 4]},
        {"image_count": 0},
        {"class_names": "ab"},
        {"pixels": [1.5, 4]},
        {"pixels": [True, 4]},
    ],
)
def test_counts_that_cannot_be_are_refused(tmp_path, change):

    counts = PixelCounts(("a", "b"), (3, 4), (1, 1), (7, 7), 2, 1)
    counts.save(tmp_path / "c.json")
    assert PixelCounts.load(tmp_path / "c.json") == counts
    (tmp_path / "c.json").write_text(json.dumps(counts.to_dict() | change))
    with pytest.raises(InputError, match=r"c\.json: cannot be read as pixel counts"):
        PixelCounts.load(tmp_path / "c.json")
