"""--score-units: a last layer that learns in units of the label values is one whose scores are multiplied by them."""

import pytest
import torch
from torch import nn

from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.flags import from_plain_dict
from segloss.losses import OutlyingMSELoss, outlying_mse_loss
from segloss.models import build_model
from segloss.training.last_layer import last_layer, learn_in_units
from segloss.training.optimisation import build_optimizer

VALUES = torch.tensor([1.0, 4.0, 30.0])


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam])
def test_it_is_a_layer_whose_scores_are_multiplied_by_the_label_values(kind):
    """z = W x with rows that learn in units t, against z = t (U x): W = t U at every step."""
    torch.manual_seed(0)
    features, labels = torch.randn(8, 5, 4), torch.randint(3, (8, 4))
    own, apart = nn.Conv1d(5, 3, 1), nn.Conv1d(5, 3, 1)
    with torch.no_grad():
        for a, b in zip(own.parameters(), apart.parameters(), strict=True):
            a.copy_(b * VALUES.view(-1, *[1] * (b.ndim - 1)))
    steps = [kind(layer.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-12) for layer in (own, apart)]
    learn_in_units(steps[0], [*own.parameters()], VALUES)
    for _ in range(20):
        for step in steps:
            step.zero_grad()
        outlying_mse_loss(own(features), labels, VALUES).backward()
        outlying_mse_loss(VALUES.view(1, 3, 1) * apart(features), labels, VALUES).backward()
        for step in steps:
            step.step()
    torch.testing.assert_close(own.weight, VALUES.view(3, 1, 1) * apart.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.bias, VALUES * apart.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["unet", "fpn", "pspnet", "deeplabv3plus", "segformer", "upernet"])
def test_the_last_layer_is_the_one_whose_scores_it_puts_out(arch):
    model = build_model(arch, "resnet18", 7).eval()
    layer = last_layer(model, 7)
    assert [parameter.shape[0] for parameter in layer] == [7, 7]
    images = torch.randn(1, 3, 64, 64)
    before = model(images)
    with torch.no_grad():
        for parameter in layer:
            parameter.mul_(2)
        torch.testing.assert_close(model(images), 2 * before)


def test_a_network_without_one_is_told_of():
    model = build_model("unet", "resnet18", 3)
    model.network.segmentation_head = nn.Identity()
    config = from_plain_dict(TrainConfig, {"score_units": "label_values"})
    with pytest.raises(InputError, match="no last layer that could be told; leave --score-units out"):
        build_optimizer(model, config, OutlyingMSELoss(VALUES), fused=False)


def test_alpha_is_then_of_no_account():
    """Adam's steps do not depend on the size of a loss, and the scores grow as the labels do."""
    torch.manual_seed(0)
    features, labels = torch.randn(8, 5, 4), torch.randint(3, (8, 4))
    found = []
    for alpha in (1.0, 16.0):
        layer = nn.Conv1d(5, 3, 1)
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2, eps=1e-12)
        learn_in_units(optimizer, [*layer.parameters()], alpha * VALUES)
        for _ in range(20):
            optimizer.zero_grad()
            outlying_mse_loss(layer(features), labels, alpha * VALUES).backward()
            optimizer.step()
        found.append(layer.weight.detach() / alpha)
    assert found[0].abs().min() > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
