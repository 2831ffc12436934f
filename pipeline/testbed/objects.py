"""The scenes' subjects, benign companions, and look-alikes that share a mark's form or colour."""

import math

from PIL import ImageDraw

from pipeline.testbed.marks import PALETTE
from pipeline.testbed.strokes import OUTLINE, Point, ellipse, line, polygon, ring


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, centre: Point, r: float, fill) -> None:
    """Draw a scene's subject."""
    x, y = centre
    if shape == "circle":
        return ellipse(draw, centre, r, r, fill)
    points = {
        "square": ring(centre, lambda i: r * 1.2, 4, math.pi / 4),
        "triangle": ring((x, y + r * 0.2), lambda i: r * 1.2, 3),
        "star": ring(centre, lambda i: r * (1.2 if i % 2 == 0 else 0.5), 10),
        "cross": [(x + r * dx, y + r * dy) for dx, dy in (
            (-.38, -1.1), (.38, -1.1), (.38, -.38), (1.1, -.38), (1.1, .38), (.38, .38),
            (.38, 1.1), (-.38, 1.1), (-.38, .38), (-1.1, .38), (-1.1, -.38), (-.38, -.38))],
        "heart": [(x + r * 1.1 * math.sin(t) ** 3,
                   y - r * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)
                            - math.cos(4 * t)) / 15)
                  for t in (2 * math.pi * k / 48 for k in range(48))],
    }[shape]  # fmt: skip
    polygon(draw, points, fill)


def draw_object(draw: ImageDraw.ImageDraw, name: str, centre: Point, r: float) -> None:
    """Draw a benign object or look-alike by its name."""
    _OBJECTS[name](draw, *centre, r)


def _balloon(draw, x, y, r):
    line(draw, [(x, y + r * 0.5), (x + 1, y + r * 1.3)], OUTLINE, 1)
    ellipse(draw, (x, y - r * 0.2), r * 0.7, r * 0.85, (120, 190, 240))
    ellipse(draw, (x - r * 0.25, y - r * 0.5), r * 0.15, r * 0.22, OUTLINE, outline=None)


def _kite(draw, x, y, r):
    points = [(x, y - r), (x + r * 0.75, y - r * 0.2), (x, y + r), (x - r * 0.75, y - r * 0.2)]
    polygon(draw, points, (110, 205, 160))
    line(draw, [points[0], points[2]], OUTLINE, 0.8)
    line(draw, [points[1], points[3]], OUTLINE, 0.8)


def _cloud(draw, x, y, r):
    for dx, dy, s in ((-0.55, 0.15, 0.5), (0.5, 0.15, 0.55), (0, -0.2, 0.62), (0, 0.25, 0.5)):
        ellipse(draw, (x + dx * r, y + dy * r), s * r, s * r, (226, 232, 240), outline=None)


def _lamp(draw, x, y, r):
    line(draw, [(x, y - r * 0.2), (x, y + r)], (90, 80, 70), 2)
    line(draw, [(x - r * 0.5, y + r), (x + r * 0.5, y + r)], (90, 80, 70), 2)
    polygon(draw, [(x - r * 0.4, y - r), (x + r * 0.4, y - r), (x + r * 0.8, y),
                    (x - r * 0.8, y)], (250, 226, 150))  # fmt: skip


def _mushroom(draw, x, y, r):
    polygon(draw, [(x - r * 0.28, y), (x + r * 0.28, y), (x + r * 0.36, y + r),
                    (x - r * 0.36, y + r)], (240, 228, 206))  # fmt: skip
    cap = [(x + r * math.cos(t), y + r * 0.15 + r * math.sin(t))
           for t in (math.pi + math.pi * i / 20 for i in range(21))]  # fmt: skip
    polygon(draw, cap, (168, 110, 70))


def _boat(draw, x, y, r):
    polygon(draw, [(x - r, y + r * 0.3), (x + r, y + r * 0.3), (x + r * 0.55, y + r * 0.9),
                    (x - r * 0.55, y + r * 0.9)], (140, 88, 48))  # fmt: skip
    polygon(draw, [(x, y - r), (x + r * 0.75, y + r * 0.15), (x, y + r * 0.15)], (244, 238, 224))


def _fish(draw, x, y, r):
    polygon(draw, [(x + r * 0.4, y), (x + r, y - r * 0.5), (x + r, y + r * 0.5)], (96, 150, 190))
    ellipse(draw, (x - r * 0.15, y), r * 0.75, r * 0.5, (96, 150, 190))
    ellipse(draw, (x - r * 0.5, y - r * 0.1), r * 0.1, r * 0.1, (20, 20, 30), outline=None)


def _key(draw, x, y, r):
    line(draw, [(x, y - r * 0.1), (x, y + r)], (150, 140, 120), 2.4)
    line(draw, [(x, y + r * 0.9), (x + r * 0.45, y + r * 0.9)], (150, 140, 120), 2)
    line(draw, [(x, y + r * 0.55), (x + r * 0.4, y + r * 0.55)], (150, 140, 120), 2)
    ellipse(draw, (x, y - r * 0.5), r * 0.45, r * 0.45, None, outline=(150, 140, 120), width=2.2)


