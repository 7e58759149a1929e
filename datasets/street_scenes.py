"""Procedural street scenes with CamVid's eleven classes, for the demo and for tests without real data.

A scene is a small world in metres, seen from a car that drives on the left: x to the right, y up from the
road, z ahead. Every thing is a set of polygons in that world, projected by one pinhole camera and painted far
to near into image and labels alike: labels are exact at every edge, and near things hide far ones.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN_SYMBOL, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
VOID = 255  # pixels of no class: the own bonnet, street furniture
SPLIT_SIZES = {"train": 240, "val": 40, "test": 60}
SMALLEST_SIDE = 32  # pixels; below this, people and poles are no longer shapes

EYE_HEIGHT = 1.35  # metres, a camera behind a windscreen
STREET_END = 80.0  # metres ahead, where a backdrop closes the view
KERB_HEIGHT = 0.12  # metres
DEPTHS = np.geomspace(0.8, STREET_END + 20, 20)  # metres ahead, where bands along the street have corners

# Palettes overlap on purpose: grey is a road, a wall, a car or a coat; colour alone does not give the class.
GREYS = [(78, 80, 84), (100, 100, 102), (122, 120, 116), (146, 142, 136)]
WALLS = [(134, 84, 68), (156, 112, 88), (188, 172, 142), (204, 196, 178), (112, 98, 86), *GREYS]
LEAVES = [(52, 72, 38), (74, 92, 46), (94, 104, 52), (64, 66, 44), (112, 92, 52)]
PAINTS = [(150, 30, 34), (32, 52, 110), (206, 208, 210), (36, 38, 42), (40, 72, 58), (170, 168, 160), *GREYS]
CLOTHES = [(40, 44, 60), (120, 36, 40), (196, 190, 180), (60, 84, 120), (134, 84, 68), (88, 96, 62), *GREYS]
SIGN_FACES = [(186, 34, 40), (28, 66, 150), (224, 222, 216), (24, 96, 66), (214, 178, 40)]
SKIN = [(204, 162, 136), (168, 120, 92), (104, 72, 56)]
PANES = [(46, 52, 60), (92, 104, 118), (150, 160, 170)]
DARK = (30, 31, 33)  # tyres, car windows, shade under a car
# Car, van, bus: metres wide, high and long, and by how much the screens lean back.
VEHICLES = [(1.75, 1.45, 4.2, 0.6), (1.95, 2.2, 5.0, 0.15), (2.4, 3.1, 9.5, 0.15)]

CIRCLE = np.array([(math.cos(turn), math.sin(turn), 0) for turn in np.arange(14) * (math.pi / 7)])
# Strength of the surface grain by label id, as a share of the brightness; void takes the last entry.
GRAIN = np.array([0.01, 0.07, 0.05, 0.06, 0.07, 0.17, 0.03, 0.08, 0.04, 0.08, 0.08, 0.06], dtype=np.float32)


@dataclass
class Scene:
    """The canvas, the camera and the plan of one street; lengths in metres unless said otherwise."""

    rng: np.random.Generator
    image: np.ndarray  # float32 RGB (H, W, 3), around 0 to 255 until ``develop`` clips it
    labels: np.ndarray  # uint8 (H, W)
    focal: float  # pixels
    horizon: float  # pixels from the top
    vanishing: float  # pixels from the left
    bend: float  # 1/m: the street moves sideways by bend * z^2
    kerbs: dict[int, float]  # side (-1 left, 1 right) to the kerb's x
    fronts: dict[int, float]  # side to the x where buildings begin
    sun: tuple[float, float]  # x and z that a shadow runs along the ground per metre of height
    haze: np.ndarray  # RGB that far things fade to
    boxes: list[tuple[float, ...]] = field(default_factory=list)  # x0, x1, z0, z1, height; cast shadows
    things: list[tuple[float, Callable[[], None]]] = field(default_factory=list)  # depth, how to draw

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) to integer pixels (..., 2), x before y."""
        depth = points[..., 2]
        scale = self.focal / depth
        pixels = np.empty((*depth.shape, 2))
        pixels[..., 0] = scale * points[..., 0] + (self.focal * self.bend) * depth + self.vanishing
        pixels[..., 1] = scale * (EYE_HEIGHT - points[..., 1]) + self.horizon
        return np.rint(pixels).astype(np.int32)

    def faded(self, colour: np.ndarray | tuple, depth: float) -> tuple[float, float, float]:
        """The colour through the haze; visibility falls to 1/e in 160 m."""
        clear = math.exp(-depth / 160)
        red, green, blue = self.haze
        return (
            colour[0] * clear + red * (1 - clear),
            colour[1] * clear + green * (1 - clear),
            colour[2] * clear + blue * (1 - clear),
        )

    def paint(self, colour: np.ndarray | tuple | None, label: int | None, polygons: np.ndarray) -> None:
        """Fill one polygon (M, 3), or any number (K, M, 3) without overlap, in image, labels or both."""
        if not len(polygons):
            return
        corners = self.project(polygons)
        outlines = [corners] if corners.ndim == 2 else list(corners)
        if colour is not None:
            cv2.fillPoly(self.image, outlines, self.faded(colour, polygons.flat[2]))
        if label is not None:
            cv2.fillPoly(self.labels, outlines, label)

    def pick(self, palette: list[tuple[int, int, int]], spread: float = 14) -> np.ndarray:
        """A colour (3,) near a random one of the palette."""
        change = self.rng.normal(0, spread, 4)
        return change[0] + change[1:] / 3 + palette[int(self.rng.random() * len(palette))]

    def noise(self, rows: int, columns: int) -> np.ndarray:
        """Smooth random field (H, W), about standard normal, with the given number of cells."""
        cells = self.rng.standard_normal((rows, columns), dtype=np.float32)
        return cv2.resize(cells, self.labels.shape[::-1], interpolation=cv2.INTER_CUBIC)

    def plan(self, depth: float, draw: Callable, *arguments, box: tuple[float, ...] | None = None) -> None:
        """Note a thing to draw in order of depth, and the box that it fills."""
        self.things.append((depth, partial(draw, self, *arguments)))
        if box is not None:
            self.boxes.append(box)

    def is_free(self, x: float, z: float) -> bool:
        """Whether no box so far comes within 0.8 m, so that nobody stands inside a car."""
        return not any(x0 - 0.8 < x < x1 + 0.8 and z0 - 0.8 < z < z1 + 0.8 for x0, x1, z0, z1, _ in self.boxes)


