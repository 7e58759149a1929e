"""Labels of a part of the classes: what an image does not label stays out of its loss."""

import math

import torch
from torch import Tensor

from segloss.losses.checks import check_device, check_labels, check_tensor
from segloss.losses.labels import ignored_label


def only_labelled(
    logits: Tensor,
    labels: Tensor,
    class_mask: Tensor | None,
    ignore_index: int | None,
    fill: float = -math.inf,
) -> tuple[Tensor, Tensor]:
    r"""Scores and labels as a loss sees them where images label a part of the classes, :math:`S_n` of image n.

    .. math::
        z'_{nc} = \begin{cases} z_{nc} & c \in S_n \\ \mathrm{fill} & \text{else} \end{cases}, \qquad
        \mathrm{softmax}(z')_{nc} = \frac{[c \in S_n] \, e^{z_{nc}}}{\sum_{k \in S_n} e^{z_{nk}}}

    A pixel whose class its image does not label is ignored. So a softmax loss is the likelihood of a class among those
    labelled: its optimum is :math:`P(c|x) / \sum_{k \in S_n} P(k|x)`, the full posterior's own share, which images of
    other :math:`S_n` complete. The scores of the other classes get no gradient.

    Args:
        logits: z ``(N, C, *)``.
        labels: integer, ``(N, *)``; may have another size than the logits.
        class_mask: bool ``(N, C)``, True for the classes of :math:`S_n`; None: every image labels all, nothing changes.
        ignore_index: what the labels left out become; None: a label that no class can have.
        fill: the scores of the classes left out.

    Raises:
        TypeError, ValueError: the mask is not bool, or not of shape ``(N, C)``.

    Source: the conditional likelihood of a class given that it is one of a set; in segmentation as of Dmitriev &
    Kaufman, "Learning multi-class segmentations from single-class datasets", CVPR 2019.

    >>> only_labelled(torch.zeros(1, 3), torch.tensor([2]), torch.tensor([[True, True, False]]), 255)
    (tensor([[0., 0., -inf]]), tensor([255]))
    """
    if class_mask is None:
        return logits, labels
    check_class_mask(class_mask, logits)
    left_out = class_mask.logical_not().view(*class_mask.shape, *[1] * (logits.ndim - 2))
    return logits.masked_fill(left_out, fill), ignore_unlabelled(labels, class_mask, ignore_index)


def check_class_mask(class_mask: Tensor, logits: Tensor) -> None:
    """TypeError or ValueError unless it is bool, of shape ``(N, C)``, where the logits are."""
    check_switches(class_mask)
    check_device("class_mask", class_mask, logits)
    if class_mask.shape != logits.shape[:2]:
        raise ValueError(
            f"class_mask must have shape {tuple(logits.shape[:2])} to match logits {tuple(logits.shape)}, "
            f"got {tuple(class_mask.shape)}"
        )


def check_switches(class_mask: Tensor) -> None:
    check_tensor("class_mask", class_mask)
    if class_mask.dtype != torch.bool:
        raise TypeError(f"class_mask must be bool, True for labelled classes, got {class_mask.dtype}")


def ignore_unlabelled(labels: Tensor, class_mask: Tensor | None, ignore_index: int | None) -> Tensor:
    """Labels in which pixels of classes outside the image's ``class_mask (N, C)`` are ignored.

    >>> ignore_unlabelled(torch.tensor([[0, 1]]), torch.tensor([[True, False]]), 255)
    tensor([[  0, 255]])
    """
    check_labels(labels)
    if class_mask is None:
        return labels
    check_switches(class_mask)
    if class_mask.ndim != 2 or len(class_mask) != len(labels):
        raise ValueError(
            f"class_mask must have shape ({len(labels)}, C) to match labels {tuple(labels.shape)}, "
            f"got {tuple(class_mask.shape)}"
        )
    labels, last = labels.long(), class_mask.shape[1] - 1
    is_class = (labels >= 0) & (labels <= last)
    flat = labels.clamp(0, last).reshape(len(labels), math.prod(labels.shape[1:]))
    labelled = class_mask.gather(1, flat).view_as(labels)
    return labels.masked_fill(is_class & ~labelled, ignored_label(ignore_index))


def posterior_of_labelled(posterior: Tensor, class_mask: Tensor) -> Tensor:
    r"""P(c | x, c is one of the image's labelled classes), which is what such labels can be held against.

    .. math:: P'_{nc} = [c \in S_n] P_{nc} \,/\, \sum_{k \in S_n} P_{nk}

    Equal shares of the labelled classes where their sum is 0.

    Args:
        posterior: P ``(N, C, *)``.
        class_mask: bool ``(N, C)``, True for the classes of :math:`S_n`.

    Raises:
        TypeError, ValueError: the mask is not bool, or not of shape ``(N, C)``.

    >>> posterior_of_labelled(torch.tensor([[0.6, 0.2, 0.2]]), torch.tensor([[False, True, True]]))
    tensor([[0.0000, 0.5000, 0.5000]])
    """
    check_class_mask(class_mask, posterior)
    mask = class_mask.view(*class_mask.shape, *[1] * (posterior.ndim - 2))
    share = torch.where(mask, posterior, 0)
    total = share.sum(1, keepdim=True)
    equal = mask / mask.sum(1, keepdim=True).clamp(min=1).to(posterior)
    return torch.where(total > 0, share / torch.where(total > 0, total, 1), equal)
