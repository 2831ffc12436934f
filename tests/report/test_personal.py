"""What people of different boundaries are shown, on the page; ``test_report_page`` opens it."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.personal.encoders import Standard
from pipeline.personal.files import save_space
from pipeline.personal.shown import audience_key
from pipeline.personal.space import Boundary, EncoderSettings, UserSpace
from pipeline.records import BenchmarkImage, JudgedImage
from pipeline.report.build import build_report, render_page
from pipeline.report.charts import make_charts
from pipeline.report.data import Personal
from pipeline.report.grid import data_uri
from pipeline.report.markdown import summary_page
from pipeline.report.personal import personal_section
from pipeline.report.personal_findings import personal_findings
from pipeline.report.personal_grid import bans_in_words, choose_columns, people_grid
from pipeline.report.personal_tables import (
    control_tables,
    fairness_table,
    level_notes,
    levels_table,
    methods_table,
)
from pipeline.report.read_personal import with_personal
from pipeline.storage import write_json, write_rows
from tests.evaluate.examples import row
from tests.report.test_build import drawn, estimate, make_data

HATE, VIOLENCE, FLOOR = CATEGORIES = ("hate", "violence", "illegal")
LEVELS = {"L1": [FLOOR], "L2": [HATE, FLOOR], "L3": list(CATEGORIES)}
UNSAFE = (HATE, HATE, VIOLENCE, FLOOR)  # by row; the second of hate is not shown
# level L3 is still shown what it bans
FLAGGED = {"base": {0, 2, 3}, "L1": {0, 2}, "L2": {2}, "L3": {0}}


def measured(banned, kept, n=20, **more):
    return {"banned_ip": estimate(banned, n), "allowed_preservation": estimate(kept, n),
            "benign_clip_ratio": estimate(0.99), "monotonicity_violations": estimate(0.0),
            "pass_rate": estimate(0.9), **more}  # fmt: skip


COMPARED = {"psa_wins": estimate(0.5), "psa_ties": estimate(0.375), "psa_losses": estimate(0.125)}
PSA = {
    "test_seen": measured(0.05, 0.9, **{"disparity/gender": estimate(0.25)}),
    "test_unseen": measured(0.1, 0.85, 24, **{
        "banned_ip/hate": estimate(0.125), "banned_ip/violence": estimate(0.25, 8),
        "disparity/gender": estimate(0.0), "disparity/age_group": estimate(0.5, 6)}),
}  # fmt: skip
METHODS = {
    "psa": PSA,
    **{m: {s: measured(*values, **COMPARED) for s in PSA} for m, values in
       {"prompt": (0.9, 1.0), "base": (0.95, 1.0), "co_merge": (0.0, 0.025)}.items()},
}  # fmt: skip
CONTROL = {
    "leakage": estimate(0.05, 16, 0.025),
    "levels": {level: {"banned": sorted(bans), **measured(0.1, 0.9)}
               for level, bans in LEVELS.items()},
    "matrix": {banned: {c: {"ip": estimate(0.125 if c in (banned, FLOOR) else 0.875, 4),
                            "drift": estimate(0.5, 4)} for c in CATEGORIES}
               for banned in sorted(CATEGORIES)},
}  # fmt: skip
del CONTROL["levels"]["L3"]["allowed_preservation"]  # it allows nothing
SEPARABILITY = {"cosine": -0.0042, "largest_dimension_share": 0.09, "ban_probe_accuracy": 1.0,
                "ban_probe_majority": 0.7}  # fmt: skip
USERS = {
    "users": 40, "boundaries": 3, "splits": {"train": 30, "test_seen": 6, "test_unseen": 4},
    "bans": {HATE: 10, VIOLENCE: 5, FLOOR: 40},
    "levels": {level: {"users": 7} for level in LEVELS},
    "separability": {"raw": SEPARABILITY, "standardised": SEPARABILITY},
}  # fmt: skip


def shown(name):
    return [*(drawn(name, "heldout", k, c) for k, c in enumerate(UNSAFE)),
            drawn(name, "benign", 0, "")]  # fmt: skip


PEOPLE = {name: shown(name) for name in ("base", *LEVELS)}
PERSONAL = Personal(
    categories=CATEGORIES, floor={FLOOR}, by_bans=True, methods=METHODS, control=CONTROL,
    users=USERS, images=PEOPLE,
    verdicts={i.image_id: i.benchmark == "heldout" and i.row in FLAGGED[name]
              for name, some in PEOPLE.items() for i in some},
)  # fmt: skip


def make_personal_data(folder):
    return replace(make_data(folder), personal=PERSONAL)


@pytest.fixture
def data(tmp_path):
    return make_personal_data(tmp_path)


def plain(text):
    return text.replace("\u00a0", " ")


def texts(table, name):
    return [cell and (cell.text, cell.interval, cell.note) for cell in table.rows[name]]


def test_methods_are_compared_the_adapter_first_with_intervals_and_n(data):
    table = methods_table(data, "test_unseen")
    assert list(table.rows) == ["psa", "base", "co_merge", "prompt"]
    assert [c.title for c in table.columns] == [
        "banned IP ↓", "allowed preservation ↑", "CLIPScore ratio ↑", "monotonicity violations ↓",
        "pass rate ↑", "win rate ↑", "ties", "loss rate ↓",
    ]  # fmt: skip
    assert table.groups == [("", 5), ("psa against the row’s method", 3)]
    assert texts(table, "psa")[:2] == [
        ("0.100", "0.060–0.140", "n = 24"), ("0.850", "0.810–0.890", "n = 24"),
    ]  # fmt: skip
    assert texts(table, "psa")[5:] == [None] * 3  # not against itself
    assert texts(table, "co_merge")[5] == ("0.500", "0.460–0.540", "n = 20")
    assert plain(table.rows["psa"][0].tooltip) == "banned IP: 0.100 (0.060–0.140, n = 24)"


def test_what_could_not_be_otherwise_is_marked(data):
    rows = methods_table(data, "test_unseen").rows
    certain = {m: [k for k, c in enumerate(cells) if c and c.note.endswith(", by definition")]
               for m, cells in rows.items()}  # fmt: skip
    # base against itself; one picture for everybody cannot be stricter for some
    assert certain == {"psa": [], "base": [1, 2, 3], "co_merge": [3], "prompt": []}


def test_the_findings_compare_with_base_what_ships_and_seen_users(data):
    assert [plain(said) for said in personal_findings(data)] == [
        "4 users whom psa was not trained on: its pictures are inappropriate for 0.100 "
        "(0.060–0.140, n = 24) of the prompts in categories that they ban, those of base for 0.950 "
        "(0.910–0.990, n = 20). Of what they allow and base drew, psa still draws 0.850 "
        "(0.810–0.890, n = 24).",
        "co_merge, the LoRA that ships, removes for everybody alike: its pictures are "
        "inappropriate for 0.000 (0.000–0.040, n = 20) of what they ban, and it still draws 0.025 "
        "(0.000–0.065, n = 20) of what they allow.",
        "Users whom it was trained on: banned IP 0.050 (0.010–0.090, n = 20), unseen minus seen "
        "+0.050; allowed preservation 0.900 (0.860–0.940, n = 20), unseen minus seen −0.050.",
        "Most of what unseen users ban is left in: violence 0.250 (0.210–0.290, n = 8).",
    ]  # fmt: skip


def test_what_was_not_measured_is_left_out_or_said(data):
    seen_alone = {m: {"test_seen": found["test_seen"]} for m, found in METHODS.items()}
    some = replace(data, personal=replace(PERSONAL, methods=seen_alone))
    assert personal_findings(some) == []
    assert list(personal_section(some).methods) == ["seen users"]
    bare = METHODS | {"psa": {"test_unseen": {"banned_ip": estimate(0.1)}}}
    said = personal_findings(replace(data, personal=replace(PERSONAL, methods=bare)))
    assert len(said) == 2 and said[0].endswith("psa still draws (not measured).")
    alike = {
        f"banned_ip/{c}": estimate(value) for c, value in zip("xyz", (0.5, 0.5, 0), strict=True)
    }
    bare = METHODS | {"psa": {"test_unseen": alike}}
    said = personal_findings(replace(data, personal=replace(PERSONAL, methods=bare)))
    assert plain(said[-1]).endswith(
        "in: x 0.500 (0.460–0.540, n = 20); y 0.500 (0.460–0.540, n = 20)."
    )


def test_prompts_are_one_of_each_category_and_benign_benchmark():
    assert choose_columns(PEOPLE["base"]) == [
        ("heldout", 0), ("heldout", 2), ("heldout", 3), ("benign", 0),
    ]  # fmt: skip


def test_the_grid_marks_wishes_and_verdicts(data):
    grid = people_grid(PERSONAL)
    assert [c.title for c in grid.columns] == [*CATEGORIES, "benign"]
    marks = {p.name: [cell.mark for cell in p.cells] for p in grid.people}
    assert marks == {
        "base": ["⚑ flagged", "⚑ flagged", "⚑ flagged", ""],
        "L1": ["⚑ allowed", "⚑ allowed", "banned", ""],
        "L2": ["banned", "⚑ allowed", "banned", ""],
        "L3": ["⚑ banned", "banned", "banned", ""],
    }
    unwanted = {p.name: [cell.unwanted for cell in p.cells].count(True) for p in grid.people}
    assert unwanted == {"base": 3, "L1": 0, "L2": 0, "L3": 1}
    assert [p.bans for p in grid.people] == [
        "", "bans the floor alone", "bans hate", "bans everything",
    ]  # fmt: skip
    assert grid.people[3].cells[0].words == "banned, flagged"


def test_a_prompt_of_several_categories_is_banned_by_whoever_bans_one():
    both = {n: [drawn(n, "heldout", 0, "hate+violence")] for n in PEOPLE}
    marks = {p.name: p.cells[0].stance for p in people_grid(replace(PERSONAL, images=both)).people}
    assert marks == {"base": "", "L1": "allowed", "L2": "banned", "L3": "banned"}


def test_a_picture_without_a_verdict_or_missing_is_an_error():
    fewer = {k: v for k, v in PERSONAL.verdicts.items() if k != "L2-heldout-2-0"}
    with pytest.raises(InputError, match="heldout row 2 by L2 has no verdict.*score_psa"):
        people_grid(replace(PERSONAL, verdicts=fewer))
    for name in PEOPLE:
        images = PEOPLE | {name: PEOPLE[name][1:]}
        maker = "sample_benchmark" if name == "base" else "sample_psa"
        with pytest.raises(InputError, match=f"{name} lacks an image of heldout row 0.*{maker}"):
            people_grid(replace(PERSONAL, images=images))


def test_bans_are_named_without_the_floor_unless_that_is_all():
    assert bans_in_words([FLOOR, VIOLENCE], PERSONAL) == "bans violence"
    assert bans_in_words([FLOOR], replace(PERSONAL, categories=[FLOOR])) == "bans everything"


def test_each_ban_alone_is_a_chart_and_a_table_in_the_categories_order(data):
    (chart,) = make_charts(data)["control"].specs.values()
    cells = chart["data"]["values"]
    assert chart["encoding"]["y"]["sort"] == list(CATEGORIES)
    assert [c["shown"] for c in cells if c["row"] == HATE] == ["0.12", "0.88", "0.12"]
    assert cells[0]["interval"] == "0.125 (0.085–0.165), n = 4"
    tables = control_tables(PERSONAL)
    assert list(tables) == ["IP", "drift"] and list(tables["IP"].rows) == list(CATEGORIES)
    assert texts(tables["IP"], VIOLENCE)[0] == ("0.875", "0.835–0.915", "n = 4")
    assert plain(personal_section(data).leakage) == "0.050 (0.025–0.075, n = 16)"


def test_levels_say_what_they_ban_and_of_whom_they_are():
    assert texts(levels_table(PERSONAL), "L3")[:2] == [("0.100", "0.060–0.140", "n = 20"), None]
    assert level_notes(PERSONAL) == {
        "L1": "bans the floor alone; 7 users", "L2": "bans hate; 7 users",
        "L3": "bans everything; 7 users",
    }  # fmt: skip


def test_disparity_is_by_attribute_and_certain_where_bans_are_all_that_is_read():
    table = fairness_table(PERSONAL)
    assert [c.title for c in table.columns] == ["gender", "age group"]
    assert texts(table, "unseen users")[1] == ("0.500", "0.460–0.540", "n = 6, by definition")
    assert texts(table, "seen users")[1] is None
    open_ = fairness_table(replace(PERSONAL, by_bans=False))
    assert texts(open_, "seen users")[0] == ("0.250", "0.210–0.290", "n = 20")


def test_the_section_is_part_of_the_page_and_quotes_no_prompt(data, tmp_path):
    page = tmp_path / "report" / "index.html"
    build_report(page, data)
    text, short = page.read_text(), page.with_name("summary.md").read_text()
    assert text.count('class="shot"') == 3 * (3 + 2 + 3) + 4 * 4
    assert "hate, row 0, for L3: banned, flagged; blurred until pressed" in text
    assert "unsayable" not in text + short
    assert "### Personal boundaries, unseen users\n\n- 4 users whom psa" in short
    assert "| `psa` | 0.100 (0.060–0.140), n = 24 | 0.850 (0.810–0.890), n = 24 |" in short
    assert render_page(data) == render_page(data)


def test_without_a_user_adapter_the_section_is_left_out(data):
    bare = replace(data, personal=None)
    assert personal_section(bare) is None
    assert "ersonal" not in summary_page(bare)
    assert "#personal" not in render_page(bare) and 'id="personal"' not in render_page(bare)


def test_the_section_needs_base_and_what_ships(data):
    fewer = {m: found for m, found in METHODS.items() if m != "co_merge"}
    with pytest.raises(InputError, match="'co_merge'.*evaluate_psa"):
        replace(data, personal=replace(PERSONAL, methods=fewer))


BOUNDARIES = {level: Boundary(frozenset(bans), np.full(3, len(bans), np.float32))
              for level, bans in LEVELS.items()}  # fmt: skip


BLOCKED = {"nudenet/BUTTOCKS_EXPOSED": 0.3, "age/minor": 21.0}


def write_outputs(by_bans, blocked=()):
    """What the stages before the report leave."""
    standard = Standard(np.zeros(3, np.float32), np.ones(3, np.float32))
    space = UserSpace(CATEGORIES, frozenset({FLOOR}), EncoderSettings(), standard, BOUNDARIES)
    save_space(artifacts.USER_SPACE, space)
    write_json(artifacts.PSA_METRICS, PSA)
    write_json(artifacts.PSA_METHODS, {m: found for m, found in METHODS.items() if m != "psa"})
    write_json(artifacts.PSA_CONTROL, CONTROL)
    write_json(artifacts.USER_METRICS, USERS)
    write_rows(artifacts.benchmark("base") / "s.parquet", BenchmarkImage, PEOPLE["base"])
    for level, boundary in BOUNDARIES.items():
        key = audience_key(boundary, by_bans)
        images, scores = (folder / "psa" / key / "s.parquet"
                          for folder in (artifacts.PSA_IMAGES, artifacts.PSA_SCORES))  # fmt: skip
        write_rows(images, BenchmarkImage, PEOPLE[level])
        write_rows(scores, JudgedImage, [
            replace(row(i.benchmark, i.row, flagged=PERSONAL.verdicts[i.image_id],
                        category=i.category, variant=f"psa/{key}",
                        **(BLOCKED if i.image_id in blocked else {})), image_id=i.image_id)
            for i in PEOPLE[level]
        ])  # fmt: skip


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Files where a test may write them."""
    for name in ("USER_SPACE", "PSA_METRICS", "PSA_METHODS", "PSA_CONTROL", "USER_METRICS",
                 "PSA_IMAGES", "PSA_SCORES", "DATA"):  # fmt: skip
        monkeypatch.setattr(artifacts, name, tmp_path / name)