def facing(x0: float, x1: float, y0: float, y1: float, z: float) -> np.ndarray:
    """Rectangle that faces the camera."""
    return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)])


def along(x: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
    """Upright rectangle that runs along the street."""
    return np.array([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)])


def flat(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """Rectangle on the road."""
    return np.array([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)])


def strip(x0: float, x1: float, y0: float, y1: float) -> np.ndarray:
    """Band along the whole street, with enough corners to follow its bend."""
    band = np.empty((2 * len(DEPTHS), 3))
    band[: len(DEPTHS)] = (x0, y0, 0)
    band[len(DEPTHS) :] = (x1, y1, 0)
    band[:, 2] = np.concatenate([DEPTHS, DEPTHS[::-1]])
    return band


def bar(start: tuple[float, float], end: tuple[float, float], thickness: float, z: float) -> np.ndarray:
    """Straight limb between two points (x, y) at one depth."""
    across, up = end[0] - start[0], end[1] - start[1]
    half = thickness / 2 / max(math.hypot(across, up), 1e-6)
    dx, dy = -up * half, across * half
    return np.array(
        [
            (start[0] + dx, start[1] + dy, z),
            (end[0] + dx, end[1] + dy, z),
            (end[0] - dx, end[1] - dy, z),
            (start[0] - dx, start[1] - dy, z),
        ]
    )


def disc(x: float, y: float, radius_x: float, radius_y: float, z: float) -> np.ndarray:
    """Ellipse that faces the camera."""
    return CIRCLE * (radius_x, radius_y, 0) + (x, y, z)


def shrink(outline: np.ndarray, level: float, upright: float) -> np.ndarray:
    """The outline about its centre, scaled by one factor along the ground and another upwards."""
    centre = outline.mean(axis=0)
    return centre + (outline - centre) * (level, upright, level)


def copies(outlines: np.ndarray, axis: int, offsets: Sequence[float] | np.ndarray) -> np.ndarray:
    """Outlines (..., M, 3) moved along an axis by each offset (K,); all of them in one array (-1, M, 3)."""
    corners = outlines.shape[-2]
    moves = np.zeros((len(offsets), 1, 1, 3))
    moves[:, 0, 0, axis] = offsets
    return (outlines.reshape(1, -1, corners, 3) + moves).reshape(-1, corners, 3)