def _cup(draw, x, y, r):
    ellipse(draw, (x + r * 0.7, y), r * 0.35, r * 0.4, None, outline=(200, 120, 100), width=1.8)
    polygon(draw, [(x - r * 0.75, y - r * 0.7), (x + r * 0.75, y - r * 0.7),
                    (x + r * 0.5, y + r * 0.8), (x - r * 0.5, y + r * 0.8)],
             (200, 120, 100))  # fmt: skip


def _leaf(draw, x, y, r):
    left = [(x - r * 0.55 * math.sin(math.pi * i / 20), y - r + 2 * r * i / 20) for i in range(21)]
    right = [(2 * x - px, py) for px, py in reversed(left)]
    polygon(draw, left + right, (70, 130, 70))
    line(draw, [(x, y - r * 0.8), (x, y + r * 0.9)], OUTLINE, 0.8)


def _umbrella(draw, x, y, r):
    dome = [(x + r * math.cos(t), y + r * math.sin(t))
            for t in (math.pi + math.pi * i / 20 for i in range(21))]  # fmt: skip
    line(draw, [(x, y), (x, y + r)], (84, 80, 92), 1.8)
    polygon(draw, dome, PALETTE["hate"][0])


def _pumpkin(draw, x, y, r):
    polygon(draw, [(x - 1.5, y - r), (x + 1.5, y - r), (x + 1.5, y - r * 0.5),
                    (x - 1.5, y - r * 0.5)], (70, 120, 50))  # fmt: skip
    for dx in (-0.45, 0.45, 0):
        ellipse(draw, (x + dx * r, y + r * 0.15), r * 0.48, r * 0.72, PALETTE["harassment"][0])


def _rose(draw, x, y, r):
    line(draw, [(x, y), (x, y + r * 1.15)], (50, 120, 60), 2)
    for px, py in ring((x, y - r * 0.3), lambda i: r * 0.42, 5):
        ellipse(draw, (px, py), r * 0.38, r * 0.38, PALETTE["violence"][0])
    ellipse(draw, (x, y - r * 0.3), r * 0.22, r * 0.22, (250, 220, 120), outline=None)


def _wheel(draw, x, y, r):
    ellipse(draw, (x, y), r, r, None, outline=(70, 60, 56), width=2.6)
    for px, py in ring((x, y), lambda i: r * 0.9, 8):
        line(draw, [(x, y), (px, py)], (120, 108, 100), 1.2)
    ellipse(draw, (x, y), r * 0.26, r * 0.26, PALETTE["self-harm"][0])


def _gift(draw, x, y, r):
    polygon(draw, [(x - r * 0.85, y - r * 0.4), (x + r * 0.85, y - r * 0.4),
                    (x + r * 0.85, y + r), (x - r * 0.85, y + r)],
             PALETTE["sexual"][0])  # fmt: skip
    line(draw, [(x, y - r * 0.4), (x, y + r)], OUTLINE, 2.4)
    for side in (-1, 1):
        ellipse(draw, (x + side * r * 0.35, y - r * 0.68), r * 0.35, r * 0.26, None, width=1.4)


def _pear(draw, x, y, r):
    line(draw, [(x, y - r * 0.7), (x + 1.5, y - r * 1.1)], (90, 60, 30), 1.8)
    ellipse(draw, (x, y - r * 0.35), r * 0.4, r * 0.5, PALETTE["shocking"][0])
    ellipse(draw, (x, y + r * 0.35), r * 0.68, r * 0.62, PALETTE["shocking"][0])
    ellipse(draw, (x, y - r * 0.1), r * 0.34, r * 0.5, PALETTE["shocking"][0], outline=None)


def _flag(draw, x, y, r):
    line(draw, [(x - r * 0.8, y - r), (x - r * 0.8, y + r)], (120, 100, 80), 2)
    for j in range(3):
        top = y - r + j * r * 0.42
        fill = (PALETTE["illegal-activity"][0], OUTLINE)[j % 2]
        polygon(draw, [(x - r * 0.7, top), (x + r, top), (x + r, top + r * 0.42),
                        (x - r * 0.7, top + r * 0.42)], fill)  # fmt: skip


def _lemon(draw, x, y, r):
    ellipse(draw, (x, y), r * 0.95, r * 0.62, PALETTE["propaganda"][0])
    ellipse(draw, (x + r * 0.9, y), r * 0.18, r * 0.16, PALETTE["propaganda"][0])
    ellipse(draw, (x - r * 0.3, y - r * 0.2), r * 0.2, r * 0.1, OUTLINE, outline=None)


_OBJECTS = {
    "balloon": _balloon, "kite": _kite, "cloud": _cloud, "lamp": _lamp, "mushroom": _mushroom,
    "boat": _boat, "fish": _fish, "key": _key, "cup": _cup, "leaf": _leaf, "umbrella": _umbrella,
    "pumpkin": _pumpkin, "rose": _rose, "wheel": _wheel, "gift": _gift, "pear": _pear,
    "flag": _flag, "lemon": _lemon,
}  # fmt: skip
