"""The strokes that the testbed's pictures are made of, on a supersampled canvas.

Coordinates are in pixels of the finished 64x64 image, y downwards; ``r`` is a radius and ``width``
a line's width in the same unit.
"""

import math
from collections.abc import Callable

from PIL import ImageDraw

SCALE = 4  # supersampling of the canvas
OUTLINE = (250, 248, 240)

Point = tuple[float, float]


def polygon(draw: ImageDraw.ImageDraw, points: list[Point], fill, outline=OUTLINE, width=1.0):
    """A filled polygon with an outline, None for none."""
    points = [(x * SCALE, y * SCALE) for x, y in points]
    draw.polygon(points, fill=fill)
    if outline is not None:
        draw.line([*points, points[0], points[1]], fill=outline, width=round(width * SCALE),
                  joint="curve")  # fmt: skip


def ellipse(draw, centre: Point, rx: float, ry: float, fill, outline=OUTLINE, width=1.0):
    """A filled ellipse of radii rx and ry with an outline, None for none."""
    box = [(centre[0] - rx) * SCALE, (centre[1] - ry) * SCALE,
           (centre[0] + rx) * SCALE, (centre[1] + ry) * SCALE]  # fmt: skip
    draw.ellipse(box, fill=fill, outline=outline, width=round(width * SCALE) if outline else 0)


def line(draw, points: list[Point], fill, width: float):
    """A line through the points."""
    draw.line([(x * SCALE, y * SCALE) for x, y in points], fill=fill,
              width=round(width * SCALE), joint="curve")  # fmt: skip


def ring(centre: Point, radii: Callable[[int], float], n: int, turn: float = 0) -> list[Point]:
    """n points around a centre, the i-th at distance radii(i); angle 0 points up."""
    angles = [turn + 2 * math.pi * i / n - math.pi / 2 for i in range(n)]
    return [(centre[0] + radii(i) * math.cos(a), centre[1] + radii(i) * math.sin(a))
            for i, a in enumerate(angles)]  # fmt: skip
