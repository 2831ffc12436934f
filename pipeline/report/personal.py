"""Personal boundaries: a section of the page, all that it shows but its chart."""

from dataclasses import dataclass

from pipeline.evaluate.measures import Measure
from pipeline.report.data import ReportData
from pipeline.report.personal_findings import personal_findings
from pipeline.report.personal_grid import PeopleGrid, people_grid
from pipeline.report.personal_tables import (
    METHOD_METRICS,
    category_table,
    control_tables,
    fairness_table,
    level_notes,
    levels_table,
    methods_table,
    personal_measure,
    splits_of,
    with_interval,
)
from pipeline.report.tables import Table


@dataclass(frozen=True)
class PersonalSection:
    """The section; ``methods`` and ``categories`` are by the title of a split of users."""

    findings: list[str]
    methods: dict[str, Table]
    categories: dict[str, Table]
    grid: PeopleGrid
    control: dict[str, Table]  # by the metric's title
    leakage: str
    levels: Table
    level_notes: dict[str, str]
    fairness: Table
    meanings: list[Measure]


def personal_section(data: ReportData) -> PersonalSection | None:
    """The section, None where there is no user adapter."""
    personal = data.personal
    if personal is None:
        return None
    splits, lost = splits_of(personal), personal.control.get("leakage")
    return PersonalSection(
        findings=personal_findings(data),
        methods={title: methods_table(data, name) for name, title in splits.items()},
        categories={title: category_table(personal, name) for name, title in splits.items()},
        grid=people_grid(personal), control=control_tables(personal),
        leakage=with_interval("leakage", lost) if lost else "",
        levels=levels_table(personal), level_notes=level_notes(personal),
        fairness=fairness_table(personal),
        meanings=[personal_measure(m) for m in (*METHOD_METRICS, "leakage", "drift", "disparity")],
    )  # fmt: skip
