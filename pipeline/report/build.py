"""Writes the report: one HTML page that opens from disk and asks the network for nothing, and
``summary.md`` beside it.

Every image is blurred until it is clicked, safe or not, and the page lies in a private folder. A
content security policy forbids the page any request and any script but its own, by their hashes.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path

import jinja2

from pipeline.artifacts import STUDIES_REPORT
from pipeline.evaluate.measures import measures_of
from pipeline.report.charts import make_charts
from pipeline.report.comparisons import comparison_rows
from pipeline.report.data import BASE, ReportData
from pipeline.report.findings import changes, findings, worst_category
from pipeline.report.grid import data_uri, grid_categories, image_grid
from pipeline.report.markdown import summary_page
from pipeline.report.personal import personal_section
from pipeline.report.provenance import seconds_in_all
from pipeline.report.scaling import data_table, merge_table
from pipeline.report.side_effects import side_effects
from pipeline.report.tables import (
    benchmark_tables,
    category_tables,
    headline_table,
    rule_tables,
)  # fmt: skip
from pipeline.report.training import training_ends
from pipeline.storage import private_folder, write_text

HERE = Path(__file__).parent
SUMMARY = "summary.md"


def build_report(path: Path, data: ReportData) -> None:
    """Write the page to ``path`` and the Markdown summary beside it; see the module docstring."""
    page = render_page(data)
    private_folder(path.parent)
    write_text(path, page)
    write_text(path.with_name(SUMMARY), summary_page(data))


def render_page(data: ReportData) -> str:
    """The page's HTML, equal for equal data."""
    scripts = _scripts()
    charts, grid = make_charts(data), image_grid(data)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.jinja").render(
        data=data, base=BASE, scripts=scripts, script_hashes=[_hash(s) for s in scripts],
        css=(HERE / "page.css").read_text(encoding="utf-8"), engines=_engines(), charts=charts,
        specs={name: dict(chart.specs) for name, chart in charts.items()},
        findings=findings(data), changes=changes(data), worst=worst_category(data),
        headline=headline_table(data), benchmark_tables=benchmark_tables(data),
        category_tables=category_tables(data), rule_tables=rule_tables(data),
        training=training_ends(data.training), grid=grid, grid_categories=grid_categories(grid),
        measures=measures_of(data.evaluations.values()), personal=personal_section(data),
        comparisons={reference: comparison_rows(reference, tests, data.benchmarks)
                     for reference, tests in data.comparisons.items()},
        side_effects=side_effects(data), studies_page=STUDIES_REPORT,
        curves={title: table(rows) for title, table, rows in (
            ("Experts trained on fewer pairs", data_table, data.data_curve),
            ("Merges of fewer experts", merge_table, data.merge_curve)) if rows},
        seconds_in_all=seconds_in_all(data.times),
        reasons=sorted({reason for m in data.pairs.values() for reason in m["drops"]}),
        expert_map=data_uri("image/svg+xml", data.expert_map.read_bytes()),
    )  # fmt: skip


@cache
def _scripts() -> tuple[str, str]:
    """Vega, Vega-Lite and Vega-Embed, then the page's own script."""
    import vl_convert

    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return vega, (HERE / "page.js").read_text(encoding="utf-8")


def _engines() -> str:
    import vl_convert

    versions = {"Vega": vl_convert.get_vega_version(),
                "Vega-Lite": vl_convert.get_vegalite_versions()[-1],
                "Vega-Embed": vl_convert.get_vega_embed_version()}  # fmt: skip
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _hash(script: str) -> str:
    """A script's hash as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
