"""Images of other bands than 8-bit RGB: found out from the headers, read without loss, gaps ignored."""

import doctest
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from band_trees import NODATA, band_tree, scene, write_geotiff
from data_trees import folder_tree, random_image, random_mask, write_png
from PIL import Image, ImageOps

from segloss import band_statistics
from segloss.band_statistics import combine, image_statistics, load_or_count_bands
from segloss.config import TrainConfig
from segloss.datasets import bands, build_dataset
from segloss.datasets.bands import RGB, Bands, bands_of, choose_bands, read_bands, show_bands
from segloss.datasets.cache import cache_in_ram
from segloss.datasets.classes import ClassTable
from segloss.datasets.images import image_size, read_header, read_image
from segloss.datasets.masks import nodata_doubt, read_mask
from segloss.datasets.mixing import Mixing
from segloss.datasets.transforms import EvalTransform, resize_image, train_transform
from segloss.doctor import examine
from segloss.doctor.pairs import examine_pair
from segloss.errors import InputError
from segloss.pixel_counts import count_dataset, load_or_count
from segloss.training.data import training_data

SIZE = (20, 30)


def numbers(seed, count, dtype, size=SIZE):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(300, 50, (*size, count)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, (*size, count), dtype=dtype, endpoint=True)


# ---- files


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("form", ["strips", "tiles", "planes", "npy"])
def test_any_bands_are_read_as_they_are_stored(tmp_path, dtype, count, form):
    pixels = numbers(count, count, dtype)
    path = tmp_path / ("a.npy" if form == "npy" else "a.tif")
    if form == "npy":
        np.save(path, pixels)
    elif form == "planes":
        write_geotiff(path, np.moveaxis(pixels, 2, 0), planarconfig="separate")
    else:
        write_geotiff(path, pixels, tile=(16, 16) if form == "tiles" else None)
    header = read_header(path)
    assert (header.size, header.bands, header.dtype) == (SIZE, count, dtype)
    found = Bands(count, dtype)
    if found.is_rgb:
        pixels = read_image(path)
    image, empty = read_bands(path, found)
    assert empty is None and image.dtype == found.array_dtype
    np.testing.assert_array_equal(image, pixels.astype(found.array_dtype))


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("predictor", [None, 2])
def test_compressed_geotiffs_are_read(tmp_path, compression, predictor):
    if (compression, predictor) == ("packbits", 2):
        predictor = None
    pixels = numbers(0, 5, "uint16")
    path = write_geotiff(tmp_path / "a.tif", pixels, compression=compression, predictor=predictor, rowsperstrip=7)
    np.testing.assert_array_equal(read_bands(path, Bands(5, "uint16"))[0], pixels)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("read", [read_header, read_image, read_mask, lambda path: read_bands(path, Bands(1))])
def test_complex_numbers_are_refused(tmp_path, dtype, read):
    """Their real part was read, which tells little."""
    path = write_geotiff(tmp_path / "a.tif", numbers(0, 1, "float32").astype(dtype))
    with pytest.raises(InputError, match=r"a\.tif: holds complex numbers; save the amplitude"):
        read(path)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_png_of_16_bits_keeps_them(tmp_path, count):
    pixels = numbers(1, count, "uint16")
    stored = pixels if count == 1 else pixels[..., [2, 1, 0, 3][:count]]
    path = write_png(tmp_path / "a.png", stored)
    assert bands_of({path: read_header(path)}) == Bands(count, "uint16")
    np.testing.assert_array_equal(read_bands(path, Bands(count, "uint16"))[0], pixels)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_a_gray_image_is_one_band_where_one_is_asked_for(tmp_path, name):
    Image.fromarray(random_mask(0, SIZE, range(200))).save(tmp_path / name)
    image, _ = read_bands(tmp_path / name, Bands(1))
    np.testing.assert_array_equal(image, read_image(tmp_path / name)[..., :1])
    assert bands_of({tmp_path / name: read_header(tmp_path / name)}) == RGB
    assert bands_of({tmp_path / name: read_header(tmp_path / name)}, 1) == Bands(1)


@pytest.mark.parametrize("turn", range(2, 9))
def test_a_turned_tiff_of_bands_is_read_upright(tmp_path, turn):
    rgb = random_image(0, SIZE)
    Image.fromarray(rgb).save(tmp_path / "rgb.tif", tiffinfo={274: turn})
    path = write_geotiff(tmp_path / "a.tif", numbers(0, 5, "uint16"), extratags=[(274, "H", 1, turn, True)])
    wide = np.concatenate([rgb, rgb[..., :2]], 2).astype(np.uint16)
    write_geotiff(path, wide, extratags=[(274, "H", 1, turn, True)])
    assert image_size(path) == image_size(tmp_path / "rgb.tif")
    np.testing.assert_array_equal(read_bands(path, Bands(5, "uint16"))[0][..., :3], read_image(tmp_path / "rgb.tif"))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("planar", [False, True])