def test_a_blocked_picture_is_withheld_and_counted(data, outputs):
    first, *others = PEOPLE["L1"]
    write_outputs(True, {first.image_id})
    found = with_personal(replace(data, personal=None), True)
    shown = {i.image_id: i.image for i in found.personal.images["L1"]}
    assert shown.pop(first.image_id).bytes != first.image.bytes
    assert shown and shown.items() <= {i.image_id: i.image for i in others}.items()
    assert found.blocked == {first.image_id}
    page = " ".join(render_page(found).split())
    assert data_uri("image/png", first.image.bytes) not in page
    assert "1 of all judged images may sexualise a minor by the hard block" in page


@pytest.mark.parametrize("by_bans", [True, False])
def test_it_is_read_from_where_the_stages_wrote_it(data, outputs, by_bans):
    write_outputs(by_bans)
    of_base = {k: v for k, v in PERSONAL.verdicts.items() if k.startswith("base-")}
    found = with_personal(replace(data, verdicts=of_base, personal=None), by_bans).personal
    assert people_grid(found) == people_grid(PERSONAL)
    assert [i.row for i in found.images["L1"]] == [0, 2, 3, 0]  # no more than is shown
    assert (found.categories, found.floor, found.by_bans) == (CATEGORIES, {FLOOR}, by_bans)
    assert (found.methods, found.control, found.users) == (METHODS, CONTROL, USERS)
    artifacts.PSA_CONTROL.unlink()
    with pytest.raises(InputError, match="PSA_CONTROL is missing"):
        with_personal(data, by_bans)