def new_scene(rng: np.random.Generator, height: int, width: int) -> Scene:
    """An empty street: camera, kerbs and light drawn at random."""
    kerbs = {-1: -rng.uniform(2.4, 4.0), 1: rng.uniform(4.2, 6.6)}
    haze = np.array((216, 219, 222) if rng.random() < 0.5 else (188, 204, 222)) * rng.uniform(0.85, 1.1)
    return Scene(
        rng=rng,
        image=np.empty((height, width, 3), dtype=np.float32),
        labels=np.full((height, width), SKY, dtype=np.uint8),
        focal=width * rng.uniform(0.8, 0.95),
        horizon=height * rng.uniform(0.43, 0.55),
        vanishing=width * rng.uniform(0.4, 0.6),
        bend=rng.normal(0, 0.0008),
        kerbs=kerbs,
        fronts={side: kerb + side * rng.uniform(2.6, 5.0) for side, kerb in kerbs.items()},
        sun=(rng.uniform(0.3, 1.4) * rng.choice([-1, 1]), rng.uniform(-0.6, 0.6)),
        haze=haze,
    )


def paint_sky(scene: Scene) -> None:
    """Gradient from the zenith to the haze at the horizon, with clouds."""
    rows = (np.arange(len(scene.labels)) / scene.horizon).clip(0, 1)
    zenith = scene.haze * (1 - scene.rng.uniform(0, 1) * np.array([0.42, 0.24, 0.04]))
    clouds = (scene.noise(5, 4) + 0.5 * scene.noise(14, 9)) * np.float32(scene.rng.uniform(2, 22))
    for channel, (top, low) in enumerate(zip(zenith, scene.haze, strict=True)):
        scene.image[..., channel] = clouds + (top + (low - top) * rows[:, None]).astype(np.float32)


def paint_ground(scene: Scene) -> None:
    """Road to the horizon with repairs and markings, and a pavement behind a kerb at either side."""
    rng = scene.rng
    road = scene.pick(GREYS)
    scene.paint(road, ROAD, np.array([(-30, 0, 0.8), (30, 0, 0.8), (900, 0, 600), (-900, 0, 600)]))
    for _ in range(rng.integers(0, 4)):
        x, z = rng.uniform(scene.kerbs[-1], scene.kerbs[1]), rng.uniform(3, 20)
        repair = flat(x, x + rng.uniform(0.5, 2), z, z + rng.uniform(1, 9))
        scene.paint(road * rng.uniform(0.75, 1.15), None, repair)
    paint_markings(scene)
    paving = scene.pick(GREYS, 20)
    for side, kerb in scene.kerbs.items():
        scene.paint(paving, PAVEMENT, strip(kerb, side * 40, KERB_HEIGHT, KERB_HEIGHT))
        scene.paint(paving * rng.uniform(0.75, 1.25), PAVEMENT, strip(kerb, kerb, 0, KERB_HEIGHT))
        joint = flat(kerb, scene.fronts[side], 0, 0.04) + np.array([0, KERB_HEIGHT, 0])
        scene.paint(paving * 0.88, None, copies(joint, 2, np.geomspace(3, 25, 10)))


def paint_markings(scene: Scene) -> None:
    """Dashes between the lanes, lines at the kerbs and at times a zebra crossing; all of it is road."""
    rng = scene.rng
    left, right = scene.kerbs[-1], scene.kerbs[1]
    middle, white = (left + right) / 2, np.full(3, rng.uniform(150, 225))
    starts = np.arange(rng.uniform(1, 6), STREET_END, rng.uniform(4, 8))
    scene.paint(white, None, copies(flat(middle - 0.07, middle + 0.07, 0, 2.2), 2, starts))
    if rng.random() < 0.6:
        edge = white if rng.random() < 0.5 else white * (1, 0.85, 0.3)
        scene.paint(edge, None, strip(left + 0.35, left + 0.45, 0, 0))
        scene.paint(edge, None, strip(right - 0.45, right - 0.35, 0, 0))
    if rng.random() < 0.2:
        z = rng.uniform(6, 20)
        scene.paint(white, None, copies(flat(0, 0.5, z, z + 2.5), 0, np.arange(left + 0.4, right - 0.6)))


def cast_shadows(scene: Scene) -> None:
    """Darken the ground under all planned shadows at once; sky and labels stay."""
    light = np.ones(scene.labels.shape, dtype=np.float32)
    left_over = scene.rng.uniform(0.45, 0.95)  # from full sun to overcast
    slant = np.array([scene.sun[0], 0, scene.sun[1]])
    for *ground, height in scene.boxes:
        foot = flat(*ground)
        points = np.concatenate([foot, foot + slant * height])
        points[:, 2] = points[:, 2].clip(0.6)  # nothing reaches behind the camera
        cv2.fillConvexPoly(light, cv2.convexHull(scene.project(points)), left_over)
    light[scene.labels == SKY] = 1
    scene.image *= cv2.merge([cv2.GaussianBlur(light, (3, 3), 0)] * 3)


