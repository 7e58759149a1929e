"""Networks: any size in, scores of that size out; names, weights files and the network of the other kind."""

import copy
import os
import pickle
import socket
import subprocess
import sys
import warnings
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from segloss.encoder_weights import load_encoder_weights
from segloss.errors import InputError
from segloss.hub import shared_file
from segloss.models import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Architecture,
    ModelOptions,
    SegmentationModel,
    build_model,
    parameter_count,
)
from segloss.weight_files import LAST

ARCHITECTURES = (
    *("unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet"),
    *("deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer", "dpt"),
)
NEEDED = {"segformer": "mit_b0", "dpt": "tu-vit_tiny_patch16_224"}
PAIRS = [(arch, NEEDED.get(arch, "resnet18")) for arch in ARCHITECTURES]
PAIRS += [("unet", "tu-tf_efficientnet_lite0"), ("unet", "mit_b0"), ("unet", "tu-convnext_atto")]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever asks the network here is found out."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that share busy cores make these small networks several times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_every_architecture_of_the_toolkit_is_tried():
    import segmentation_models_pytorch as smp

    assert {arch for arch, _ in PAIRS} == set(get_args(Architecture)) == set(smp.MODEL_ARCHITECTURES_MAPPING)


@pytest.mark.parametrize(("arch", "encoder"), PAIRS)
def test_images_of_any_size_give_logits_of_that_size(arch, encoder):
    model = build_model(arch, encoder, 5).eval()
    with torch.inference_mode():
        for size in ((97, 131), (32, 32)):
            logits = model(random_images(2, 3, *size))
            assert logits.shape == (2, 5, *size)
            assert logits.dtype == torch.float32
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("arch", "encoder", "size"), [("unet", "resnet18", (64, 96)), ("pan", "resnet18", (128, 160))])
def test_images_of_divisible_size_meet_the_network_as_they_are(arch, encoder, size):
    model = build_model(arch, encoder, 4).eval()
    images = random_images(1, 3, *size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        torch.testing.assert_close(model(images), model.network((images / 255 - mean) / std), rtol=1e-5, atol=1e-5)


def test_depthwise_convolutions_alone_stay_in_float32_under_the_autocast_of_the_cpu():
    network = copy.deepcopy(build_model("unet", "tu-mobilenetv3_small_050", 3))
    kinds: dict[str, tuple[bool, torch.dtype]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, _, out, name=name: kinds.update({name: (m.groups > 1, out.dtype)}))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.zeros(1, 3, 64, 64))
    assert set(kinds.values()) == {(True, torch.float32), (False, torch.bfloat16)}
    network(torch.zeros(1, 3, 64, 64))
    assert {dtype for _, dtype in kinds.values()} == {torch.float32}


def test_a_network_can_be_pickled():
    network = build_model("unet", "tu-mobilenetv3_small_050", 3).eval()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(pickle.loads(pickle.dumps(network))(images), network(images), rtol=0, atol=0)


class Recorder(nn.Module):
    """A network that keeps what it was given."""

    def forward(self, images):
        self.seen = images
        return images


@pytest.mark.parametrize(
    ("size", "smallest", "padded"), [((64, 96), 0, (64, 96)), ((33, 97), 0, (64, 128)), ((33, 161), 128, (128, 192))]
)
def test_padding_is_the_mean_colour_below_and_right_and_is_cut_off_again(size, smallest, padded):
    model = SegmentationModel(Recorder(), stride=32, smallest_side=smallest)
    images = random_images(2, 3, *size)
    out = model(images)
    seen = model.network.seen
    assert seen.shape[-2:] == padded
    assert (seen[..., size[0] :, :] == 0).all() and (seen[..., :, size[1] :] == 0).all()
    expected = (images.double() / 255 - model.mean.double()) / model.std.double()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[..., : size[0], : size[1]], out)