def test_a_cut_or_changed_file_of_bands_is_no_half_image(tmp_path, compression, planar):
    pixels = np.kron(np.arange(1, 65, dtype=np.uint16).reshape(8, 8, 1), np.ones((8, 8, 4), np.uint16))
    form = (np.moveaxis(pixels, 2, 0), "separate") if planar else (pixels, "contig")
    path = write_geotiff(tmp_path / "a.tif", form[0], planarconfig=form[1], compression=compression, rowsperstrip=8)
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for place in range(60):
        copy = bytearray(content)
        if place < 30:
            copy = copy[: int(rng.integers(8, len(content) - 1))]
        else:
            copy[int(rng.integers(8, len(content)))] ^= int(rng.integers(1, 256))
        path.write_bytes(copy)
        try:
            image, _ = read_bands(path, Bands(4, "uint16"))
        except InputError as error:
            assert "a.tif" in str(error) and "\n" not in str(error)
            refused += 1
            continue
        assert place >= 30 and image.shape == pixels.shape and (image[-8:].any() or image[:8].any())
    assert refused >= 30


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_an_rgb_tiff_of_16_bits_or_planes_is_no_half_picture_whatever_its_name(tmp_path, planar, name):
    pixels = numbers(0, 3, "uint8" if planar else "uint16", (64, 64))
    pixels[...] = pixels[:1, :1] // 2 * 2 + 1
    form = (np.moveaxis(pixels, 2, 0), "separate") if planar else (pixels, "contig")
    options = {"photometric": "rgb", "planarconfig": form[1], "compression": "lzw", "rowsperstrip": 8}
    path = write_geotiff(tmp_path / name, form[0], **options)
    np.testing.assert_array_equal(read_image(path), pixels if planar else pixels >> 8)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=rf"{name}: "):
        read_image(path)


def test_damage_in_a_tiff_named_png_is_seen(tmp_path):
    blocks = np.kron(random_mask(0, SIZE, range(9)), np.ones((8, 8), np.uint8))
    path, refused = tmp_path / "a.png", 0
    Image.fromarray(blocks).save(path, format="TIFF", compression="tiff_lzw")
    content = path.read_bytes()
    for place in range(20):
        changed = bytearray(content)
        changed[len(content) // 4 + 3 * place] ^= 0x55
        path.write_bytes(changed)
        for read in (read_image, read_mask):
            try:
                assert (read(path)[-8:] != 0).any()
            except InputError as error:
                assert "a.png: " in str(error)
                refused += 1
    assert refused > 10


def test_arrays_beside_pictures_are_no_images(tmp_path):
    root = folder_tree(tmp_path, ("a", "b"), size=SIZE)
    before = [build_dataset("folder", root, split).names for split in ("train", "val")]
    np.save(root / "images/features.npy", np.zeros(3))
    np.save(root / "images/a.npy", np.zeros(3))
    datasets = [build_dataset("folder", root, split) for split in ("train", "val")]
    assert [dataset.names for dataset in datasets] == before
    assert {path.suffix for dataset in datasets for path, _ in dataset.pairs} == {".jpg"}


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 3, 4, 5)), r"is an array of float64 \(2, 3, 4, 5\), no image"),
        (np.zeros((3, 4), complex), "is an array of complex128"),
        (np.zeros((0, 4)), "no image"),
        (np.array(["a"]), "no image"),
    ],
)
def test_an_array_that_is_no_image_is_refused(tmp_path, pixels, message):
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(InputError, match=message):
        read_bands(tmp_path / "a.npy", Bands(4, "float64"))


def test_an_array_of_objects_is_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy: is not a readable image"):
        read_header(tmp_path / "a.npy")


# ---- what a set holds


def test_the_bands_of_a_set_are_those_of_most_files_and_others_are_refused_by_name(tmp_path):
    dataset = build_dataset("folder", band_tree(tmp_path), "train")
    assert choose_bands([dataset]) == Bands(4, "uint16") == choose_bands([dataset], 4)
    dataset.check_files()
    first = dataset.pairs[0][0]
    for pixels, found in (
        (scene(0)[0][..., :3], "3 bands of uint16"),
        (scene(0, dtype="float32")[0], "4 bands of float32"),
        (scene(0, dtype="int16")[0], "4 bands of int16"),
        (random_image(0, (64, 96)), "8-bit RGB"),
    ):
        write_geotiff(first, pixels, photometric="rgb" if pixels.shape[2] == 3 else "minisblack")
        again = build_dataset("folder", tmp_path, "train")
        assert choose_bands([again]) == Bands(4, "uint16", gaps=pixels.dtype.kind == "f")
        for look in (again.check_files, lambda again=again: again.read_image(0)):
            with pytest.raises(InputError, match=rf"{first.name}: holds {found}, not 4 bands of uint16"):
                look()
    with pytest.raises(InputError, match=r"and no image 7; give the number"):
        choose_bands([dataset], 7)