def draw_backdrop(scene: Scene) -> None:
    """Far houses and trees that close the street."""
    for x in np.arange(-60, 60, 10.0):
        height = scene.rng.uniform(4, 9)
        if scene.rng.random() < 0.5:
            scene.paint(scene.pick(WALLS), BUILDING, facing(x, x + 11, 0, height, STREET_END))
        else:
            scene.paint(scene.pick(LEAVES), TREE, disc(x + 5, height / 2, 7, height / 2, STREET_END))


def draw_building(scene: Scene, side: int, z0: float, z1: float, height: float) -> None:
    """House or block: end wall, street front and at times a pitched roof."""
    x = scene.fronts[side]
    wall = scene.pick(WALLS)
    end = facing(x, x + side * 9, 0, height, z0)
    if scene.rng.random() < 0.5:
        ridge = (x + side * 4.5, height + 3, z0)
        roof = np.array([(x, height, z0), (x, height, z1), (*ridge[:2], z1), ridge])
        end = np.insert(end, 3, ridge, axis=0)
        scene.paint(scene.pick(GREYS), BUILDING, roof)
    scene.paint(wall * 0.92, BUILDING, end)
    # The sun shines from the side that shadows run away from.
    draw_front(scene, x, z0, z1, height, wall * (1.1 if side * scene.sun[0] > 0 else 0.8))


def draw_front(scene: Scene, x: float, z0: float, z1: float, height: float, wall: np.ndarray) -> None:
    """A building's wall along the street, with rows of windows over doors and shops, and eaves."""
    rng = scene.rng
    scene.paint(wall, BUILDING, along(x, 0, height, z0, z1))
    if z0 > 50:
        return  # windows there are under a pixel wide
    pitch, tall = rng.uniform(1.8, 3.2), rng.uniform(1.1, 1.7)
    wide = pitch * rng.uniform(0.4, 0.65)
    columns = np.arange(z0 + 0.8, z1 - wide * 1.2, pitch)
    floors = np.arange(3.6, height - tall, rng.uniform(2.6, 3.2))
    windows = copies(copies(along(x, 0, tall, 0, wide), 2, columns), 1, floors)
    scene.paint(wall * rng.uniform(0.7, 1.3), None, windows - (0, 0.12, 0))  # sills
    scene.paint(scene.pick(PANES), None, windows)
    scene.paint(scene.pick(PAINTS) * 0.8, None, copies(along(x, 0.3, 2.4, 0, wide * 1.2), 2, columns))
    scene.paint(wall * 0.7, None, along(x, height - 0.3, height, z0, z1))


def draw_tree(scene: Scene, x: float, z: float, radius: float, trunk: float) -> None:
    """Trunk and a crown of tufts, lighter towards the top."""
    rng = scene.rng
    bark, leaf = scene.pick([(70, 58, 46), (92, 84, 74), (58, 56, 52)]), scene.pick(LEAVES)
    scene.paint(bark, TREE, bar((x, 0), (x, trunk + radius), 0.12 + radius * 0.1, z))
    count = int(np.clip(scene.focal * radius / z / 2.5, 5, 24))  # far crowns need fewer
    turns, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 0.8, count))
    centres = np.stack([reach * np.cos(turns), reach * np.sin(turns), np.zeros(count)], axis=1)
    tufts = CIRCLE * rng.uniform(0.2, 0.45, (count, 1, 1)) + centres[:, None]
    shades = 1 + 0.25 * centres[:, 1] + rng.normal(0, 0.14, count)
    outlines = scene.project(tufts * radius + (x, trunk + radius, z))
    for outline, shade in zip(outlines, shades, strict=True):
        cv2.fillConvexPoly(scene.image, outline, scene.faded(leaf * shade, z))
        cv2.fillConvexPoly(scene.labels, outline, TREE)


def draw_hedge(scene: Scene, x: float, z0: float, z1: float, height: float) -> None:
    """Clipped bushes along the street, with a ragged top."""
    leaf = scene.pick(LEAVES)
    scene.paint(leaf, TREE, along(x, 0, height, z0, z1))
    for z in np.arange(z1, z0, -1.2):
        tuft = disc(x, height, 0.6, scene.rng.uniform(0.2, 0.5), z)
        scene.paint(leaf * scene.rng.uniform(0.8, 1.2), TREE, tuft)


def draw_boards(scene: Scene, x: float, z0: float, z1: float, height: float) -> None:
    """Wooden fence."""
    colour = scene.pick(WALLS)
    scene.paint(colour, FENCE, along(x, KERB_HEIGHT, height, z0, z1))
    joint = along(x, KERB_HEIGHT, height, 0, 0.03)
    scene.paint(colour * 0.75, None, copies(joint, 2, np.arange(z0, z1, 0.5)))


