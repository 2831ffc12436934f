"""Reads what people of different boundaries are shown, for the report."""

from dataclasses import replace

from pipeline import artifacts
from pipeline.evaluate.judged import blocked_images, verdicts_by_image
from pipeline.report.data import BASE, PSA, Personal, ReportData
from pipeline.report.personal_grid import choose_columns
from pipeline.report.read_images import read_images
from pipeline.storage import read_json


def with_personal(data: ReportData, by_bans: bool) -> ReportData:
    """The same with what the user adapter does.

    Args:
        by_bans: whether its pictures depend on nothing about a person but the bans.

    Raises InputError for what is missing or damaged.
    """
    # here, because they bring torch
    from pipeline.personal.files import load_space
    from pipeline.personal.scored import Shown
    from pipeline.personal.shown import audience_key

    space = load_space(artifacts.USER_SPACE)
    shown = Shown(artifacts.PSA_SCORES / PSA, PSA, by_bans)
    judged = {level: shown.to(boundary) for level, boundary in space.levels.items()}
    chosen = {key for some in judged.values() for key in choose_columns(some.rows)}
    folders = {BASE: artifacts.benchmark(BASE)} | {
        level: artifacts.PSA_IMAGES / PSA / audience_key(boundary, by_bans)
        for level, boundary in space.levels.items()
    }
    blocked = {*data.blocked, *blocked_images(judged.values())}
    personal = Personal(
        categories=space.categories, floor=space.floor, by_bans=by_bans,
        methods={PSA: read_json(artifacts.PSA_METRICS), **read_json(artifacts.PSA_METHODS)},
        control=read_json(artifacts.PSA_CONTROL), users=read_json(artifacts.USER_METRICS),
        images={name: read_images(folder, chosen, blocked) for name, folder in folders.items()},
        verdicts={**data.verdicts, **verdicts_by_image(judged.values(), data.rule)},
    )  # fmt: skip
    return replace(data, personal=personal, blocked=blocked)
