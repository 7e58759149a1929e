"""A second loss on the encoder's last features: which classes an image holds."""

import torch
import torch.nn.functional as F
from torch import Tensor


def presence_loss(presence: Tensor, labels: Tensor, class_mask: Tensor | None = None) -> Tensor:
    r"""Mean binary cross entropy of the classes of an image.

    .. math::
        L = -\frac{1}{|K|} \sum_{(n, c) \in K} h_{nc} \log \sigma(a_{nc}) + (1 - h_{nc}) \log (1 - \sigma(a_{nc}))

    with h = 1 where a pixel of image n has label c, and K all pairs, or those that ``class_mask`` says are labelled.
    A class whose only pixels are ignored counts as absent.

    >>> presence_loss(torch.tensor([[20.0, -20.0]]), torch.tensor([[[0, 255]]])).item() < 1e-8
    True

    Args:
        presence: a, ``(N, C)``. labels: ``(N, H, W)``, what is no class is ignored. class_mask: bool ``(N, C)``.

    Source: smp's ``aux_params``; the loss of EncNet, Zhang et al., CVPR 2018 (its SE-loss).
    """
    classes = presence.shape[1]
    flat = labels.flatten(1).long()
    ids = torch.where((flat >= 0) & (flat < classes), flat, classes)
    held = torch.zeros(len(ids), classes + 1, device=ids.device).scatter_(1, ids, 1.0)[:, :classes]
    losses = F.binary_cross_entropy_with_logits(presence.float(), held, reduction="none")
    return losses.mean() if class_mask is None else losses[class_mask].sum() / class_mask.sum().clamp(min=1)