def draw_railing(scene: Scene, x: float, z: float, colour: np.ndarray) -> None:
    """Two metres of railing that one sees through; the whole panel is fence, as annotators draw it."""
    scene.paint(None, FENCE, along(x, KERB_HEIGHT, 1.15, z, z + 2))
    scene.paint(colour, None, copies(along(x, 0, 0.08, z, z + 2), 1, (0.3, 1.07)))
    scene.paint(colour, None, copies(along(x, 0.3, 1.15, z, z + 0.05), 2, np.arange(0, 2, 0.3)))


def draw_lamp(scene: Scene, x: float, z: float, height: float) -> None:
    """Street lamp: a post with a thicker foot and an arm over the road."""
    colour, end = scene.pick(GREYS, 25), x - math.copysign(scene.rng.uniform(0.3, 1.6), x)
    scene.paint(colour, POLE, bar((x, 0), (x, height), 0.1, z))
    scene.paint(colour, POLE, bar((x, 0), (x, 1.3), 0.18, z))
    scene.paint(colour, POLE, bar((x, height), (end, height + 0.3), 0.08, z))
    scene.paint(colour * 1.2, POLE, disc(end, height + 0.25, 0.3, 0.08, z))


def draw_sign(scene: Scene, x: float, z: float, height: float) -> None:
    """Traffic sign on its post: a disc, a triangle or a board, with a rim and a symbol."""
    rng = scene.rng
    size, kind = rng.uniform(0.36, 0.6), rng.integers(3)
    if kind == 0:
        outline = disc(x, height, size, size, z)
    elif kind == 1:
        outline = np.array([(-1, -0.8, 0), (1, -0.8, 0), (0, 1, 0)]) * size + (x, height, z)
    else:
        wide, tall = size * rng.uniform(0.8, 2.4), size * rng.uniform(0.8, 1.4)
        outline = facing(x - wide, x + wide, height - tall, height + tall, z)
    scene.paint(scene.pick(GREYS, 25), POLE, bar((x, 0), (x, height), 0.07, z))
    scene.paint(scene.pick(SIGN_FACES), SIGN_SYMBOL, outline)
    scene.paint(scene.pick(SIGN_FACES), None, shrink(outline, 0.75, 0.75))
    scene.paint(scene.pick(SIGN_FACES), None, shrink(outline, 0.45, 0.2))


def draw_traffic_light(scene: Scene, x: float, z: float) -> None:
    """Three lamps in a dark box on a post, one of them on."""
    scene.paint(scene.pick(GREYS, 25), POLE, bar((x, 0), (x, 2.4), 0.1, z))
    scene.paint(DARK, SIGN_SYMBOL, facing(x - 0.24, x + 0.24, 2.2, 3.4, z))
    lit = scene.rng.integers(3)
    for lamp, colour in enumerate(np.array([(60, 220, 120), (240, 180, 50), (240, 60, 50)])):
        scene.paint(colour * (1 if lamp == lit else 0.3), None, disc(x, 2.45 + 0.35 * lamp, 0.12, 0.12, z))


def draw_car(scene: Scene, x: float, z: float, size: tuple[float, ...], away: bool) -> None:
    """Car, van or bus, in line with the street; size as in ``VEHICLES``."""
    colour, half = scene.pick(PAINTS), size[0] / 2
    scene.paint(DARK, None, flat(x - half - 0.1, x + half + 0.1, z - 0.1, z + size[2]))
    draw_car_flank(scene, x, z, size, colour)
    draw_car_end(scene, x, z, size, colour)
    lamp, plate = ((176, 30, 30), (220, 200, 90)) if away else ((240, 236, 214), (226, 226, 226))
    scene.paint(lamp, None, copies(disc(x, size[1] * 0.47, 0.16, 0.1, z), 0, (0.2 - half, half - 0.2)))
    scene.paint(plate, None, facing(x - 0.26, x + 0.26, 0.4, 0.54, z))


def draw_car_flank(scene: Scene, x: float, z: float, size: tuple[float, ...], colour: np.ndarray) -> None:
    """Doors, side windows and wheels of the side that the camera sees."""
    width, height, length, rake = size
    belt, seen = height * 0.58, -math.copysign(width / 2, x + scene.bend * z * z)
    side, roof, far = x + seen, x + seen * 0.8, z + length
    cabin = np.array(
        [(side, belt, z), (roof, height, z + rake), (roof, height, far - 2 * rake), (side, belt, far - rake)]
    )
    lit = colour * (1.1 if seen * scene.sun[0] < 0 else 0.75)
    scene.paint(lit, CAR, np.stack([along(side, 0.22, belt, z, far), cabin]))
    scene.paint(DARK, None, shrink(cabin, 0.86, 0.72))
    wheel = CIRCLE[:, [2, 1, 0]] * 0.31 + (side, 0.31, z)
    scene.paint(DARK, CAR, copies(wheel, 2, (0.2 * length, 0.8 * length)))


