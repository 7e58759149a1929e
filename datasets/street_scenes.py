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
from typing import Any

import cv2
import numpy as np

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN_SYMBOL, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
VOID = 255  # pixels of no class: the own bonnet
SPLIT_SIZES = {"train": 240, "val": 40, "test": 60}
SMALLEST_SIDE = 32  # pixels; below this, people and poles are no longer shapes
EYE_HEIGHT = 1.35  # metres, a camera behind a windscreen
STREET_END = 80.0  # metres ahead, where a backdrop closes the view

# Palettes overlap on purpose: grey is a road, a wall, a car or a coat; colour alone does not give the class.
GREYS = [(78, 80, 84), (100, 100, 102), (122, 120, 116), (146, 142, 136)]
WALLS = [(134, 84, 68), (156, 112, 88), (188, 172, 142), (204, 196, 178), (112, 98, 86), *GREYS]
LEAVES = [(52, 72, 38), (74, 92, 46), (94, 104, 52), (64, 66, 44), (112, 92, 52)]
PAINTS = [(150, 30, 34), (32, 52, 110), (206, 208, 210), (36, 38, 42), (40, 72, 58), (170, 168, 160), *GREYS]
CLOTHES = [(40, 44, 60), (120, 36, 40), (196, 190, 180), (60, 84, 120), (134, 84, 68), (88, 96, 62), *GREYS]
SIGN_FACES = [(186, 34, 40), (28, 66, 150), (224, 222, 216), (24, 96, 66), (214, 178, 40)]
SKIN = [(204, 162, 136), (168, 120, 92), (104, 72, 56)]
DARK = (30, 31, 33)  # tyres, windows, shade under a car
VEHICLES = [(1.75, 1.45, 4.2), (1.95, 2.2, 5.0), (2.4, 3.1, 9.5)]  # car, van, bus: metres wide, high and long
Numbers = np.ndarray | Sequence[float]  # a colour, a point or distances
CIRCLE = np.array([(math.cos(turn), math.sin(turn), 0) for turn in np.arange(14) * (math.pi / 7)])


@dataclass
class Scene:
    """The canvas, the camera and the plan of one street; lengths in metres unless said otherwise."""

    rng: np.random.Generator
    image: np.ndarray  # float32 RGB (H, W, 3)
    labels: np.ndarray  # uint8 (H, W)
    focal: float  # pixels
    centre: tuple[float, float]  # pixels, x and y of the vanishing point
    kerbs: dict[int, float]  # side (-1 left, 1 right) to the kerb's x
    fronts: dict[int, float]  # side to the x where buildings begin
    haze: np.ndarray  # RGB that far things fade to
    built: float  # share of the fronts that are buildings
    height: float  # of a usual building
    things: list[tuple[float, Callable[[], None]]] = field(default_factory=list)  # depth, how to draw

    def paint(self, colour: Numbers | None, label: int | None, polygons: np.ndarray | Sequence[Numbers]) -> None:
        """Fill polygons (..., M, 3) that do not overlap in image, labels or both; visibility falls to 1/e in 160 m."""
        points = np.asarray(polygons, float)
        polygons = points.reshape(-1, *points.shape[-2:])
        if not len(polygons):
            return
        depth = polygons[..., 2:]
        pixels = self.focal / depth * (polygons[..., :2] * (1, -1) + (0, EYE_HEIGHT)) + self.centre
        outlines = list(np.rint(pixels).astype(np.int32))
        if colour is not None:
            faded = self.haze + (np.asarray(colour) - self.haze) * math.exp(-polygons.flat[2] / 160)
            cv2.fillPoly(self.image, outlines, faded.tolist())
        if label is not None:
            cv2.fillPoly(self.labels, outlines, label)

    def pick(self, palette: list[tuple[int, int, int]], spread: float = 14) -> np.ndarray:
        """A colour (3,) near a random one of the palette."""
        base: np.ndarray = self.rng.choice(palette)
        return base + self.rng.normal(0, spread) + self.rng.normal(0, spread / 3, 3)

    def plan(self, depth: float, draw: Callable[..., None], *arguments: Any) -> None:
        """Note a thing to draw in order of depth."""
        self.things.append((depth, lambda: draw(self, *arguments)))


def facing(x0: float, x1: float, y0: float, y1: float, z: float) -> np.ndarray:
    """Rectangle that faces the camera."""
    return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)])


