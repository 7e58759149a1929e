"""A trained run as an ONNX file, checked against the model with onnxruntime, or as a folder to give away.

python -m segloss.export --checkpoint RUN --output model.onnx
python -m segloss.export --checkpoint RUN --hub FOLDER

The folder is that of :mod:`segloss.hub`. The file:

Input ``images``: float32 RGB in 0..255, ``(N, 3, H, W)``, or ``(N, B, H, W)`` as the files of other ``bands`` are, N to
16, any H and W; normalisation, padding to the network's stride and cutting back are part of the graph. Outputs
``logits`` ``(N, C, H, W)`` and ``classes`` ``(N, H, W)``, class numbers decided in the graph, on the calibrated
posterior where the run is calibrated. The metadata say how to read the logits:
``classes``, ``ids``, ``loss``, ``posterior`` (``softmax``: P = softmax(z - log u); ``outlying``: P ~ max(z / u, 0);
``other``: not to be read from these alone), ``tilt`` (u: the plain argmax is argmax u_c P(c|x); null: all 1), ``prior``
(training shares), ``calibration`` (temperature, bias, floor, or null); ``decision`` and ``iou_rule`` (slope and offset,
or null) are those of the output ``classes``; ``bands`` (count, dtype, mean, std); all as JSON.
"""

from typing import TYPE_CHECKING

from segloss.lazy import names_from

if TYPE_CHECKING:
    from segloss.export.command import check_onnx, export_hub, export_onnx, main, metadata_of

__getattr__, __dir__ = names_from(
    __name__, {"segloss.export.command": ("check_onnx", "export_hub", "export_onnx", "main", "metadata_of")}
)

__all__ = ["check_onnx", "export_hub", "export_onnx", "main", "metadata_of"]