def draw_car_end(scene: Scene, x: float, z: float, size: tuple[float, ...], colour: np.ndarray) -> None:
    """Tyres, body and screen of the end that faces the camera."""
    half, height, back = size[0] / 2, size[1], z + size[3]
    belt, roof = height * 0.58, half * 0.8
    scene.paint(DARK, CAR, copies(facing(x, x + half * 0.28, 0, 0.4, z), 0, (-half, half * 0.72)))
    scene.paint(colour * 0.95, CAR, facing(x - half, x + half, 0.22, belt, z))
    screen = np.array([(x - half, belt, z), (x + half, belt, z), (x + roof, height, back), (x - roof, height, back)])
    scene.paint(colour, CAR, screen)
    scene.paint(DARK, None, shrink(screen, 0.84, 0.72))


def draw_pedestrian(scene: Scene, x: float, z: float, height: float) -> None:
    """Someone who walks or stands: legs, torso, arms, head."""
    rng = scene.rng
    coat, trousers = scene.pick(CLOTHES), scene.pick(CLOTHES)
    hip, shoulder, half, step = height * 0.5, height * 0.82, rng.uniform(0.19, 0.26), rng.uniform(0.02, 0.28)
    for side in (-1, 1):
        scene.paint(trousers, PEDESTRIAN, bar((x, hip), (x + side * step, KERB_HEIGHT), 0.17, z))
        hand = (x + side * (half + rng.uniform(0, 0.15)), hip - 0.05)
        scene.paint(coat * 0.85, PEDESTRIAN, bar((x + side * half * 0.84, shoulder), hand, 0.11, z))
    scene.paint(coat, PEDESTRIAN, bar((x, hip - 0.1), (x, shoulder), half * 1.8, z))
    scene.paint(scene.pick(SKIN), PEDESTRIAN, disc(x, height - 0.14, 0.11, 0.15, z))
    scene.paint(scene.pick(GREYS) * 0.5, None, disc(x, height - 0.05, 0.1, 0.06, z))


def draw_bicyclist(scene: Scene, x: float, z: float, turn: float) -> None:
    """Rider and bicycle; turn runs from -1 and 1, seen from the side, to near 0, seen from behind."""
    coat, trousers, frame = scene.pick(CLOTHES), scene.pick(CLOTHES), scene.pick(PAINTS)
    narrow = 1 - abs(turn)
    hip, shoulder = (x - 0.2 * turn, 0.98), (x + 0.15 * turn, 1.48)
    grip, pedal = (x + 0.42 * turn, 1.02), (x, 0.3)
    for hub, joint in (((x - 0.52 * turn, 0.34), pedal), ((x + 0.52 * turn, 0.34), grip)):
        tyre = disc(*hub, 0.38 - 0.34 * narrow, 0.34, z)
        scene.paint(None, BICYCLIST, tyre)
        scene.paint(DARK, None, np.stack([tyre, shrink(tyre, 0.72, 0.76)]))  # the inner outline is a hole
        scene.paint(frame, BICYCLIST, bar(hub, joint, 0.05, z))
    for end in (hip, grip):
        scene.paint(frame, BICYCLIST, bar(pedal, end, 0.05, z))
    for side in (-1, 1):
        knee = (x + 0.2 * turn + side * 0.12 * narrow, 0.66 + 0.1 * side)
        scene.paint(trousers, BICYCLIST, bar(hip, knee, 0.17, z))
        scene.paint(trousers * 0.9, BICYCLIST, bar(knee, (x + side * 0.1, 0.3 + 0.1 * side), 0.13, z))
        hand = (grip[0] + side * 0.25 * narrow, grip[1])
        scene.paint(coat * 0.85, BICYCLIST, bar((shoulder[0] + side * 0.2 * narrow, 1.44), hand, 0.1, z))
    scene.paint(coat, BICYCLIST, bar(hip, shoulder, 0.3 + 0.14 * narrow, z))
    scene.paint(scene.pick(SKIN + PAINTS[:3]), BICYCLIST, disc(x + 0.22 * turn, 1.66, 0.12, 0.15, z))


def draw_furniture(scene: Scene, x: float, z: float) -> None:
    """Bin, bollard or box that belongs to no class."""
    half, height, colour = scene.rng.uniform(0.15, 0.5), scene.rng.uniform(0.6, 1.3), scene.pick(PAINTS)
    scene.paint(colour, VOID, facing(x - half, x + half, 0, height, z))
    scene.paint(colour * 1.2, None, facing(x - half, x + half, height * 0.8, height * 0.9, z))


