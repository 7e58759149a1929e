"""The loss in mmsegmentation, run by `make test-mmseg` in an environment of its own."""

import pytest
import torch
import torch.nn.functional as F
from documented import run_block
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

from segloss import OutlyingMSELoss, outlying_mse_loss
from segloss.adapters import MMSegOutlyingMSELoss, register_mmseg

COUNTS = [900, 90, 10]


@pytest.fixture(autouse=True, scope="module")
def registered():
    register_all_modules()
    register_mmseg()
    register_mmseg()  # twice, as two configs of one process do


def decode_head(loss: dict | None = None, **options):
    loss = loss or {"type": "OutlyingMSELoss", "counts": COUNTS, "loss_weight": 0.4}
    head = MODELS.build(
        dict(type="FCNHead", in_channels=4, channels=4, num_convs=1, num_classes=3, loss_decode=loss, **options)
    )
    head.init_weights()
    return head


def features_and_samples(ignored: int = 255):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 1, 16, 16), generator=generator)
    labels[:, :, :5] = ignored
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    return (torch.randn(2, 4, 8, 8, generator=generator),), samples, labels.squeeze(1)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("ignored", [255, 9])
def test_a_decode_head_gives_the_loss_of_its_interpolated_logits(align_corners, ignored):
    head = decode_head(align_corners=align_corners, ignore_index=ignored, dropout_ratio=0)
    features, samples, labels = features_and_samples(ignored)
    losses = head.loss(features, samples, {})
    losses["loss_outlying_mse"].backward()
    gradient = head.conv_seg.weight.grad.clone()

    head.zero_grad()
    # The function's own interpolation: the head's is then checked too.
    criterion = OutlyingMSELoss.from_counts(
        COUNTS, ignore_index=ignored, upsample="bilinear", align_corners=align_corners
    )
    expected = 0.4 * criterion(head(features), labels)
    expected.backward()
    # Two float32 interpolations that add in another order: a few eps of the largest term.
    torch.testing.assert_close(losses["loss_outlying_mse"], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, head.conv_seg.weight.grad, rtol=1e-4, atol=1e-6)
    assert gradient.abs().sum() > 0


def test_pixel_weights_of_the_ohem_sampler_choose_the_pixels_of_highest_loss():
    head = decode_head(sampler={"type": "OHEMPixelSampler", "min_kept": 20}, dropout_ratio=0)
    features, samples, labels = features_and_samples()
    logits = F.interpolate(head(features), labels.shape[1:], mode="bilinear", align_corners=False)
    values = head.loss_decode.criterion.label_values
    per_pixel = outlying_mse_loss(logits, labels, values, reduction="none")
    hardest = per_pixel.flatten().topk(20 * len(labels)).values
    loss = head.loss(features, samples, {})["loss_outlying_mse"]
    torch.testing.assert_close(loss, 0.4 * hardest.mean(), rtol=1e-5, atol=1e-6)  # float32, another order of adding


def test_a_config_file_names_the_class_by_its_path(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(
        "loss_decode = dict(type='segloss.adapters.MMSegOutlyingMSELoss', counts=[900, 90, 10], alpha=2.0,\n"
        "                   loss_weight=0.5, loss_name='loss_mine')\n"
    )
    loss = MODELS.build(Config.fromfile(file).loss_decode)
    assert type(loss) is MMSegOutlyingMSELoss and (loss.loss_weight, loss.loss_name) == (0.5, "loss_mine")
    assert loss.criterion.label_values.tolist() == [2.0, 4.0, 6.0]
    assert "mine" in "".join(decode_head(dict(Config.fromfile(file).loss_decode)).loss(*features_and_samples()[:2], {}))


def test_mmsegs_prediction_is_the_plain_decision():
    model = MODELS.build(
        {
            "type": "EncoderDecoder",
            "data_preprocessor": {"type": "SegDataPreProcessor"},
            "backbone": {"type": "ResNetV1c", "depth": 18, "base_channels": 8},
            "decode_head": {
                "type": "FCNHead",
                "in_channels": 64,
                "channels": 8,
                "num_classes": 3,
                "loss_decode": {"type": "OutlyingMSELoss", "counts": COUNTS},
            },
            "train_cfg": {},
            "test_cfg": ConfigDict(mode="whole"),
        }
    ).eval()
    samples = [SegDataSample(metainfo={"img_shape": (32, 32), "ori_shape": (32, 32)})]
    with torch.no_grad():
        result = model(torch.rand(1, 3, 32, 32), samples, mode="predict")[0]
    decided = model.decode_head.loss_decode.criterion.decide(result.seg_logits.data[None])
    assert torch.equal(result.pred_sem_seg.data, decided)


def test_the_documented_block_trains_and_reads_its_scores(tmp_path):
    run_block("mmsegmentation", tmp_path)