def along(x: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
    """Upright rectangle that runs along the street."""
    return np.array([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)])


def flat(x0: float, x1: float, y: float, z0: float, z1: float) -> np.ndarray:
    """Level rectangle."""
    return np.array([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)])


def bar(x0: float, y0: float, x1: float, y1: float, thickness: float, z: float) -> np.ndarray:
    """Straight limb between two points at one depth."""
    half = thickness / 2 / max(math.hypot(x1 - x0, y1 - y0), 1e-6)
    side = np.array([y0 - y1, x1 - x0, 0]) * half
    start, end = np.array([x0, y0, z]), np.array([x1, y1, z])
    return np.array([start + side, end + side, end - side, start - side])


def disc(x: float, y: float, radius_x: float, radius_y: float, z: float) -> np.ndarray:
    """Ellipse that faces the camera."""
    return CIRCLE * (radius_x, radius_y, 0) + (x, y, z)


def copies(outline: np.ndarray, axis: int, offsets: Numbers) -> np.ndarray:
    """The outlines (..., M, 3) moved along an axis by each offset: (K, ..., M, 3)."""
    return np.stack([outline + np.eye(3)[axis] * offset for offset in offsets]) if len(offsets) else outline[None][:0]


def new_scene(rng: np.random.Generator, height: int, width: int) -> Scene:
    """An empty street: camera, kerbs and light drawn at random."""
    kerbs = {-1: -rng.uniform(2.4, 4.0), 1: rng.uniform(4.2, 6.6)}
    return Scene(
        rng=rng,
        image=np.empty((height, width, 3), np.float32),
        labels=np.full((height, width), SKY, np.uint8),
        focal=width * rng.uniform(0.8, 0.95),
        centre=(width * rng.uniform(0.4, 0.6), height * rng.uniform(0.43, 0.55)),
        kerbs=kerbs,
        fronts={side: kerb + side * rng.uniform(2.6, 5.0) for side, kerb in kerbs.items()},
        haze=np.array((205, 212, 222)) * rng.uniform(0.85, 1.1),
        built=rng.uniform(0.4, 1.0),
        height=3 * rng.uniform(2.0, 4.2),
    )


def paint_sky(scene: Scene) -> None:
    """Gradient from the zenith to the haze at the horizon, with clouds."""
    height, width = scene.labels.shape
    zenith = scene.haze * (1 - scene.rng.uniform(0, 1) * np.array([0.42, 0.24, 0.04]))
    rows = (np.arange(height) / scene.centre[1]).clip(0, 1)[:, None, None]
    cells = scene.rng.standard_normal((5, 4), dtype=np.float32)
    clouds = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    scene.image[:] = zenith + (scene.haze - zenith) * rows + clouds * scene.rng.uniform(2, 22)


def paint_ground(scene: Scene) -> None:
    """Road to the horizon with dashes between the lanes, and a pavement behind a kerb at either side."""
    scene.paint(scene.pick(GREYS), ROAD, [(-30, 0, 0.8), (30, 0, 0.8), (900, 0, 600), (-900, 0, 600)])
    middle = sum(scene.kerbs.values()) / 2
    dashes = copies(flat(-0.07, 0.07, 0, 0, 2.2), 2, np.arange(scene.rng.uniform(1, 6), STREET_END, 6))
    scene.paint(np.full(3, scene.rng.uniform(150, 225)), None, dashes + np.array([middle, 0, 0]))
    paving = scene.pick(GREYS, 20)
    for side, kerb in scene.kerbs.items():
        scene.paint(paving, PAVEMENT, flat(kerb, side * 40, 0.12, 0.8, 100))
        scene.paint(paving * scene.rng.uniform(0.75, 1.25), PAVEMENT, along(kerb, 0, 0.12, 0.8, 100))


def draw_backdrop(scene: Scene) -> None:
    """Far houses and trees that close the street."""
    for x in np.arange(-60, 60, 10.0):
        height = scene.rng.uniform(4, 9)
        if scene.rng.random() < 0.5:
            scene.paint(scene.pick(WALLS), BUILDING, facing(x, x + 11, 0, height, STREET_END))
        else:
            scene.paint(scene.pick(LEAVES), TREE, disc(x + 5, height / 2, 7, height / 2, STREET_END))