def test_8_bit_rgb_and_gray_stay_rgb(tmp_path):
    root = folder_tree(tmp_path, size=SIZE)
    write_png(root / "images/a.jpg", random_mask(0, SIZE, range(256)))
    dataset = build_dataset("folder", root, "train")
    assert choose_bands([dataset]) == RGB and dataset.bands.normalisation is None
    item = dataset[0]["image"]
    assert item.dtype == torch.uint8 and item.shape[0] == 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_full_fourth_band_of_8_bits_is_opacity_unless_four_are_asked_for(tmp_path, suffix):
    pixels = numbers(0, 4, "uint8")
    pixels[..., 3] = 255
    paths = [write_png(tmp_path / f"{name}{suffix}", pixels) for name in "ab"]
    headers = {path: read_header(path) for path in paths}
    assert bands_of(headers) == RGB
    assert bands_of(headers, 4) == Bands(4)
    image, _ = read_bands(paths[0], Bands(4))
    np.testing.assert_array_equal(image, pixels[..., [2, 1, 0, 3]])
    if suffix == ".tif":  # its fourth band is not said to be opacity
        write_geotiff(paths[1], numbers(1, 4, "uint8"))
        assert bands_of({path: read_header(path) for path in paths}) == Bands(4)


def test_made_up_streets_have_three_channels():
    assert choose_bands([build_dataset("synthetic", None, "val")]) == RGB
    with pytest.raises(InputError, match="has images of 3 channels, not 4"):
        choose_bands([build_dataset("synthetic", None, "val")], 4)


def test_training_finds_bands_over_all_its_splits(tmp_path):
    config = TrainConfig(dataset="folder", data_path=str(band_tree(tmp_path, count=2, dtype="float32")))
    splits = training_data(config, None)
    assert {dataset.bands for dataset in splits.all} == {Bands(2, "float32", gaps=True)}
    write_geotiff(splits.val.pairs[0][0], scene(0)[0])
    with pytest.raises(InputError, match=r"0\.tif: holds 4 bands of uint16, not 2 bands of float32"):
        training_data(config, None)


# ---- pixels that hold nothing


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint16", NODATA), ("int16", -9999), ("float32", -3.4028234663852886e38)]
)
def test_pixels_without_data_are_ignored_and_filled(tmp_path, dtype, nodata):
    dataset = build_dataset("folder", band_tree(tmp_path, nodata=nodata, dtype=dtype), "train")
    assert choose_bands([dataset]).gaps
    image, labels = dataset.read_pair(0)
    assert (labels[:, :10] == 255).all() and (labels[:, 10:] != 255).all() and (image[:, :10] == 0).all()
    dataset.bands = load_or_count_bands(dataset)
    image, _ = dataset.read_pair(0)
    np.testing.assert_allclose(image[0, 0], dataset.bands.mean, atol=1)
    assert int(dataset.histogram(0)[-1]) == 10 * 64
    assert count_dataset(dataset).ignored_pixels == 10 * 64 * len(dataset)


def write_masked(path, pixels, there, inside):
    """By GDAL, with the mask as a page or in a file of its own."""
    import rasterio

    size = dict(zip(("height", "width", "count"), pixels.shape, strict=True))
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        warnings.simplefilter("ignore")  # it lies nowhere on earth
        with rasterio.open(path, "w", driver="GTiff", dtype=pixels.dtype, **size) as file:
            file.write(np.moveaxis(pixels, 2, 0))
            file.write_mask(there)


@pytest.mark.parametrize("inside", [True, False])
def test_what_gdals_mask_leaves_out_is_ignored_and_filled(tmp_path, inside):
    pytest.importorskip("rasterio")
    root = band_tree(tmp_path, (("train", 2),))
    for path in sorted(root.rglob("*.tif")):
        pixels = tifffile.imread(path)
        path.unlink()
        mask = np.full(pixels.shape[:2], 255, np.uint8)
        mask[:, :10] = 0
        write_masked(path, pixels, mask, inside)
        assert path.with_name(f"{path.name}.msk").is_file() != inside
    dataset = build_dataset("folder", root, "train")
    assert choose_bands([dataset]).gaps
    image, labels = dataset.read_pair(0)
    assert (labels[:, :10] == 255).all() and (labels[:, 10:] != 255).all() and (image[:, :10] == 0).all()