def plan_fronts(scene: Scene) -> None:
    """Line both sides with buildings and gaps."""
    rng = scene.rng
    built, storeys = rng.uniform(0.4, 1.0), rng.uniform(2.0, 4.2)
    for side, x in scene.fronts.items():
        z = rng.uniform(1.5, 4)
        while z < STREET_END - 4:
            end = min(z + rng.uniform(7, 16), STREET_END)
            if rng.random() < built:
                height = 3 * storeys * rng.uniform(0.8, 1.25)
                box = (*sorted((x, x + side * 9)), z, end, height)
                scene.plan(end, draw_building, side, z, end, height, box=box)
            else:
                plan_gap(scene, side, z, end)
            z = end


def plan_gap(scene: Scene, side: int, z0: float, z1: float) -> None:
    """Trees behind a hedge or a fence."""
    rng = scene.rng
    x = scene.fronts[side]
    for z in np.arange(z0 + 2, min(z1, 55), 5):  # trees further off would be hidden
        scene.plan(z1 + 0.01 * z, draw_tree, x + side * rng.uniform(2.5, 5), z, rng.uniform(1.6, 3.2), 1.5)
    if rng.random() < 0.5:
        scene.plan(z1, draw_hedge, x, z0, z1, rng.uniform(0.9, 2.2))
    else:
        scene.plan(z1, draw_boards, x, z0, z1, rng.uniform(0.9, 1.8))


def plan_kerbside(scene: Scene) -> None:
    """Lamps, signs, railings, street trees and furniture along the kerbs."""
    rng = scene.rng
    for side, kerb in scene.kerbs.items():
        x = kerb + side * 0.4
        for z in np.arange(rng.uniform(6, 30), 50, rng.uniform(20, 40)):
            scene.plan(z, draw_lamp, x, z, rng.uniform(5, 8), box=(x - 0.1, x + 0.1, z, z + 0.2, 6))
        for z in rng.uniform(6, 30, rng.integers(0, 4)):
            scene.plan(z, draw_sign, x + side * 0.2, z, rng.uniform(2.2, 3.0))
        for z in rng.uniform(7, 25, rng.binomial(1, 0.3)):
            scene.plan(z, draw_traffic_light, x, z)
        for z in rng.uniform(5, 30, rng.integers(0, 3)):
            scene.plan(z, draw_furniture, x + side * rng.uniform(0, 0.8), z)
        if rng.random() < 0.3:
            iron, start = scene.pick(GREYS, 30), rng.uniform(5, 20)
            for z in np.arange(start, start + rng.uniform(6, 20), 2.0):
                scene.plan(z, draw_railing, kerb + side * 0.2, z, iron)
        if rng.random() < 0.45:
            for z in np.arange(rng.uniform(8, 14), 50, rng.uniform(8, 16)):
                radius = rng.uniform(1.2, 2.3)
                box = (x - radius, x + radius, z - radius, z + radius, 2.5)
                scene.plan(z, draw_tree, x + side * 0.5, z, radius, rng.uniform(1.8, 2.6), box=box)


def plan_vehicle(scene: Scene, x: float, z: float, away: bool) -> float:
    """A car, more seldom a van, at times a bus; returns the z of its far end."""
    size = VEHICLES[scene.rng.choice(3, p=[0.8, 0.14, 0.06])]
    far = z + size[2]
    scene.plan(z, draw_car, x, z, size, away, box=(x - size[0] / 2, x + size[0] / 2, z, far, size[1]))
    return far


def plan_traffic(scene: Scene) -> None:
    """Parked rows, vehicles in both lanes, bicyclists where there is room."""
    rng = scene.rng
    left, right = scene.kerbs[-1], scene.kerbs[1]
    for x, away, room in ((left + 1, True, left < -3), (right - 1, False, right > 5)):
        z = rng.uniform(5, 14) if room and rng.random() < 0.6 else math.inf
        while z < 45:
            z = plan_vehicle(scene, x + rng.normal(0, 0.1), z, away) + rng.uniform(1.2, 11)
    if rng.random() < 0.5:
        plan_vehicle(scene, rng.normal(0, 0.25), rng.uniform(7, 30), True)
    for z in np.arange(rng.uniform(7, 35), 60, rng.uniform(12, 40)):
        plan_vehicle(scene, right - 2.9, z, False)
    for z in rng.uniform(7.5, 24, rng.integers(1, 3) * rng.binomial(1, 0.48)):
        x, turn = rng.uniform(left + 0.5, right - 0.5), rng.choice([0.15, 0.5, 1.0]) * rng.choice([-1, 1])
        if scene.is_free(x, z):
            scene.plan(z, draw_bicyclist, x, z, turn, box=(x - 0.2, x + 0.2, z - 0.5, z + 0.5, 1.5))