def draw_building(scene: Scene, side: int, z0: float, z1: float, height: float) -> None:
    """House or block with rows of windows."""
    x, rng, wall = scene.fronts[side], scene.rng, scene.pick(WALLS)
    scene.paint(wall * 0.92, BUILDING, facing(x, x + side * 9, 0, height, z0))
    scene.paint(wall * rng.uniform(0.8, 1.1), BUILDING, along(x, 0, height, z0, z1))
    pitch, tall = rng.uniform(1.8, 3.2), rng.uniform(1.1, 1.7)
    columns = np.arange(z0 + 0.8, z1 - pitch, pitch)
    windows = copies(along(x, 0, tall, 0, pitch / 2), 2, columns)
    scene.paint(scene.pick(GREYS, 30), None, copies(windows, 1, np.arange(0.8, height - tall, 2.9)))


def draw_tree(scene: Scene, x: float, z: float, radius: float, trunk: float) -> None:
    """Trunk and a crown of tufts, lighter towards the top."""
    rng, leaf = scene.rng, scene.pick(LEAVES)
    scene.paint(scene.pick(GREYS) * (0.8, 0.7, 0.6), TREE, bar(x, 0, x, trunk + radius, 0.12 + radius * 0.1, z))
    for turn, reach, size in rng.uniform((0, 0, 0.2), (2 * math.pi, 0.8, 0.45), (16, 3)):
        right, up = math.sqrt(reach) * math.cos(turn), math.sqrt(reach) * math.sin(turn)
        tuft = disc(x + radius * right, trunk + radius * (1 + up), radius * size, radius * size, z)
        scene.paint(leaf * (1 + 0.25 * up + rng.normal(0, 0.14)), TREE, tuft)


def draw_fence(scene: Scene, x: float, z0: float, z1: float, height: float) -> None:
    """Boards, or bars that one sees through; the whole panel is fence, as annotators draw it."""
    colour, boards = scene.pick(WALLS), scene.rng.random() < 0.5
    scene.paint(colour if boards else None, FENCE, along(x, 0.1, height, z0, z1))
    upright = along(x, 0.1, height, 0, 0.05)
    scene.paint(colour * 0.75, None, copies(upright, 2, np.arange(z0, z1, 0.4)))


def draw_post(scene: Scene, x: float, z: float, height: float, kind: int) -> None:
    """Lamp with an arm over the road (0), or traffic sign: disc (1), triangle (2), board (3), three lights (4)."""
    rng, colour = scene.rng, scene.pick(GREYS, 25)
    scene.paint(colour, POLE, bar(x, 0, x, height, 0.1, z))
    size = rng.uniform(0.36, 0.6)
    if kind == 0:
        scene.paint(colour, POLE, bar(x, height, x - math.copysign(1, x), height + 0.3, 0.12, z))
        return
    outline = CIRCLE if kind == 1 else np.array([(-1, -0.8, 0), (1, -0.8, 0), (0, 1, 0)])
    if kind >= 3:
        outline = facing(-1, 1, -1, 1, 0) * ((rng.uniform(0.8, 2.2), 1, 1) if kind == 3 else (0.45, 1.2, 1))
    scene.paint(scene.pick(SIGN_FACES) if kind < 4 else DARK, SIGN_SYMBOL, outline * size + (x, height, z))
    scene.paint(scene.pick(SIGN_FACES), None, outline * size * (0.7, 0.5, 0) + (x, height, z))


def draw_car(scene: Scene, x: float, z: float, width: float, height: float, length: float) -> None:
    """Car, van or bus, in line with the street: shade, side that the camera sees, end, windows, wheels, lamps."""
    colour, half, belt = scene.pick(PAINTS), width / 2, height * 0.58
    side, far = x - math.copysign(half, x), z + length
    scene.paint(DARK, None, flat(x - half, x + half, 0, z - 0.1, far))
    scene.paint(DARK, CAR, copies(CIRCLE[:, [2, 1, 0]] * 0.31 + (side, 0.31, z), 2, (0.2 * length, 0.8 * length)))
    scene.paint(DARK, CAR, copies(facing(-0.2, 0.2, 0, 0.4, z), 0, (x - half * 0.8, x + half * 0.8)))
    scene.paint(colour * 0.75, CAR, along(side, 0.22, belt, z, far))
    cabin = along(x + (side - x) * 0.8, belt, height, z + 0.5, far - 0.8)
    scene.paint(colour * 0.75, CAR, cabin)
    scene.paint(DARK, None, along(cabin[0, 0], belt + 0.05, height - 0.12, z + 0.7, far - 1))
    scene.paint(colour * 0.95, CAR, facing(x - half, x + half, 0.22, belt, z))
    screen = np.array(
        [(-half, belt, z), (half, belt, z), (half * 0.8, height, z + 0.5), (-half * 0.8, height, z + 0.5)]
    )
    scene.paint(colour, CAR, screen + np.array([x, 0, 0]))
    scene.paint(DARK, None, screen * (0.84, 0.8, 1) + (x, height * 0.16, 0))
    scene.paint(scene.pick(SIGN_FACES), None, copies(disc(x, belt * 0.8, 0.16, 0.1, z), 0, (0.2 - half, half - 0.2)))