def test_what_is_counted_is_counted_anew_where_gdals_mask_beside_an_image_changes(tmp_path):
    root = band_tree(tmp_path, (("train", 1),))
    dataset = build_dataset("folder", root, "train")
    states = [dataset.images_state()]
    for value in (0, 255):
        tifffile.imwrite(root / "images/train/0.tif.msk", np.full((64, 96 - value // 100), value, np.uint8))
        states.append(dataset.images_state())
    assert len({*states}) == 3


def test_the_doctor_counts_no_pixel_without_data(tmp_path):
    root = band_tree(tmp_path, (("train", 1),), nodata=NODATA)
    mask = read_mask(root / "masks/train/0.png")
    mask[:, 10:], mask[:, :10] = 0, 1
    write_png(root / "masks/train/0.png", mask)
    dataset = build_dataset("folder", root, "train")
    choose_bands([dataset])
    counts = count_dataset(dataset)
    assert examine_pair(dataset, 0).histogram.tolist() == [*counts.pixels, counts.ignored_pixels] == [64 * 86, 0, 640]


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("turn", [3, 6, 7])
def test_an_image_is_turned_as_its_exif_says_with_an_alpha_channel_too(tmp_path, name, bands, turn):
    pixels = np.dstack([random_image(0, (12, 17)), np.full((12, 17), 255, np.uint8)])[..., :bands]
    exif = Image.Exif()
    exif[274] = turn
    Image.fromarray(pixels).save(tmp_path / name, exif=exif, lossless=True)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)))[..., :3]
    np.testing.assert_array_equal(read_image(tmp_path / name), shown)


