"""Class tables of well-known data sets: names, ids, colours, what is ignored and what is merged."""

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from segloss.datasets.classes import ClassTable, distinct_colors
from segloss.losses.labels import IGNORE_INDEX


def _names(text: str) -> tuple[str, ...]:
    """Names between commas, over several lines."""
    return tuple(" ".join(name.split()) for name in text.split(","))


# CamVid's 32 colours, and the class of the 11 that each is merged into ("" is void).
# Source: label_colors.txt of the data set; merge as in Badrinarayanan et al., "SegNet", 2017.
_CAMVID = """
Animal 64 128 64 pedestrian
Archway 192 0 128 building
Bicyclist 0 128 192 bicyclist
Bridge 0 128 64 building
Building 128 0 0 building
Car 64 0 128 car
CartLuggagePram 64 0 192 pedestrian
Child 192 128 64 pedestrian
Column_Pole 192 192 128 pole
Fence 64 64 128 fence
LaneMkgsDriv 128 0 192 road
LaneMkgsNonDriv 192 0 64 road
Misc_Text 128 128 64 sign_symbol
MotorcycleScooter 192 0 192 bicyclist
OtherMoving 128 64 64 car
ParkingBlock 64 192 128 pavement
Pedestrian 64 64 0 pedestrian
Road 128 64 128 road
RoadShoulder 128 128 192 pavement
Sidewalk 0 0 192 pavement
SignSymbol 192 128 128 sign_symbol
Sky 128 128 128 sky
SUVPickupTruck 64 128 192 car
TrafficCone 0 0 64 pole
TrafficLight 0 64 64 sign_symbol
Train 192 64 128 car
Tree 128 128 0 tree
Truck_Bus 192 128 192 car
Tunnel 64 0 64 building
VegetationMisc 192 192 0 tree
Wall 64 192 0 building
"""
_CAMVID_ROWS = [line.split() for line in _CAMVID.split("\n") if line]
_CAMVID_COLORS = [(int(r), int(g), int(b)) for _, r, g, b, _ in _CAMVID_ROWS]
_VOID = ((0, 0, 0), IGNORE_INDEX)
# The 11 classes, and the one of the 32 whose colour each has.
_11 = {
    "sky": "Sky",
    "building": "Building",
    "pole": "Column_Pole",
    "road": "Road",
    "pavement": "Sidewalk",
    "tree": "Tree",
    "sign_symbol": "SignSymbol",
    "fence": "Fence",
    "car": "Car",
    "pedestrian": "Pedestrian",
    "bicyclist": "Bicyclist",
}

CAMVID_11 = ClassTable(
    names=tuple(_11),
    colors=tuple(_CAMVID_COLORS[[row[0] for row in _CAMVID_ROWS].index(name)] for name in _11.values()),
    ignore_ids=(11, 255),
    mask_colors=(*zip(_CAMVID_COLORS, (list(_11).index(row[4]) for row in _CAMVID_ROWS), strict=True), _VOID),
)
CAMVID_32 = ClassTable(  # 31 classes: Void is ignored
    names=tuple(row[0] for row in _CAMVID_ROWS),
    colors=tuple(_CAMVID_COLORS),
    mask_ids=((IGNORE_INDEX, IGNORE_INDEX),),  # its masks are colour images; ids have no agreed order
    mask_colors=(*((color, place) for place, color in enumerate(_CAMVID_COLORS)), _VOID),
)

# labelId, category, colour and name of each class, in the order of the trainIds.
# Source: cityscapesscripts.helpers.labels.
_CITYSCAPES = """
7 flat 128 64 128 road
8 flat 244 35 232 sidewalk
11 construction 70 70 70 building
12 construction 102 102 156 wall
13 construction 190 153 153 fence
17 object 153 153 153 pole
19 object 250 170 30 traffic light
20 object 220 220 0 traffic sign
21 nature 107 142 35 vegetation
22 nature 152 251 152 terrain
23 sky 70 130 180 sky
24 human 220 20 60 person
25 human 255 0 0 rider
26 vehicle 0 0 142 car
27 vehicle 0 0 70 truck
28 vehicle 0 60 100 bus
31 vehicle 0 80 100 train
32 vehicle 0 0 230 motorcycle
33 vehicle 119 11 32 bicycle
"""
_CITYSCAPES_ROWS = [line.split(maxsplit=5) for line in _CITYSCAPES.split("\n") if line]
_LABEL_IDS = tuple(int(row[0]) for row in _CITYSCAPES_ROWS)

CITYSCAPES = ClassTable(
    names=tuple(row[5] for row in _CITYSCAPES_ROWS),
    ids=_LABEL_IDS,
    colors=tuple((int(r), int(g), int(b)) for _, _, r, g, b, _ in _CITYSCAPES_ROWS),
    ignore_ids=tuple(i for i in (*range(34), 255) if i not in _LABEL_IDS),  # licence plates, id -1, are stored as 255
    categories=tuple(row[1] for row in _CITYSCAPES_ROWS),
)
LabelKind = Literal["labelIds", "trainIds"]  # what the pixels of a mask of Cityscapes are
LABEL_ENDINGS: dict[LabelKind, str] = {"labelIds": "_labelIds", "trainIds": "_labelTrainIds"}  # by the file's name


def in_train_ids(classes: ClassTable) -> ClassTable:
    """The table for masks of trainIds: class numbers from 0 in the place of its own ids, 255 ignored."""
    return replace(classes, mask_ids=(*((c, c) for c in range(len(classes))), (IGNORE_INDEX, IGNORE_INDEX)))


def has_train_ids(classes: ClassTable) -> bool:
    """Whether class numbers from 0 are another system than the table's own ids."""
    return classes.ids != tuple(range(len(classes))) or classes.names == CITYSCAPES.names


def look_like_train_ids(values: Collection[int], classes: ClassTable) -> bool:
    """Whether masks that hold these values seem to be of trainIds, where the table reads other ids that leave gaps."""
    plain, read = {*values} - {IGNORE_INDEX}, {value for value, label in classes.mask_ids if label != IGNORE_INDEX}
    return len(plain) > 3 and max(plain) < len(classes) < max(read, default=0) and not plain <= read


TRAIN_IDS = in_train_ids(CITYSCAPES).mask_ids  # of ..._labelTrainIds.png

_VOC = """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike,
person, pottedplant, sheep, sofa, train, tvmonitor
"""
VOC = ClassTable(names=_names(_VOC), colors=((0, 0, 0), *distinct_colors(20)))

# The 150 classes of the MIT scene parsing benchmark by falling share of pixels; 0 in the masks is "other", ignored.
# Source: objectInfo150.txt of ADEChallengeData2016 (first name of each).
_ADE20K = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest
of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool
table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus,
towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track,
apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer
belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle,
oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket,
sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board,
shower, radiator, glass, clock, flag
"""
ADE20K = ClassTable(
    names=_names(_ADE20K),
    ids=tuple(range(1, 151)),
    ignore_ids=(0, 255),
)