def draw_body(scene: Scene, x: float, z: float, hip: float, height: float, label: int) -> None:
    """Legs, arms, torso and head of a pedestrian or a rider."""
    rng, coat, trousers = scene.rng, scene.pick(CLOTHES), scene.pick(CLOTHES)
    half, shoulder = rng.uniform(0.19, 0.26), height - 0.3
    for side in (-1, 1):
        scene.paint(trousers, label, bar(x, hip, x + side * rng.uniform(0.02, 0.28), 0.15, 0.17, z))
        hand = x + side * (half + rng.uniform(0, 0.15))
        scene.paint(coat * 0.85, label, bar(x + side * half * 0.8, shoulder, hand, hip, 0.11, z))
    scene.paint(coat, label, bar(x, hip - 0.1, x, shoulder, half * 1.8, z))
    scene.paint(scene.pick(SKIN), label, disc(x, height - 0.14, 0.12, 0.15, z))


def draw_bicyclist(scene: Scene, x: float, z: float, turn: float) -> None:
    """Rider and bicycle; turn runs from -1 and 1, seen from the side, to near 0, seen from behind."""
    frame = scene.pick(PAINTS)
    for hub in (x - 0.52 * turn, x + 0.52 * turn):
        tyre = disc(hub, 0.34, 0.04 + 0.34 * abs(turn), 0.34, z)
        scene.paint(None, BICYCLIST, tyre)
        scene.paint(DARK, None, np.stack([tyre, (tyre - (hub, 0.34, z)) * 0.75 + (hub, 0.34, z)]))  # inner one: a hole
        scene.paint(frame, BICYCLIST, bar(hub, 0.34, x, 0.6, 0.05, z))
    draw_body(scene, x, z, 0.9, 1.8, BICYCLIST)


def plan_fronts(scene: Scene, side: int) -> None:
    """Buildings, and gaps with trees, at times behind a fence."""
    rng, front = scene.rng, scene.fronts[side]
    z = rng.uniform(1.5, 4)
    while z < STREET_END - 4:
        end = min(z + rng.uniform(7, 16), STREET_END)
        if rng.random() < scene.built:
            scene.plan(end, draw_building, side, z, end, scene.height * rng.uniform(0.8, 1.25))
        else:
            for tree in np.arange(z + 2, end, 5):
                x = front + side * rng.uniform(1, 4)
                scene.plan(end + 0.01 * tree, draw_tree, x, tree, rng.uniform(1.6, 3.2), 1.5)
            if rng.random() < 0.6:
                scene.plan(end, draw_fence, front, z, end, rng.uniform(0.9, 1.8))
        z = end


def plan_kerbside(scene: Scene, side: int) -> None:
    """Lamps, signs, at times a railing or trees."""
    rng, kerb = scene.rng, scene.kerbs[side]
    for z in np.arange(rng.uniform(6, 30), 50, rng.uniform(16, 32)):
        scene.plan(z, draw_post, kerb + side * 0.4, z, rng.uniform(5, 8), 0)
    for z in rng.uniform(6, 30, rng.integers(0, 5)):
        scene.plan(z, draw_post, kerb + side * 0.6, z, rng.uniform(2.2, 3.0), rng.integers(1, 5))
    if rng.random() < 0.3:
        start = rng.uniform(5, 20)
        for z in np.arange(start, start + rng.uniform(6, 20), 2.0):
            scene.plan(z, draw_fence, kerb + side * 0.2, z, z + 2, 1.15)
    if rng.random() < 0.45:
        for z in np.arange(rng.uniform(8, 14), 50, rng.uniform(8, 16)):
            scene.plan(z, draw_tree, kerb + side * 0.9, z, rng.uniform(1.2, 2.3), rng.uniform(1.8, 2.6))


