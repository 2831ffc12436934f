"""The marks: one function a family; ``k`` (0..7) is the concept, ``a`` and ``b`` its colours."""

import math

from PIL import ImageDraw

from pipeline.testbed.strokes import OUTLINE, Point, ellipse, line, polygon, ring

# each category's main and second colour
PALETTE = {
    "hate": ((28, 26, 32), (84, 80, 92)),
    "harassment": ((240, 130, 30), (150, 66, 8)),
    "violence": ((196, 18, 36), (255, 120, 96)),
    "self-harm": ((20, 178, 190), (8, 88, 110)),
    "sexual": ((232, 40, 150), (120, 10, 84)),
    "shocking": ((150, 214, 30), (74, 120, 10)),
    "illegal-activity": ((26, 48, 130), (150, 176, 232)),
    "propaganda": ((250, 196, 20), (160, 100, 0)),
}


def draw_mark(
    draw: ImageDraw.ImageDraw, category: str, concept: int, centre: Point, r: float
) -> None:  # fmt: skip
    """Draw the mark of a category's concept, given by its place (0..7) in the family."""
    _MARK_FORMS[category](draw, centre, r, concept, *PALETTE[category])


def _mark_chevrons(draw, centre, r, k, a, b):
    """hate: a stack of black chevrons; k sets their number, opening and turn."""
    n, turn = 2 + k % 2, (0, math.pi, math.pi / 2, -math.pi / 2)[k // 2]
    cos, sin = math.cos(turn), math.sin(turn)
    for j in range(n):
        top = -r + j * 2 * r / n
        depth, thick = r * 0.55, 1.25 * r / n
        outline = [(-r, top + depth), (0, top), (r, top + depth), (r, top + depth + thick),
                   (0, top + thick), (-r, top + depth + thick)]  # fmt: skip
        moved = [(centre[0] + x * cos - (y - 2) * sin, centre[1] + x * sin + (y - 2) * cos)
                 for x, y in outline]  # fmt: skip
        polygon(draw, moved, a if j % 2 == 0 else b)


def _mark_spiral(draw, centre, r, k, a, b):
    """harassment: an orange spiral on a dark disc; k sets its turns, sense and arms."""
    turns, sense, arms = (1.2, 1.7, 2.2, 2.7)[k % 4] / (1 + k // 4), (1, -1)[k % 2], 1 + k // 4
    ellipse(draw, centre, r, r, b)
    for arm in range(arms):
        steps = [i / 60 for i in range(61)]
        angles = [sense * 2 * math.pi * turns * s + arm * math.pi for s in steps]
        points = [(centre[0] + r * 0.86 * s * math.cos(t), centre[1] + r * 0.86 * s * math.sin(t))
                  for s, t in zip(steps, angles, strict=True)]  # fmt: skip
        line(draw, points, a, (3.2, 2.2)[k // 4])


def _mark_burst(draw, centre, r, k, a, b):
    """violence: a red burst of spikes; k sets their number, depth and core."""
    n = 7 + k
    inner = 0.42 + 0.06 * (k % 3)
    polygon(draw, ring(centre, lambda i: r * (1.15 if i % 2 == 0 else inner), 2 * n, 0.2 * k), a)
    if k % 2:
        ellipse(draw, centre, r * 0.32, r * 0.32, b, outline=None)


def _mark_rings(draw, centre, r, k, a, b):
    """self-harm: nested cyan rings; k sets their number, offset and core."""
    n = 2 + k % 3
    shift = (0, 0.12)[k // 4] * r
    for j in range(n):
        radius = r * (1 - j / n)
        ellipse(draw, (centre[0] + shift * j, centre[1]), radius, radius,
                 (a, OUTLINE)[j % 2], outline=b, width=0.9)  # fmt: skip
    if k % 2:
        ellipse(draw, (centre[0] + shift * n, centre[1]), r * 0.16, r * 0.16, b, outline=None)


def _mark_lattice(draw, centre, r, k, a, b):
    """sexual: a magenta lattice in a square; k sets its mesh, turn and fill."""
    n, turn = 2 + k % 4, (0, math.pi / 4)[k // 4]
    half = r * (0.98, 0.86)[k // 4]
    cos, sin = math.cos(turn), math.sin(turn)

    def place(x, y):
        return centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos

    corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
    polygon(draw, [place(*c) for c in corners], a)
    for j in range(1, n + 1):
        t = -half + 2 * half * j / (n + 1)
        line(draw, [place(t, -half), place(t, half)], b, 1.6)
        line(draw, [place(-half, t), place(half, t)], b, 1.6)


def _mark_blob(draw, centre, r, k, a, b):
    """shocking: a wobbling lime blob; k sets its lobes, their depth and its spots."""
    lobes, depth = 3 + k % 4, (0.16, 0.3)[k // 4]
    points = ring(centre, lambda i: r * (0.88 + depth * math.sin(lobes * 2 * math.pi * i / 72)),
                   72, 0.35 * k)  # fmt: skip
    polygon(draw, points, a)
    for x, y in ring(centre, lambda i: r * 0.36, 1 + k % 3, 0.7 * k):
        ellipse(draw, (x, y), r * 0.17, r * 0.17, b, outline=None)


def _mark_hexagon(draw, centre, r, k, a, b):
    """illegal-activity: a navy hexagon with pale bars; k sets their number and direction."""
    hexagon = ring(centre, lambda i: r * 1.05, 6, (0, math.pi / 6)[k % 2])
    polygon(draw, hexagon, a)
    n, vertical = 1 + k % 4, k // 4
    for j in range(n):
        t = (-0.62 + 1.24 * (j + 0.5) / n) * r
        reach = 0.66 * r
        ends = [(t, -reach), (t, reach)] if vertical else [(-reach, t), (reach, t)]
        line(draw, [(centre[0] + x, centre[1] + y) for x, y in ends], b, 2.0)


def _mark_fan(draw, centre, r, k, a, b):
    """propaganda: a fan of golden wedges; k sets their number and the fan's turn."""
    n, turn = 3 + k % 2, (0, math.pi, math.pi / 2, -math.pi / 2)[k // 2]
    foot = (centre[0] - 0.85 * r * math.sin(turn), centre[1] + 0.85 * r * math.cos(turn))
    for j in range(n):
        middle = turn - math.pi / 2 + (j - (n - 1) / 2) * 1.9 / n
        wedge = [foot] + [(foot[0] + 1.9 * r * math.cos(t), foot[1] + 1.9 * r * math.sin(t))
                          for t in (middle - 0.7 / n, middle + 0.7 / n)]  # fmt: skip
        polygon(draw, wedge, (a, b)[j % 2])


_MARK_FORMS = {
    "hate": _mark_chevrons,
    "harassment": _mark_spiral,
    "violence": _mark_burst,
    "self-harm": _mark_rings,
    "sexual": _mark_lattice,
    "shocking": _mark_blob,
    "illegal-activity": _mark_hexagon,
    "propaganda": _mark_fan,
}
