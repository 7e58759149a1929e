"""The picture at the head of README.md: a made-up street, decided on in two ways by the model that ships.

python benchmarks/streets.py            # writes docs/streets.png
"""

from pathlib import Path

import matplotlib
import numpy as np
from command import parser_of

from segloss.errors import exit_on_input_error

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

import segloss
from segloss.datasets.street_scenes import render_street
from segloss.report.painting import paint

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--image", type=int, default=7, help="number of the test image")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/streets.png")
    options = parser.parse_args()
    run = segloss.load_run("demo")
    image, labels = render_street(0, "test", options.image)
    panels = {"image": image}
    for title, decision in (("plain argmax", "plain"), ("decided for mean IoU", "iou")):
        decided = run.predict(image, decision)
        confusion = segloss.ConfusionMatrix(len(run.classes))
        confusion.update(decided, labels)
        panels[f"{title}: mIoU {100 * confusion.compute().miou:.0f} %"] = paint(decided, run.classes.colors)
    panels["truth"] = paint(labels, run.classes.colors)
    figure, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
    for ax, (title, picture) in zip(axes, panels.items(), strict=True):
        ax.imshow(picture, interpolation="nearest")
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    there = [c for c in range(len(run.classes)) if (labels == c).any()]
    colors = np.array(run.classes.colors) / 255
    handles = [Patch(facecolor=colors[c], edgecolor="0.5", label=run.classes.names[c]) for c in there]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.savefig(options.output, dpi=100, facecolor="white")
    print(options.output)


if __name__ == "__main__":
    exit_on_input_error(main)