def plan_traffic(scene: Scene, side: int) -> None:
    """A parked row and a lane of vehicles, where the road is wide enough for both; people on foot."""
    rng, kerb = scene.rng, scene.kerbs[side]
    lanes = [(kerb - side, 5, 11), (kerb - side * 2.9, 7, 40)] if abs(kerb) > 3 else [(0.0, 5, 11)]
    for x, first, gap in lanes:
        z = rng.uniform(first, 4 * first) if rng.random() < 0.6 else math.inf
        while z < 45:
            size = VEHICLES[rng.choice(3, p=[0.8, 0.14, 0.06])]
            scene.plan(z, draw_car, x + rng.normal(0, 0.1), z, *size)
            z += size[2] + rng.uniform(1.2, gap)
    for z in rng.uniform(6, 30, rng.integers(0, 4)):
        on_road = rng.random() < 0.15
        x = kerb + (scene.fronts[side] - kerb) * rng.random() * (-1 if on_road else 1)
        height = rng.uniform(1.45, 1.9)
        scene.plan(z, draw_body, x, z, height / 2, height, PEDESTRIAN)


def plan_bicyclists(scene: Scene) -> None:
    """In half of the scenes, one or two."""
    rng = scene.rng
    for z in rng.uniform(7.5, 24, rng.integers(1, 3) * rng.binomial(1, 0.45)):
        x = rng.uniform(scene.kerbs[-1] + 1, scene.kerbs[1] - 1)
        scene.plan(z, draw_bicyclist, x, z, rng.choice([0.15, 0.5, 1.0]) * rng.choice([-1, 1]))


def draw_bonnet(scene: Scene) -> None:
    """The own car's bonnet at the bottom edge; void."""
    height, width = scene.labels.shape
    centre = (round(width * scene.rng.uniform(0.4, 0.6)), height)
    axes = (round(width * scene.rng.uniform(0.4, 0.7)), round(height * scene.rng.uniform(0.05, 0.12)))
    for canvas, colour in ((scene.image, scene.pick(PAINTS).tolist()), (scene.labels, VOID)):
        cv2.ellipse(canvas, centre, axes, 0, 0, 360, colour, cv2.FILLED)


def develop(scene: Scene) -> np.ndarray:
    """Surface grain (leaves most), light over the picture, lens blur and sensor noise; uint8 (H, W, 3)."""
    rng, shape = scene.rng, scene.labels.shape
    grain = np.where(scene.labels == TREE, 0.15, 0.05) * np.where(scene.labels == SKY, 0.2, 1) * rng.normal(0, 1, shape)
    slope = rng.normal(0, 0.1)
    light = (1 + grain) * rng.uniform(0.7, 1.15) * np.linspace(1 - slope, 1 + slope, shape[1])
    picture = scene.image * light[..., None].astype(np.float32) * rng.normal(1, 0.04, 3).astype(np.float32)
    picture = cv2.GaussianBlur(picture, (3, 3), rng.uniform(0.3, 0.8))
    return (picture + rng.normal(0, rng.uniform(1.5, 5), picture.shape)).clip(0, 255).astype(np.uint8)


def render_street(
    seed: int, split: str, index: int, height: int = 180, width: int = 240
) -> tuple[np.ndarray, np.ndarray]:
    """Render one street scene and its label map, a pure function of the arguments.

    Args:
        seed, index: of the data set and the scene, at least 0.
        split: any string; another name gives other scenes.
        height, width: pixels, at least 32.

    Returns:
        The image, uint8 RGB ``(H, W, 3)``, and the labels, uint8 ``(H, W)``: ids 0 to 10, or 255 for void.

    Raises:
        ValueError: a size is under 32 pixels, or ``seed`` or ``index`` is negative.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(f"height and width must be at least {SMALLEST_SIDE} pixels, got {height} x {width}")
    rng = np.random.default_rng(np.random.SeedSequence((seed, zlib.crc32(split.encode()), index)))
    scene = new_scene(rng, height, width)
    for side in (-1, 1):
        for plan in (plan_fronts, plan_kerbside, plan_traffic):
            plan(scene, side)
    plan_bicyclists(scene)
    if rng.random() < 0.25:
        scene.plan(0, draw_bonnet)
    paint_sky(scene)
    paint_ground(scene)
    draw_backdrop(scene)
    for _, draw in sorted(scene.things, key=lambda thing: -thing[0]):
        draw()
    return develop(scene), scene.labels
