"""Images of other bands than 8-bit RGB from files to the exported network."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile
import torch
import yaml
from band_trees import NODATA, band_tree, scene, write_geotiff
from street_trees import TINY

import eval_seg
import segloss
import train_seg
from segloss.datasets.bands import Bands, read_bands, show_bands
from segloss.datasets.transforms import EvalTransform
from segloss.doctor.command import main as doctor
from segloss.errors import InputError
from segloss.evaluation.run_source import RunSource
from segloss.export import command as export
from segloss.models import build_model, require_batch_statistics
from segloss.resume import continued_bands

FAST = [*TINY, "--loss", "ce", "--lr", "5e-3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Four bands of 16 bits, GeoTIFF with pixels that hold nothing: the run folder, and the data."""
    root = tmp_path_factory.mktemp("bands")
    data = band_tree(root / "data", nodata=NODATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        flags = ["--dataset", "folder", "--data-path", str(data), "--output-dir", str(root / "run")]
        train_seg.train(
            [*flags, *FAST, "--show-bands", "4", "2", "1", "--cache", "ram", "--batch-size", "2", "--epochs", "8"]
        )
    return root / "run", data


def test_a_geotiff_set_of_four_bands_and_16_bits_trains(trained):
    folder, data = trained
    run = segloss.load_run(folder)
    assert (run.bands.count, run.bands.dtype, run.bands.shown) == (4, "uint16", (4, 2, 1))
    assert run.model.network.encoder.conv1.weight.shape[1] == 4
    kept = np.concatenate([tifffile.imread(path)[:, 10:].reshape(-1, 4) for path in data.glob("images/train/*.tif")])
    np.testing.assert_allclose(run.bands.mean, kept.mean(0), rtol=1e-12)
    np.testing.assert_allclose(run.bands.std, kept.std(0), rtol=1e-12)
    np.testing.assert_allclose(255 * run.model.mean.flatten(), kept.mean(0), rtol=1e-6)  # float32 buffers
    assert Bands.from_dict(json.loads((folder / "bands.json").read_text())).mean == run.bands.mean
    assert yaml.safe_load((folder / "used.yaml").read_text())["channels"] == 4
    counts = json.loads((folder / "pixel_counts.json").read_text())
    assert counts["ignored_pixels"] == 6 * 64 * 10
    scores = json.loads((folder / "test_metrics.json").read_text())
    assert scores["pixel_accuracy"] > 0.8
    assert (folder / "predictions.png").is_file()


def test_it_evaluates_by_windows_with_the_runs_pictures(trained, tmp_path):
    folder, _ = trained
    common = ["--checkpoint", str(folder), "--accelerator", "cpu", "--workers", "0", "--output-dir"]
    eval_seg.evaluate([*common, str(tmp_path / "whole")])
    eval_seg.evaluate([*common, str(tmp_path / "windows"), "--tile", "64", "64", "--tta-flip"])
    assert (tmp_path / "windows/report.html").read_text().count("data:image/jpeg") > 0
    told = [json.loads((tmp_path / way / "metrics.json").read_text()) for way in ("whole", "windows")]
    assert all('"pixel_accuracy": ' in json.dumps(content) for content in told)


def test_suspects_are_shown_in_the_runs_pictures(trained, tmp_path):
    run = segloss.load_run(trained[0])
    dataset = run.config.open("test", EvalTransform(1.0))
    show_bands([dataset], run.bands, ())
    source = RunSource("run", run, dataset, device=torch.device("cpu"))
    shown = source.image(source.names[0])
    assert shown.dtype == np.uint8 and shown.shape == (*source.dataset.image_size(0), 3)
    assert np.array_equal(shown, source.dataset.read_picture(0)) and 20 < shown.mean() < 235
    eval_seg.evaluate(["--checkpoint", str(trained[0]), "--suspects", "5", "--workers", "0", "--check", "off",
                       "--output-dir", str(tmp_path / "out")])  # fmt: skip
    assert (tmp_path / "out/suspects-run.html").is_file()


def test_images_of_other_bands_are_refused_by_name_and_those_of_the_run_predicted(trained, tmp_path):
    folder, data = trained
    flags = ["--checkpoint", str(folder), "--accelerator", "cpu", "--workers", "0", "--output-dir", str(tmp_path / "p")]
    eval_seg.evaluate([*flags, "--images", str(data / "images/test"), "--save", "ids", "overlay"])
    assert len([*(tmp_path / "p").rglob("*.png")]) == 4
    write_geotiff(tmp_path / "other/a.tif", scene(0, count=5)[0])
    with pytest.raises(InputError, match=r"a\.tif: holds 5 bands of uint16, not 4 bands of uint16"):
        eval_seg.evaluate([*flags, "--images", str(tmp_path / "other")])


def test_predict_takes_the_runs_bands_and_no_others(trained):
    folder, data = trained
    run = segloss.load_run(folder)
    path = next(data.glob("images/test/*.tif"))
    image, _ = read_bands(path, run.bands)
    predicted = run.predict(image)
    with torch.inference_mode():
        batch = torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1).copy())[None]
        np.testing.assert_array_equal(predicted, run.decode(run.model(batch))[0].numpy())
    gaps = np.ma.masked_array(image, image < np.median(image))
    filled = np.where(gaps.mask, np.asarray(run.bands.fill).astype(np.uint16), image)
    assert not np.array_equal(run.predict(filled), predicted)
    np.testing.assert_array_equal(run.predict(gaps), run.predict(filled))
    np.testing.assert_array_equal(run.predict(np.ma.masked_array(image)), predicted)
    with pytest.raises(ValueError, match=r"uint16 of shape \(H, W, 4\), got uint8 \(64, 96, 3\)"):
        run.predict(np.zeros((64, 96, 3), np.uint8))