def test_normalisation_is_part_of_the_model():
    model = build_model("unet", "resnet18", 3, normalisation=((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))).eval()
    state = model.state_dict()
    torch.testing.assert_close(state["mean"].view(-1), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(state["std"].view(-1), torch.tensor([0.5, 0.6, 0.7]))
    images = random_images(1, 3, 40, 50)
    with torch.inference_mode():
        assert torch.equal(model(images), model(images.float()))
        torch.testing.assert_close(model(images), model(images.double()))


def test_without_weights_the_normalisation_is_imagenets():
    for encoder in ("resnet18", "tu-vit_tiny_patch16_224"):
        model = build_model("unet" if encoder == "resnet18" else "dpt", encoder, 3)
        assert model.mean.view(-1).tolist() == pytest.approx(IMAGENET_MEAN)
        assert model.std.view(-1).tolist() == pytest.approx(IMAGENET_STD)


def test_a_model_is_in_training_mode_and_its_encoder_can_be_told_apart():
    model = build_model("UNet", "resnet18", 3)
    assert model.training
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    every = [id(parameter) for parameter in model.parameters()]
    assert 0 < sum(parameter in encoder for parameter in every) < len(every)
    assert parameter_count(model) == sum(parameter.numel() for parameter in model.parameters())
    for parameter in model.encoder.parameters():
        parameter.requires_grad = False
    assert parameter_count(model) == sum(parameter.numel() for parameter in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if id(p) not in encoder)
    assert parameter_count(model, trainable=True) == trained < parameter_count(model)


# ---- names


@pytest.mark.parametrize(
    ("arch", "encoder", "parts"),
    [
        ("unett", "resnet18", ("unknown --arch 'unett'", "unetplusplus", "deeplabv3plus")),
        ("deeplabv3+", "resnet18", ("did you mean deeplabv3plus?",)),
        ("unet", "resnet19", ("unknown encoder 'resnet19'", "resnet18", "in all)", "tu-NAME")),
        ("unet", "tu-resnet19", ("unknown encoder 'tu-resnet19'", "timm has no such model")),
        ("unet", "tu-convnext_tine", ("timm has no such model", "near it: ", "tu-convnext_tiny")),
        ("linknet", "mit_b0", ("no linknet with encoder mit_b0", "choose another pair")),
        ("unetplusplus", "mit_b0", ("no unetplusplus with encoder mit_b0", "choose another pair")),
        ("dpt", "resnet18", ("no dpt with encoder resnet18", "choose another pair")),
        ("unet", "tu-maxvit_tiny_tf_224", ("images of 224x224 only", "choose one that takes any size")),
    ],
)
def test_a_name_or_pair_that_does_not_exist_is_answered_with_a_way_on(arch, encoder, parts):
    with pytest.raises(InputError) as refusal:
        build_model(arch, encoder, 3)
    message = str(refusal.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_names_are_known_in_any_case():
    assert (
        build_model("UNet", "ResNet18", 3).encoder.state_dict().keys() == encoder_of("resnet18", 0).state_dict().keys()
    )


def test_looking_whether_a_network_can_be_built_leaves_the_seed_alone():
    torch.manual_seed(3)
    ModelOptions(encoder="resnet18").require_buildable()
    looked = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(looked, torch.rand(3))


def test_an_option_that_no_network_has_is_refused():
    with pytest.raises(InputError, match="unknown option 'depth'"):
        build_model("unet", "resnet18", 3, depth=3)


# ---- weights files


def encoder_of(encoder: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("unet", encoder, 2).encoder


def save(weights: dict, path) -> str:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({key: value.contiguous() for key, value in weights.items()}, path)
    else:
        torch.save(weights, path)
    return str(path)


def inner(encoder: nn.Module) -> nn.Module:
    """timm's model inside a ``tu-`` encoder; else the encoder."""
    return getattr(encoder, "model", encoder)


NATIVE, TIMM = "resnet18", "tu-tf_efficientnet_lite0"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("encoder", [NATIVE, TIMM])
@pytest.mark.parametrize("prefix", ["", "encoder.", "module."])
def test_weights_of_a_file_are_in_the_encoder_afterwards(tmp_path, encoder, suffix, prefix):
    source = inner(encoder_of(encoder, seed=1)).state_dict()
    extra = {"classifier.weight": torch.zeros(10, 7), "classifier.bias": torch.zeros(10)}
    weights = {prefix + key: value for key, value in {**source, **extra}.items()}
    path = save(weights, tmp_path / f"weights{suffix}")
    torch.manual_seed(2)
    before = inner(build_model("unet", encoder, 2).encoder).state_dict()
    torch.manual_seed(2)
    after = inner(build_model("unet", encoder, 2, encoder_weights=path).encoder).state_dict()
    for key, value in source.items():
        assert torch.equal(after[key], value), key
    assert any(not torch.equal(before[key], value) for key, value in source.items())


def test_weights_in_the_names_of_the_whole_tu_encoder_fit_too(tmp_path):
    source = encoder_of(TIMM, seed=1)
    assert all(key.startswith("model.") for key in source.state_dict())
    target = encoder_of(TIMM, seed=2)
    load_encoder_weights(target, tmp_path / save(source.state_dict(), tmp_path / "whole.pth"))
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


def test_weights_inside_a_checkpoint_and_without_batch_counters_fit_too(tmp_path):
    source = encoder_of(NATIVE, seed=1).state_dict()
    kept = {key: value for key, value in source.items() if not key.endswith("num_batches_tracked")}
    assert len(kept) < len(source)
    target = encoder_of(NATIVE, seed=2)
    load_encoder_weights(target, tmp_path / save({"state_dict": kept, "epoch": 3}, tmp_path / "checkpoint.pth"))
    for key, value in kept.items():
        assert torch.equal(target.state_dict()[key], value), key


def test_a_run_that_was_killed_before_it_had_a_best_gives_its_last_weights(tmp_path):
    source = encoder_of(NATIVE, seed=1)
    (tmp_path / "checkpoints").mkdir()
    save({"state_dict": source.state_dict()}, tmp_path / LAST)
    target = encoder_of(NATIVE, seed=2)
    load_encoder_weights(target, tmp_path)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["weights.pth", "shared.safetensors"])
def test_a_damaged_file_is_refused_by_its_checksum(tmp_path, name):
    state = encoder_of(NATIVE, seed=1).state_dict()
    path = tmp_path / name
    if path.suffix == ".pth":
        save(state, path)
    else:
        path.write_bytes(shared_file({"config": {}, "used": {}}, state))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: is damaged: .* match its checksum; use another one"):
        load_encoder_weights(encoder_of(NATIVE, seed=2), path)


def test_a_file_that_lacks_tensors_is_refused_and_changes_nothing(tmp_path):
    source = encoder_of(NATIVE, seed=1).state_dict()
    del source["conv1.weight"], source["bn1.bias"]
    path = save(source, tmp_path / "weights.pth")
    target = encoder_of(NATIVE, seed=2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    message = r"weights\.pth: lacks 2 of the \d+ tensors of this encoder \(first: conv1\.weight\); choose the --encoder"
    with pytest.raises(InputError, match=message):
        load_encoder_weights(target, tmp_path / path)
    for key, value in before.items():
        assert torch.equal(target.state_dict()[key], value)


def test_weights_of_another_encoder_are_refused(tmp_path):
    path = save(inner(encoder_of(TIMM, seed=1)).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"weights\.safetensors: lacks \d+ of the \d+ tensors"):
        build_model("unet", NATIVE, 2, encoder_weights=path)


@pytest.mark.parametrize(
    ("encoder", "deeper", "prefix", "first"),
    [
        ("resnet18", "resnet34", "", "layer1.2.conv1.weight"),
        ("tu-resnet18", "tu-resnet34", "model.network.encoder.model.", "layer1.2.conv1.weight"),
        ("mit_b1", "mit_b2", "backbone.", "block1.2.norm1.weight"),
    ],
)
def test_weights_of_a_deeper_encoder_are_refused(tmp_path, encoder, deeper, prefix, first):
    """The first blocks of each stage were taken, and no word was said."""
    source = inner(encoder_of(deeper, seed=1)).state_dict()
    path = save({prefix + key: value for key, value in source.items()}, tmp_path / "deeper.pth")
    what = rf"deeper\.pth: holds \d+ tensors of further blocks \(first: {first}\), so it is of a deeper encoder; choose"
    with pytest.raises(InputError, match=what):
        build_model("unet", encoder, 2, encoder_weights=path)


@pytest.mark.parametrize("encoder", ["tu-resnet18", "tu-mobilenetv3_small_050", "tu-regnety_002"])
def test_all_that_timm_has_of_an_encoder_fits_it(tmp_path, encoder):
    """Its last blocks and its classifier are no further blocks."""
    import timm

    whole = timm.create_model(encoder.removeprefix("tu-"), pretrained=False).state_dict()
    build_model("unet", encoder, 2, encoder_weights=save(whole, tmp_path / "whole.pth"))


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    source = encoder_of(NATIVE, seed=1).state_dict()
    source["conv1.weight"] = source["conv1.weight"][:, :1]
    path = save(source, tmp_path / "grey.pth")
    with pytest.raises(InputError, match=r"grey\.pth: has other shapes than the \d+ tensors .*first: conv1\.weight"):
        build_model("unet", NATIVE, 2, encoder_weights=path)


@pytest.mark.parametrize("name", ["garbage.pth", "garbage.safetensors", "empty.pth", "empty.safetensors"])
def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"no weights at all" * 100)
    with pytest.raises(InputError, match=rf"{name}: cannot be read as weights \(\w+\)"):
        build_model("unet", NATIVE, 2, encoder_weights=str(tmp_path / name))


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, "text"])
def test_a_file_that_holds_something_else_is_refused_by_name(tmp_path, content):
    path = save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: holds no dictionary of tensors"):
        build_model("unet", NATIVE, 2, encoder_weights=path)


