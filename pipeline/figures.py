"""Figures that are drawn rather than plotted by DVC, as SVG files that are the same every time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.storage import atomic_path


def draw_expert_map(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Which expert lives where: layers by experts, shaded by the share of the layer's rows won.

    ``rows`` are those of ``merging.report.rows_by_layer``.
    """
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    experts = list(dict.fromkeys(row["expert"] for row in rows))
    shares = {(row["layer"], row["expert"]): row["rows_won"] for row in rows}
    table = [[shares[layer, expert] for expert in experts] for layer in layers]
    with _svg(path, (3.5 + 0.55 * len(experts), 1.2 + 0.16 * len(layers))) as (figure, axes):
        image = axes.imshow(table, cmap="Blues", vmin=0, aspect="auto")
        axes.set_xticks(range(len(experts)), experts, rotation=40, ha="right")
        axes.set_yticks(range(len(layers)), [_short(layer) for layer in layers])
        figure.colorbar(image, label="share of output rows won", fraction=0.04)


def draw_fronts(
    path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str
) -> None:
    """One line per model over its strength dial, from the base model on; ``x`` and ``y`` are names.

    Down and to the right is better: fewer inappropriate images, and more of what is benign.
    """
    with _svg(path, (6.4, 4.4)) as (_, axes):
        for k, (name, points) in enumerate(curves.items()):
            axes.plot(*zip(*points, strict=True), "-o", markersize=3, linewidth=1, label=name,
                      color=f"C{k}")  # fmt: skip
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)


@contextmanager
def _svg(path: Path, size: tuple[float, float]) -> Iterator[tuple]:
    """A matplotlib figure of ``size`` inches and its axes, saved to ``path`` at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # text as text: small, searchable, and no outlines of a font that differs between machines
    settings = {"svg.hashsalt": "pipeline", "svg.fonttype": "none", "font.size": 8}
    with matplotlib.rc_context(settings):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        yield figure, axes
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)


def _short(layer: str) -> str:
    """A layer's name without the parts that all of them have."""
    for part in ("attentions.", "transformer_blocks.", "_blocks", "_block"):
        layer = layer.replace(part, "")
    return layer