def test_it_exports_with_a_description_of_its_bands(trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run = segloss.load_run(trained[0])
    assert export.export_onnx(run, tmp_path / "m.onnx") <= export.TOLERANCE
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1] == 4
    told = json.loads(session.get_modelmeta().custom_metadata_map["bands"])
    assert (told["count"], told["dtype"], tuple(told["mean"])) == (4, "uint16", run.bands.mean)
    pixels = scene(9)[0].astype(np.float32).transpose(2, 0, 1)[None]
    (found,) = session.run(["logits"], {"images": pixels})
    with torch.inference_mode():
        expected = run.model(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_run_goes_on_with_its_own_bands(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    before = segloss.load_run(folder).bands
    train_seg.train(["--output-dir", str(folder), "--resume", "--channels", "4", "--epochs", "9"])
    assert segloss.load_run(folder).bands == before


def test_the_doctor_names_the_file_of_other_bands(tmp_path, capsys):
    band_tree(tmp_path)
    write_geotiff(tmp_path / "images/val/0.tif", scene(0, count=3)[0], photometric="rgb")
    with pytest.raises(SystemExit):
        doctor(["--dataset", "folder", "--data-path", str(tmp_path), "--output", str(tmp_path / "page.html")])
    printed = capsys.readouterr().out.replace("\n", "")
    assert "bands: 4 bands of uint16" in printed
    assert "0.tif: holds 3 bands of uint16, not 4 bands of uint16" in printed
    assert "data:image/jpeg" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "tu-resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("bands", [1, 2, 4, 7])
def test_weights_of_rgb_are_adapted_to_any_bands_as_smp_does(tmp_path, encoder, bands):
    pretrained = build_model("fpn", encoder, 2).encoder
    path = tmp_path / "rgb.pth"
    torch.save(pretrained.state_dict(), path)
    ours = build_model("fpn", encoder, 2, encoder_weights=str(path), in_channels=bands).encoder.state_dict()
    if not encoder.startswith("tu-"):  # timm adapts while it builds
        pretrained.set_in_channels(bands, pretrained=True)
    first = next(key for key, value in ours.items() if value.ndim == 4 and value.shape[1] == bands)
    rgb = torch.load(path)[first]
    expected = rgb.sum(1, keepdim=True) if bands == 1 else rgb[:, [b % 3 for b in range(bands)]] * 3 / bands
    torch.testing.assert_close(ours[first], expected)
    if not encoder.startswith("tu-"):
        torch.testing.assert_close(ours, pretrained.state_dict())


def test_gray_in_one_band_gives_what_gray_rgb_gave(tmp_path):
    torch.manual_seed(0)
    pretrained = build_model("unet", "resnet18", 2)
    path = tmp_path / "rgb.pth"
    torch.save(pretrained.encoder.state_dict(), path)
    one = build_model("unet", "resnet18", 2, encoder_weights=str(path), in_channels=1).encoder.eval()
    gray = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        rgb = pretrained.encoder.eval()(gray.expand(-1, 3, -1, -1))[1:]
        for ours, theirs in zip(one(gray)[1:], rgb, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_batch_statistics_are_tried_with_the_bands_there_are():
    model = build_model("deeplabv3plus", "resnet18", 2, in_channels=5)
    with pytest.raises(InputError, match="--batch-size 1 leaves a batch norm"):
        require_batch_statistics(model, 1, (64, 64), in_channels=5)


def test_8_bit_rgb_is_normalised_as_ever():
    model = build_model("unet", "resnet18", 2)
    assert model.mean.shape == (1, 3, 1, 1) and model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert Bands().normalisation is None and Bands.from_dict({}) == Bands()


def test_a_run_of_before_goes_on_as_it_read_images_then_and_others_refuse_another_kind(trained):
    run = segloss.load_run(trained[0])
    old = dataclasses.replace(run, used=dataclasses.replace(run.used, channels=None), bands=Bands())
    assert continued_bands(old, Bands(3, "uint16")) == Bands()
    with pytest.raises(InputError, match="began on images of 4 bands of uint16, now they are 5 bands of float32"):
        continued_bands(run, Bands(5, "float32"))
    assert continued_bands(run, Bands(4, "uint16", shown=(1,))).shown == (1,)


def test_more_channels_than_any_image_has_are_refused_before_a_run_folder_is_made(trained, tmp_path):
    flags = ["--dataset", "folder", "--data-path", str(trained[1]), "--output-dir", str(tmp_path / "run"), *FAST]
    with pytest.raises(InputError, match=r"0\.tif: holds 4 bands of uint16, and no image 6"):
        train_seg.train([*flags, "--channels", "6"])
    with pytest.raises(InputError, match="--show-bands 5 is not there: images hold 4 bands of uint16"):
        train_seg.train([*flags, "--show-bands", "5"])
    assert not (tmp_path / "run").exists()