@pytest.mark.parametrize("name", ["imagnet", "gone.pth", "."])
def test_what_is_no_file_is_answered_with_the_choices(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no such weights file; .* none, imagenet, a file or a run folder"):
        build_model("unet", NATIVE, 2, encoder_weights=name)


def test_weights_of_timm_bring_timms_normalisation(tmp_path):
    import timm

    path = save(inner(encoder_of(TIMM, seed=1)).state_dict(), tmp_path / "weights.pth")
    model = build_model("unet", TIMM, 2, encoder_weights=path)
    settings = timm.models.get_pretrained_cfg(TIMM.removeprefix("tu-"))
    assert model.mean.view(-1).tolist() == pytest.approx(settings.mean)
    assert model.std.view(-1).tolist() == pytest.approx(settings.std)
    assert tuple(settings.mean) != IMAGENET_MEAN  # or this test could not fail


# ---- weights from the network


def test_imagenet_weights_without_network_fail_at_once_and_name_the_cures(tmp_path):
    """In a process of its own: the hub reads its switches when it is imported."""
    program = (
        "import time\n"
        "import segmentation_models_pytorch\n"
        "from segloss.errors import InputError\n"
        "from segloss.models import build_model\n"
        "started = time.monotonic()\n"
        "for encoder in ('resnet18', 'mit_b0', 'tu-resnet18'):\n"
        "    try:\n"
        "        build_model('unet', encoder, 3, encoder_weights='imagenet')\n"
        "    except InputError as error:\n"
        "        print(error)\n"
        "print(time.monotonic() - started)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    *lines, seconds = done.stdout.splitlines()
    assert float(seconds) < 10  # without imports; a download that is tried again takes half a minute an encoder
    assert [line.split()[3] for line in lines] == ["resnet18", "mit_b0", "tu-resnet18"], done.stderr
    for line in lines:
        assert "cannot be downloaded" in line
        assert "--encoder-weights FILE" in line and "--encoder-weights none" in line


def test_imagenet_weights_ask_the_hub_and_building_without_them_does_not(monkeypatch):
    """The other tests of this file build with the network forbidden; here the hub is seen to be asked."""
    import segmentation_models_pytorch.encoders as encoders

    asked = []

    def refuse(repository, *_, **__):
        asked.append(repository)
        raise OSError("no network in this test")

    monkeypatch.setattr(encoders, "hf_hub_download", refuse)
    with pytest.raises(InputError, match=r"imagenet weights of resnet18 cannot be downloaded \(OSError: no network"):
        build_model("unet", "resnet18", 3, encoder_weights="imagenet")
    assert any("resnet18" in repository for repository in asked)
    asked.clear()
    build_model("unet", "resnet18", 3)
    assert not asked


def test_images_that_were_scaled_or_normalised_are_told_once():
    """To the network they are black: it found next to nothing, without a word."""
    model = SegmentationModel(nn.Conv2d(3, 2, 1))
    with pytest.warns(UserWarning, match=r"images hold 0 to 1, the model expects 0 to 255: give images \* 255"):
        model(torch.rand(1, 3, 32, 32))
    for normalised in (torch.randn(1, 3, 32, 32).clamp(-2.1, 2.6), 2 * torch.rand(1, 3, 32, 32) - 1):
        with pytest.warns(UserWarning, match="the model expects 0 to 255 and normalises them itself: give them before"):
            SegmentationModel(nn.Conv2d(3, 2, 1))(normalised)
    told = (torch.rand(1, 3, 32, 32), 255 * torch.rand(1, 3, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(told[0])  # once is enough
        overshot = 260 * torch.rand(1, 3, 32, 32) - 3  # as bicubic resizing leaves them
        for images in (*told[1:], overshot):
            SegmentationModel(nn.Conv2d(3, 2, 1))(images)
        SegmentationModel(nn.Conv2d(5, 2, 1), (0.5,) * 5, (0.2,) * 5)(torch.rand(1, 5, 32, 32))  # reflectances


@pytest.mark.parametrize(
    ("bands", "shape", "cure"),
    [
        (4, (1, 1, 8, 8), "give the bands that it was trained on"),
        (4, (1, 3, 8, 8), "give the bands that it was trained on"),
        (3, (1, 4, 8, 8), "give the bands that it was trained on"),
        (3, (1, 8, 8, 3), r"bring them to the front: images.movedim\(-1, -3\)"),
        (3, (2, 8, 8), r"give gray images as images\[:, None\]"),
        (1, (3, 8, 8), "give the bands that it was trained on"),
        (3, (8, 8), "give the bands that it was trained on"),
    ],
)
def test_images_of_other_bands_are_refused(bands, shape, cure):
    model = SegmentationModel(nn.Conv2d(bands, 2, 1), (0.5,) * bands, (0.2,) * bands)
    refusal = rf"images must have shape \(N, {bands}, H, W\), got \({', '.join(map(str, shape))}\); {cure}"
    with pytest.raises(InputError, match=refusal):
        model(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32, 32), (1, 32, 32)])
def test_gray_images_and_one_image_alone_are_taken_as_rgb(shape):
    model, images = SegmentationModel(nn.Conv2d(3, 2, 1)), 255 * torch.rand(shape)
    assert torch.equal(model(images), model(images.expand(1, 3, 32, 32)))


@pytest.mark.parametrize("number", ["3", 3.0, 0, -1, True, None])
@pytest.mark.parametrize("name", ["num_classes", "in_channels"])
def test_numbers_of_classes_and_bands_are_checked_first(name, number):
    with pytest.raises(InputError, match=f"{name} must be an integer of at least 1, got {number!r}; give how many"):
        build_model("unet", "resnet18", **{"num_classes": 3, name: number})


def test_weights_may_be_none_as_in_smp():
    torch.manual_seed(0)
    without = build_model("unet", "resnet18", np.int64(1), encoder_weights=None)
    torch.manual_seed(0)
    expected = build_model("unet", "resnet18", 1).state_dict()
    assert all(torch.equal(weights, expected[name]) for name, weights in without.state_dict().items())


def test_what_was_frozen_can_be_trained_again():
    model = build_model("unet", "resnet18", 2)
    by_hand = model.network.segmentation_head[0].bias.requires_grad_(False)
    model.freeze(encoder=True, batch_norm="all")
    model.freeze(batch_norm="encoder")
    norms = [module for module in model.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    held = {id(parameter) for norm in norms for parameter in norm.parameters()} | {id(by_hand)}
    assert {id(parameter) for parameter in model.parameters() if not parameter.requires_grad} == held
    model.freeze()
    assert [parameter is by_hand for parameter in model.parameters() if not parameter.requires_grad] == [True]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_networks_can_be_traced_and_exported():
    model, images = build_model("unet", "tu-mobilenetv3_small_050", 2).eval(), torch.rand(1, 3, 40, 50) * 255
    with torch.inference_mode():
        expected = model(images)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(model, images)(images), expected)
        torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), expected)