def plan_pedestrians(scene: Scene) -> None:
    """People on the pavements, alone or in pairs; now and then one crosses the road."""
    rng = scene.rng
    for z in rng.uniform(6, 30, rng.integers(0, 8)):
        side = rng.choice([-1, 1])
        x = scene.kerbs[side] + (scene.fronts[side] - scene.kerbs[side]) * rng.uniform(0, 1)
        if rng.random() < 0.15:
            x = rng.uniform(scene.kerbs[-1], scene.kerbs[1])
        company = (x, x + 0.6)[: rng.integers(1, 3)]
        for person in company if scene.is_free(x, z) else ():
            box = (person - 0.2, person + 0.2, z, z + 0.3, 1.7)
            scene.plan(z, draw_pedestrian, person, z, rng.uniform(1.45, 1.9), box=box)


def draw_bonnet(scene: Scene) -> None:
    """The own car's bonnet at the bottom edge; void."""
    height, width = scene.labels.shape
    centre = (round(width * scene.rng.uniform(0.4, 0.6)), height)
    axes = (round(width * scene.rng.uniform(0.4, 0.7)), round(height * scene.rng.uniform(0.05, 0.12)))
    cv2.ellipse(scene.image, centre, axes, 0, 0, 360, scene.pick(PAINTS).tolist(), cv2.FILLED)
    cv2.ellipse(scene.labels, centre, axes, 0, 0, 360, VOID, cv2.FILLED)


def develop(scene: Scene) -> np.ndarray:
    """Surface grain, light over the picture, white balance, lens blur and sensor noise; uint8 (H, W, 3)."""
    rng = scene.rng
    height, width = scene.labels.shape
    strength = GRAIN * rng.uniform(0.6, 1.4, len(GRAIN)).astype(np.float32)
    speckle = rng.random((height, width), dtype=np.float32) * 3 - 1.5
    light = 1 + strength[np.minimum(scene.labels, len(GRAIN) - 1)] * (
        speckle + 0.7 * scene.noise(height // 3, width // 3)
    )
    slope = rng.normal(0, 0.1)
    light *= rng.uniform(0.7, 1.15) * np.linspace(1 - slope, 1 + slope, width, dtype=np.float32)
    warmth = np.float32(rng.normal(0, 0.05))
    picture = cv2.merge([light * (1 + warmth), light, light * (1 - warmth)]) * scene.image
    picture = cv2.GaussianBlur(picture, (3, 3), rng.uniform(0.3, 0.8))
    loudness = np.float32(rng.uniform(5, 16))  # grey levels from the darkest to the brightest noise
    picture += (rng.random(picture.shape, dtype=np.float32) - 0.5) * loudness
    return picture.clip(0, 255).astype(np.uint8)


def render_street(
    seed: int, split: str, index: int, height: int = 180, width: int = 240
) -> tuple[np.ndarray, np.ndarray]:
    """Render one street scene and its label map, a pure function of the arguments.

    Args:
        seed: number of the data set, at least 0.
        split: name of the split; any string, and another name gives other scenes.
        index: number of the scene within its split, at least 0.
        height: rows, at least 32.
        width: columns, at least 32.

    Returns:
        The image, uint8 RGB ``(H, W, 3)``, and the labels, uint8 ``(H, W)``: ids 0 to 10, or 255 for void.

    Raises:
        ValueError: a size is under 32 pixels, or ``seed`` or ``index`` is negative.
    """
    if height < SMALLEST_SIDE or width < SMALLEST_SIDE:
        raise ValueError(f"height and width must be at least {SMALLEST_SIDE} pixels, got {height} x {width}")
    for name, number in (("seed", seed), ("index", index)):
        if number < 0:
            raise ValueError(f"{name} must be at least 0, got {number}")
    rng = np.random.default_rng(np.random.SeedSequence((seed, zlib.crc32(split.encode()), index)))
    scene = new_scene(rng, height, width)
    for plan in (plan_fronts, plan_kerbside, plan_traffic, plan_pedestrians):
        plan(scene)
    if rng.random() < 0.25:
        scene.plan(0, draw_bonnet)
    paint_sky(scene)
    paint_ground(scene)
    cast_shadows(scene)
    draw_backdrop(scene)
    for _, draw in sorted(scene.things, key=lambda thing: -thing[0]):
        draw()
    return develop(scene), scene.labels