def test_a_gap_in_one_band_is_filled_and_its_label_kept(tmp_path):
    pixels = numbers(0, 3, "float32")
    pixels[0, 0, 1], pixels[1, 1], pixels[2, 2, 0] = np.nan, np.nan, np.inf
    path = write_geotiff(tmp_path / "a.tif", pixels)
    counted = Bands(3, "float32", mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    image, empty = read_bands(path, counted)
    assert np.argwhere(empty).tolist() == [[1, 1]]
    assert image[0, 0, 1] == 2 and image[1, 1].tolist() == [1, 2, 3] and image[2, 2, 0] == 1
    assert image[0, 0, 0] == pixels[0, 0, 0]


@pytest.mark.parametrize("nodata", ["-9999", "nan", "70000", "1e40"])
def test_a_nodata_value_that_no_pixel_has_changes_nothing(tmp_path, nodata):
    pixels = numbers(0, 4, "uint16")
    path = write_geotiff(tmp_path / "a.tif", pixels, nodata)
    image, empty = read_bands(path, Bands(4, "uint16"))
    assert empty is None
    np.testing.assert_array_equal(image, pixels)


def test_an_image_that_alone_names_no_nodata_value_is_warned_of(tmp_path):
    """Its -9999 are data; headers tell, of the files outside the sample too."""
    root = band_tree(tmp_path, (("train", 40),), nodata=-9999, dtype="int16")
    dataset = build_dataset("folder", root, "train")
    choose_bands([dataset])
    assert not [found for found in examine([dataset], "sample")[0] if "nodata" in str(found)]
    pixels, _ = scene(0, dtype="int16")
    write_geotiff(root / "images/train/0.tif", pixels)
    dataset = build_dataset("folder", root, "train")
    choose_bands([dataset])
    (found,) = [found for found in examine([dataset], "sample")[0] if "nodata" in str(found)]
    assert (found.severity, found.fault.where) == ("warning", root / "images/train/0.tif")
    assert found.fault.what == "names no nodata value, most images of train do (-9999)"


@pytest.mark.parametrize(("without", "by"), [("val", "train"), ("train", "val")])
def test_a_split_that_names_no_nodata_value_is_warned_of_where_another_does(tmp_path, without, by):
    root = band_tree(tmp_path, (("train", 3), ("val", 2)), nodata=-9999, dtype="int16")
    for path in (root / f"images/{without}").iterdir():
        write_geotiff(path, scene(0, dtype="int16")[0])
    datasets = [build_dataset("folder", root, split) for split in ("train", "val")]
    choose_bands(datasets)
    (found,) = [found for found in examine(datasets, "sample")[0] if "nodata" in str(found)]
    assert found.split == without and f"names no nodata value, most images of {by} do (-9999) (and" in str(found)


def test_a_nodata_value_that_is_no_number_is_refused(tmp_path):
    path = write_geotiff(tmp_path / "a.tif", numbers(0, 4, "uint16"), "none")
    with pytest.raises(InputError, match=r"names 'none' as its nodata value, which is no number"):
        read_bands(path, Bands(4, "uint16"))


@pytest.mark.parametrize("nodata", ["0", "0.0"])
def test_a_mask_whose_nodata_value_is_a_class_is_told(tmp_path, nodata):
    """Pixels that nobody had labelled were counted, learnt and scored as that class without a word."""
    root = folder_tree(tmp_path, images="a", splits=("train",), ids=(0, 1, 2))
    mask = read_mask(root / "masks/train/a.png")
    (root / "masks/train/a.png").unlink()
    write_geotiff(root / "masks/train/a.tif", mask, nodata)
    said = [str(finding) for finding in examine([build_dataset("folder", root, "train")])[0]]
    assert [line for line in said if f"a.tif: names {nodata} as its nodata value, which is read as class wall" in line]


@pytest.mark.parametrize("held", [1, 255])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_classes_that_the_mask_of_a_label_map_leaves_out_are_told(tmp_path, monkeypatch, held, large, beside):
    pytest.importorskip("rasterio")
    root = folder_tree(tmp_path, images="a", splits=("train",), size=(48, 64))
    (root / "masks/train/a.png").unlink()
    labels, there = np.zeros((48, 64), np.uint8), np.full((48, 64), 255, np.uint8)
    labels[:, :10], there[:, :10] = held, 0
    write_masked(root / "masks/train/a.tif", labels[..., None], there, not beside)
    monkeypatch.setattr("segloss.datasets.base.LARGE", 100 if large else 2**26)
    found = told(root, "its mask leaves out")
    what = "a.tif: its mask leaves out 480 pixels that are read as classes, as floor; if nobody labelled"
    assert len(found) == (held == 1) and (held != 1 or what in found[0])


@pytest.mark.parametrize("nodata", ["0", "255", "7", "-9999", "nan", "none", ""])
def test_a_nodata_value_that_is_ignored_or_that_no_pixel_has_is_no_fault_of_a_mask(tmp_path, nodata):
    path = write_geotiff(tmp_path / "a.tif", random_mask(0, SIZE, (0, 1, 255)), nodata)
    table = ClassTable(("a", "b", "c"), ids=(1, 2, 7), ignore_ids=(0,))
    assert nodata_doubt(read_mask(path), table, path) is None


def test_a_colour_of_nodata_is_a_class_or_ignored_as_an_id_is(tmp_path):
    mask = np.array([[[0, 0, 0], [0, 0, 9]]], np.uint8)
    path = write_geotiff(tmp_path / "a.tif", mask, "0", photometric="rgb")
    colors = ((0, 0, 0), (0, 0, 9), (5, 5, 5))
    ignoring = ClassTable(("a", "b"), mask_colors=((colors[0], 255), (colors[1], 0), (colors[2], 1)))
    assert nodata_doubt(read_mask(path), ignoring, path) is None
    every = ClassTable(("a", "b", "c"), mask_colors=tuple(zip(colors, (2, 0, 1), strict=True)))
    assert "names 0 as its nodata value, which is read as class c" in str(nodata_doubt(mask, every, path))


def test_counts_are_made_anew_where_an_image_with_gaps_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    root = band_tree(tmp_path / "data", nodata=NODATA)

    def ignored():
        dataset = build_dataset("folder", root, "train")
        choose_bands([dataset])
        counts, source = load_or_count(dataset)
        return counts.ignored_pixels, source == "counted", load_or_count_bands(dataset).mean

    first, counted, mean = ignored()
    assert counted and ignored() == (first, False, mean)
    pixels = scene(5000)[0]
    pixels[:, :20] = NODATA
    write_geotiff(root / "images/train/0.tif", pixels, NODATA)
    second, counted, other = ignored()
    assert counted and second == first + 10 * 64 and other != mean


# ---- what the doctor says of the tags


def told(root: Path, kind: str, check: str = "all") -> list[str]:
    dataset = build_dataset("folder", root, "train")
    choose_bands([dataset])
    return [str(found) for found in examine([dataset], check)[0] if kind in str(found)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("kind", "extra", "said"),
    [("opacity", 2, True), ("opacity", 1, True), ("opacity", 0, False), ("infrared", 2, False), ("full", 2, False)],
)
def test_transparent_pixels_that_are_read_as_data_are_told(tmp_path, dtype, kind, extra, said):
    """Opacity was learnt as a band, and what it hides as the class that the mask has there."""
    root = band_tree(tmp_path, (("train", 2),), count=5, dtype=dtype)
    for path in (root / "images/train").iterdir():
        pixels = tifffile.imread(path)
        if kind != "infrared":  # of any values, though it is marked as opacity
            pixels[..., -1] = np.iinfo(dtype).max
        if kind == "opacity":
            pixels[:, :24, -1] = 0
        write_geotiff(path, pixels, extrasamples=(0, 0, 0, extra))
    found = told(root, "opacity")
    assert len(found) == said
    if said:
        assert "its last band is opacity, 0 on 25.0% of the pixels, which is read as data (and 1 more" in found[0]
        assert "as gdal_translate -b 1 -b 2 -b 3 -b 4 -mask 5 does, or name a nodata value" in found[0]


@pytest.mark.parametrize(
    ("x", "y", "scale", "said"),
    [
        *((500000.0, 4000000.0, 10.0, ""), (500005.0, 3999995.0, 10.0, ""), (500000.0, 4000000.0, None, "")),
        (501000.0, 4000000.0, 10.0, "is of another place than its image: 100.0 columns, 0.0 rows off"),
        (500000.0, 4000000.0, 9.0, "is of another place than its image: 9.6 columns, 6.4 rows off"),
        (500000.0, 4000000.0, (10.0, 0.0, 0.0, -10.0), ""),
        (500000.0, 3999360.0, (10.0, 0.0, 0.0, 10.0), "is of another place than its image: 0.0 columns, 64.0 rows off"),
        (500000.0, 4000000.0, (0.0, 10.0, -10.0, 0.0), "is of another place than its image: 96.0 columns, 96.0 rows"),
    ],
)
@pytest.mark.parametrize("check", ["all", "sample"])
def test_a_mask_of_another_place_is_told(tmp_path, x, y, scale, said, check):
    root = band_tree(tmp_path, (("train", 18 if check == "sample" else 1),))
    name = build_dataset("folder", root, "train").names[4 if check == "sample" else 0]  # which is not decoded

    def placed(x, y, scale):
        if isinstance(scale, tuple):  # as GDAL writes rows from the south on, and turned ones
            a, b, c, d = scale
            return [(34264, "d", 16, (a, b, 0.0, x, c, d, 0.0, y, *(0.0,) * 7, 1.0), True)]
        tags = [(33550, "d", 3, (scale, scale, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, x, y, 0.0), True)]
        return tags if scale else []

    pixels, labels = scene(5000)
    write_geotiff(root / f"images/train/{name}.tif", pixels, extratags=placed(500000.0, 4000000.0, 10.0))
    (root / f"masks/train/{name}.png").unlink()
    write_geotiff(root / f"masks/train/{name}.tif", labels, extratags=placed(x, y, scale))
    found = told(root, "another place", check)
    assert len(found) == bool(said) and (not said or f"{name}.tif: {said}" in found[0])


# ---- mean and standard deviation


@pytest.mark.parametrize("offset", [0, 1e7])
def test_statistics_are_those_of_all_pixels_at_once(offset):
    rng = np.random.default_rng(0)
    images = [rng.normal(offset + k, 1 + k, (7 + k, 5, 3)) for k in range(4)]
    masks = [rng.random(image.shape) < 0.2 for image in images]
    mean, std = combine(np.stack([image_statistics(i, m) for i, m in zip(images, masks, strict=True)]))
    for band in range(3):
        kept = np.concatenate([i[..., band][~m[..., band]] for i, m in zip(images, masks, strict=True)])
        assert mean[band] == pytest.approx(kept.mean(), rel=1e-14)
        assert std[band] == pytest.approx(kept.std(), rel=1e-9)


def test_a_band_of_one_value_has_std_1_and_one_without_any_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    root = band_tree(tmp_path / "data", dtype="float32")
    for path in root.glob("images/*/*.tif"):
        pixels = tifffile.imread(path)
        pixels[..., 1] = 7
        write_geotiff(path, pixels)
    dataset = build_dataset("folder", root, "train")
    choose_bands([dataset])
    found = load_or_count_bands(dataset)
    assert (found.mean[1], found.std[1]) == (7, 1)
    for path in root.glob("images/*/*.tif"):
        pixels = tifffile.imread(path)
        pixels[..., 1] = np.nan
        write_geotiff(path, pixels)
    with pytest.raises(InputError, match="band 2 holds nothing in any image"):
        load_or_count_bands(dataset)


def test_numbers_that_no_mean_can_be_made_of_are_refused_by_file(tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    root = band_tree(tmp_path / "data", nodata=None, dtype="float32")
    path = root / "images/train/3.tif"
    pixels = tifffile.imread(path)
    pixels[:2, :2, 1] = np.finfo(np.float32).min
    write_geotiff(path, pixels)
    dataset = build_dataset("folder", root, "train")
    choose_bands([dataset])
    with pytest.raises(InputError, match=r"3\.tif: holds numbers beyond 1e19 in band 2.*nodata value") as refusal:
        load_or_count_bands(dataset)
    assert str(path) in str(refusal.value) and not recwarn.list


def test_numbers_beyond_float32_are_no_data(tmp_path):
    pixels = np.ones((4, 4, 2))
    pixels[0, 0] = np.finfo(np.float64).min
    np.save(tmp_path / "a.npy", pixels)
    image, empty = read_bands(tmp_path / "a.npy", Bands(2, "float64", gaps=True))
    assert np.isfinite(image).all() and empty is not None and empty.sum() == empty[0, 0] == 1


def test_8_bit_rgb_is_not_counted(tmp_path):
    dataset = build_dataset("folder", folder_tree(tmp_path, size=SIZE), "train")
    choose_bands([dataset])
    assert load_or_count_bands(dataset) is dataset.bands


# ---- transforms, cache, pictures

COUNTED = {count: Bands(count, "uint16", False, (800.0,) * count, (200.0,) * count) for count in (1, 2, 4, 6, 13)}


@pytest.mark.parametrize("count", COUNTED)
@pytest.mark.parametrize("color", ["none", "light", "strong"])
def test_every_built_in_augmentation_takes_any_bands(count, color):
    pixels, labels = scene(0, count=count)
    transform = train_transform((48, 128), 0, scale_range=(0.5, 1.5), color=color, bands=COUNTED[count])
    for epoch in range(6):
        image, made = transform(pixels, labels, (epoch, 0))
        assert image.shape == (48, 128, count) and made.shape == (48, 128)
        again, _ = transform(pixels, labels, (epoch, 0))
        np.testing.assert_array_equal(image, again)
        if color == "none" and (made == 255).any():
            np.testing.assert_array_equal(np.unique(image[made == 255]), [800])


@pytest.mark.parametrize("color", ["light", "strong"])
def test_gray_of_8_bits_as_one_channel_stays_in_8_bits(tmp_path, color):
    root = band_tree(tmp_path, count=1, dtype="uint8")
    datasets = [build_dataset("folder", root, "train") for _ in range(2)]
    assert choose_bands(datasets[:1]) == RGB and choose_bands(datasets[1:], 1) == Bands(1)
    datasets[1].bands = load_or_count_bands(datasets[1])
    datasets[1].transform = train_transform((48, 128), 0, color=color, bands=datasets[1].bands)
    made = [datasets[1][epoch, 0]["image"] for epoch in range(6)]
    assert {(image.dtype, tuple(image.shape)) for image in made} == {(torch.uint8, (1, 48, 128))}
    assert len({int(image.float().mean()) for image in made}) > 2
    assert datasets[0][0]["image"].shape == (3, 64, 96)


@pytest.mark.parametrize("kind", ["cutmix", "classmix", "paste"])
def test_samples_of_two_images_are_mixed_in_all_bands(tmp_path, kind):
    dataset = build_dataset("folder", band_tree(tmp_path, count=5), "train")
    choose_bands([dataset])
    dataset.bands = load_or_count_bands(dataset)
    options = {"color": "none", "class_pixels": [9, 1], "seeks": True}
    dataset.transform = train_transform((48, 128), 0, bands=dataset.bands, **options)
    plain = [dataset[0, index]["image"] for index in range(4)]
    dataset.mixing = Mixing(kind, 1.0, 0, {1: np.arange(len(dataset))})
    mixed = [dataset[0, index]["image"] for index in range(4)]
    assert {tuple(image.shape) for image in mixed} == {(5, 48, 128)}
    assert any(bool((a != b).any()) for a, b in zip(plain, mixed, strict=True))


def test_contrast_and_level_change_all_bands_alike_and_beyond_1():
    counted = Bands(2, "float32", False, (1000.0, -5.0), (100.0, 2.0))
    pixels = np.stack([np.full((40, 40), 1100.0), np.full((40, 40), -3.0)], 2).astype(np.float32)
    seen = set()
    for epoch in range(20):
        image, _ = train_transform((32, 32), 0, bands=counted)(pixels, np.zeros((40, 40), np.uint8), (epoch, 0))
        in_std = (image - np.float32(counted.mean)) / np.float32(counted.std)
        np.testing.assert_allclose(in_std, in_std[0, 0, 0], rtol=1e-3)
        seen.add(round(float(in_std[0, 0, 0]), 2))
    assert len(seen) > 10 and 0.5 <= min(seen) < 0.9 and 1.1 < max(seen) <= 1.5


def test_own_pipelines_see_floats_in_0_to_1_and_give_back_the_files_numbers(tmp_path):
    path = tmp_path / "own.yaml"
    pixels, labels = scene(0)
    path.write_text("- HorizontalFlip: {p: 1}\n")
    image, made = train_transform((64, 96), 0, augmentations=path, bands=COUNTED[4])(pixels, labels, (0, 0))
    np.testing.assert_allclose(image, pixels[:, ::-1], rtol=1e-5)
    np.testing.assert_array_equal(made, labels[:, ::-1])
    path.write_text("- RandomBrightnessContrast: {brightness_limit: [0.1, 0.1], contrast_limit: [0, 0], p: 1}\n")
    image, _ = train_transform((64, 96), 0, augmentations=path, bands=COUNTED[4])(pixels, labels, (0, 0))
    clipped = np.clip(pixels + 160.0, 0, 1600)
    np.testing.assert_allclose(image, clipped, rtol=1e-4)
    path.write_text("- ColorJitter: {p: 1}\n")
    with pytest.raises(InputError, match=r"own\.yaml: cannot be applied.*1-channel or 3-channel"):
        train_transform((64, 96), 0, augmentations=path, bands=COUNTED[4])(pixels, labels, (0, 0))


@pytest.mark.parametrize("count", [1, 4, 6, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_images_are_resized_with_all_their_bands(count, dtype):
    pixels = scene(0, count=count, dtype=dtype)[0]
    for factor in (0.5, 0.75, 1, 1.5):
        resized = resize_image(pixels, factor)
        assert resized.shape == (round(64 * factor), round(96 * factor), count) and resized.dtype == dtype
        for band in range(count):
            alone = resize_image(pixels[..., [band]], factor)[..., 0]
            # OpenCV takes other ways for more than four bands: whole numbers may be rounded otherwise, floats summed.
            np.testing.assert_allclose(resized[..., band].astype(float), alone, atol=dtype != "float32", rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_cache_keeps_all_bands(tmp_path, dtype):
    trees = [band_tree(tmp_path / "a", dtype=dtype, size=(32, 48), count=5), folder_tree(tmp_path / "b", size=(11, 13))]
    datasets = [build_dataset("folder", tree, "train", EvalTransform()) for tree in trees]
    for dataset in datasets:
        choose_bands([dataset])
    plain = [[dataset[index] for index in range(len(dataset))] for dataset in datasets]
    cache_in_ram(datasets)
    for _ in range(2):
        for dataset, before in zip(datasets, plain, strict=True):
            for index, item in enumerate(before):
                torch.testing.assert_close(dataset[index]["image"], item["image"], rtol=0, atol=0)
                torch.testing.assert_close(dataset[index]["labels"], item["labels"])
    assert all(bool(dataset.cache.ready.all()) for dataset in datasets)


def test_pictures_show_the_bands_asked_for():
    image = np.zeros((10, 10, 4), np.uint8) + np.array([10, 20, 30, 40], np.uint8)
    assert Bands(4).picture(image)[0, 0].tolist() == [10, 20, 30]
    assert Bands(4, shown=(4, 2, 1)).picture(image)[0, 0].tolist() == [40, 20, 10]
    assert Bands(4, shown=(3,)).picture(image)[0, 0].tolist() == [30, 30, 30]
    assert Bands(2).picture(image[..., :2])[0, 0].tolist() == [10, 10, 10]
    assert RGB.picture(image[..., :3])[0, 0].tolist() == [10, 20, 30]
    deep = np.arange(100, dtype=np.float32).reshape(10, 10, 1) * 1000
    picture = Bands(1, "float32").picture(deep)
    assert picture.shape == (10, 10, 3) and picture.dtype == np.uint8 and picture.min() == 0 and picture.max() == 255
    assert Bands(1, "float32").picture(deep * 0).max() == 0
    with pytest.raises(InputError, match=r"--show-bands 5 is not there: images hold 4 bands of uint8"):
        show_bands([], Bands(4), (5, 2, 1))


def test_an_array_with_its_bands_first_says_how_to_save_it(tmp_path):
    root = band_tree(tmp_path)
    for path in root.glob("images/*/*.tif"):
        np.save(path.with_suffix(".npy"), np.moveaxis(tifffile.imread(path), 2, 0))
        path.unlink()
    with pytest.raises(InputError, match=r"save the array as \(height, width, bands\)"):
        build_dataset("folder", root, "train").check_files()


def test_masks_may_be_arrays(tmp_path):
    root = band_tree(tmp_path, dtype="float32")
    for path in (*root.glob("images/*/*.tif"), *root.glob("masks/*/*.png")):
        np.save(path.with_suffix(".npy"), tifffile.imread(path) if path.suffix == ".tif" else cv2.imread(str(path), 0))
        path.unlink()
    dataset = build_dataset("folder", root, "train")
    dataset.check_files()
    np.testing.assert_array_equal(dataset.read_labels(0), scene(5000)[1])
    np.save(dataset.pairs[0][1], np.full((64, 96), -1))
    with pytest.raises(InputError, match=r"mask is an array of int64 with 1 bands, from -1 to -1"):
        dataset.read_labels(0)


@pytest.mark.parametrize("module", [bands, band_statistics])
def test_examples_give_what_they_say(module):
    assert doctest.testmod(module).failed == 0 < doctest.testmod(module).attempted
