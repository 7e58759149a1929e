"""The blocks of docs/integrate.md; hugging_face.py and mmseg_outlying.py run those that need a place of their own."""

import documented
import pytest
import torch
from documented import check_trained_and_read, documented_blocks, run_block

from segloss import OutlyingMSELoss

NEEDS = {
    "Plain PyTorch": "torch",
    "Micro-batches and several processes": "torch",
    "torchvision": "torchvision",
    "segmentation_models_pytorch": "segmentation_models_pytorch",
    "Lightning": "lightning",
}


@pytest.mark.parametrize("heading", NEEDS)
def test_the_block_trains_and_reads_its_scores(heading, tmp_path):
    pytest.importorskip(NEEDS[heading])
    run_block(heading, tmp_path)


def test_every_section_of_the_page_is_run_somewhere():
    assert set(documented_blocks()) == {*NEEDS, "Hugging Face SegFormer", "mmsegmentation"}


def test_a_block_that_fails_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(documented, "documented_blocks", lambda: {"Broken": "1 / 0"})
    with pytest.raises(ZeroDivisionError):
        run_block("Broken", tmp_path)


@pytest.mark.parametrize("broken", ["losses", "class_map", "probabilities"])
def test_a_block_that_does_not_train_or_reads_wrongly_is_seen(broken):
    criterion = OutlyingMSELoss([1.0, 2.0, 3.0])
    logits = torch.rand(1, 3, 4, 4)
    names = {
        "losses": [4.0, 3.0, 2.0, 1.0],
        "criterion": criterion,
        "logits": logits,
        "class_map": criterion.decide(logits),
        "probabilities": criterion.posterior(logits),
    }
    check_trained_and_read(names)
    names[broken] = {"losses": [1.0] * 4, "class_map": logits.argmin(1), "probabilities": logits}[broken]
    with pytest.raises(AssertionError):
        check_trained_and_read(names)


def test_smps_deeplab_without_its_last_interpolation_has_the_same_loss():
    smp = pytest.importorskip("segmentation_models_pytorch")
    options = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 3}
    full = smp.DeepLabV3Plus(**options).eval()
    small = smp.DeepLabV3Plus(**options, upsampling=1).eval()
    small.load_state_dict(full.state_dict())
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 64, 64, generator=generator)
    labels = torch.randint(0, 3, (1, 64, 64), generator=generator)
    with torch.no_grad():
        assert small(images).shape[-2:] == (16, 16)
        expected = OutlyingMSELoss([1.0, 2.0, 3.0])(full(images), labels)
        loss = OutlyingMSELoss([1.0, 2.0, 3.0], upsample="bilinear", align_corners=True)(small(images), labels)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)  # float32, another order of adding
