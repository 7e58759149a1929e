"""Soft Jaccard on a posterior, and the mixture with which a training ends."""

import math

import torch
from torch import Tensor

from segloss.losses.criterion import Criterion
from segloss.losses.labels import IGNORE_INDEX, valid_pixels
from segloss.losses.partial_labels import ignore_unlabelled, posterior_of_labelled
from segloss.losses.regions import reduce_classes, soft_counts

LOSS_SHARE, JACCARD_SHARE = 0.25, 0.75  # of the mixture, as in JDTLosses


def soft_jaccard_of(posterior: Tensor, labels: Tensor, *, ignore_index: int | None = IGNORE_INDEX) -> Tensor:
    r"""One minus the soft intersection over union of probabilities, mean over the classes that the batch holds.

    .. math::
        J = \frac{1}{|K|} \sum_{c \in K} \left( 1 - \frac{\sum_{i \in V} P_{ic} [y_i = c]}{\sum_{i \in V}
        (P_{ic} + [y_i = c] - P_{ic} [y_i = c])} \right)

    over all valid pixels V of the batch together; K: the classes of its labels. Of a softmax this is
    :func:`segloss.losses.jaccard_loss`; here the probabilities may come from scores of any loss.

    Args:
        posterior: P, floating, ``(N, C, *)``, sums to 1 over dim 1.
        labels: class ids y, integer, ``(N, *)``, in ``[0, C)`` or ``ignore_index``.
        ignore_index: such pixels count nowhere; None: all count.

    Returns:
        Scalar, float32 or wider; 0 with zero gradient where V is empty.

    Source: Wang et al., "Jaccard Metric Losses", NeurIPS 2023, for hard labels.

    >>> soft_jaccard_of(torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]), torch.tensor([[1, 0]]))
    tensor(0.4167)
    """
    valid, safe = valid_pixels(
        labels.reshape(len(labels), math.prod(labels.shape[1:])), posterior.shape[1], ignore_index
    )
    hits, predicted, held = soft_counts(posterior.reshape(*posterior.shape[:2], valid.shape[1]), valid, safe)
    index = hits / torch.where(held > 0, predicted + held - hits, 1)
    return reduce_classes(1 - index, held > 0, None, posterior, "mean", valid, None)


def late_jaccard_loss(
    criterion: Criterion,
    loss: Tensor,
    logits: Tensor,
    labels: Tensor,
    *,
    share: Tensor | float = 1.0,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""The loss of the last part of a training: ``0.25 loss + 0.75 share J`` of the criterion's own posterior.

    For softmax losses that is :math:`\mathrm{softmax}(z - \log u)` with the tilt u, for squared errors
    :math:`\max(z_c / t_c, 0)` over its sum: the Jaccard index pulls at what is decided on, and not at weights.

    Args:
        criterion: whose posterior it is.
        loss: its value for these.
        logits: ``(N, C, *)``. labels: ``(N, *)``.
        share: of this batch in the whole that ``loss`` is a part of.
        class_mask: bool ``(N, C)``, the classes that each image labels; None: all.

    Source: the mixture is that of Wang et al., "Jaccard Metric Losses", NeurIPS 2023 (JDTLosses).
    """
    labels = ignore_unlabelled(labels, class_mask, criterion.ignore_index)
    valid, _ = valid_pixels(labels, logits.shape[1], criterion.ignore_index)
    # Chosen before the posterior, in whose gradient a score that is no number would spread.
    posterior = criterion.posterior(logits.masked_fill(~valid.unsqueeze(1), 0))
    if class_mask is not None:
        posterior = posterior_of_labelled(posterior, class_mask)
    jaccard = soft_jaccard_of(posterior, labels, ignore_index=criterion.ignore_index)
    return LOSS_SHARE * loss + JACCARD_SHARE * share * jaccard
