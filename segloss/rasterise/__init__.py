"""Masks and a class file from outlines: what ``--dataset folder`` reads of what people drew.

python -m segloss.rasterise SOURCE OUT

Read are COCO JSON (polygons, run lengths, crowds), LabelMe JSON, CVAT XML 1.1 for images, YOLO-seg text, and
Roboflow's exports of COCO and YOLO. pycocotools draws all of it, so that pixels are those of COCO's own tools.
"""
