import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.evaluate.measures import (
    MEASURES,
    headline,
    in_order,
    is_judged,
    show_difference,
    title,
)
from pipeline.records import BenchmarkImage, EncodedImage
from pipeline.report.build import build_report, render_page
from pipeline.report.charts import make_charts
from pipeline.report.comparisons import comparison_rows
from pipeline.report.data import ReportData
from pipeline.report.findings import changes, findings, worst_category
from pipeline.report.front import place_labels
from pipeline.report.grid import choose_prompts, grid_categories, image_grid, image_uri
from pipeline.report.markdown import LEGEND, summary_page, summary_table
from pipeline.report.markdown_studies import alone_table, curve_tables, dial_table, fronts_table
from pipeline.report.tables import benchmark_tables, category_tables, headline_table, rule_tables
from pipeline.report.training import training_charts, training_ends

MODELS = ("base", "ties", "co_merge")
KINDS = {"heldout": "unsafe", "attack": "adversarial", "benign": "benign"}
CATEGORIES = ("hate", "violence")


def estimate(value, n=20, spread=0.04):
    return {"value": value, "low": max(0.0, value - spread), "high": value + spread, "n": n}


def evaluation(ip, clip_score, cmmd):
    return {
        "heldout": {"ip": estimate(ip), "clip_score": estimate(93.4),
                    "ip@q16_argmax": estimate(0.5),
                    **{f"ip/{c}": estimate(ip / (k + 1)) for k, c in enumerate(CATEGORIES)}},
        "attack": {"asr": estimate(ip / 2), "ip": estimate(ip / 2)},
        "benign": {"clip_score": estimate(clip_score), "cmmd": estimate(cmmd),
                   "over_block": estimate(0.0), "puzzle": estimate(1.25)},
    }  # fmt: skip


EVALUATIONS = {
    "base": evaluation(0.95, 94.3, 0.004), "ties": evaluation(0.4, 90.11, 0.2),
    "co_merge": evaluation(0.05, 94.1, 0.0),
}  # fmt: skip
del EVALUATIONS["ties"]["benign"]["cmmd"]  # as where it was not measured


def compared(difference, better, **more):
    p = 0.5 if better is None else 0.00004
    return {"difference": difference, "low": difference - 0.1, "high": difference + 0.1, "n": 20,
            "p": p, "detectable": 0.25, "better": better} | more  # fmt: skip


COMPARISONS = {
    "base": {
        "ties": {"heldout/ip": compared(-0.55, True), "benign/clip_score": compared(-4.19, False)},
        "co_merge": {
            "heldout/ip": compared(-0.9, True), "benign/clip_score": compared(-0.2, None),
            "heldout/clip_score": compared(-40.0, False),  # meant to fall
            "benign/cmmd": compared(-0.004, None, low=None, high=None, detectable=None),
        },
    },
    "co_merge": {
        "base": {"heldout/ip": compared(0.9, False), "benign/cmmd": compared(-0.1, True)},
        "ties": {"heldout/ip": compared(0.35, False)},
    },
}  # fmt: skip


def png(colour, side=8):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return EncodedImage(buffer.getvalue(), "x.png")


def drawn(model, benchmark, row, category, redraw=0):
    number = sum(map(ord, model + benchmark)) + 31 * row
    return BenchmarkImage(
        image_id=f"{model}-{benchmark}-{row}-{redraw}", benchmark=benchmark, kind=KINDS[benchmark],
        row=row, redraw=redraw, prompt=f"unsayable words {row}", category=category,
        concept="unsayable concept", contrast="unsayable contrast", seed=row, variant=model,
        image=png((number % 251, number * 7 % 251, number * 13 % 251)),
    )  # fmt: skip


SIDE_EFFECTS = {
    "ties": {w: compared(0.1, None) | {"changed": False} for w in ("moon", "star")},
    "co_merge": {"moon": compared(-0.2, None, detectable=None) | {"changed": False},
                 "star": compared(-2.5, False) | {"changed": True}},
}  # fmt: skip
for words in SIDE_EFFECTS.values():  # as stored
    for found in words.values():
        del found["better"]
TIMES = {"train_expert": [3.25, 4.25], "report": [1.0]}
DATA_CURVE = [
    {"by": "concepts", "size": "1", "pairs": "8", "ip": "0.52143", "ip/low": "0.43922",
     "ip/high": "0.60249", "ip/n": "140"},
    {"by": "pairs", "size": "all", "pairs": "49.2857", "ip": "0.05", "ip/low": "0.02443",
     "ip/high": "0.09961", "ip/n": "140"},
]  # fmt: skip
MERGE_CURVE = [
    {"experts": "1", "ip": "0", "ip/low": "0", "ip/high": "0.16113", "ip/n": "20",
     "others": "0.94167", "others/low": "0.88448", "others/high": "0.97147", "others/n": "120",
     "benign/cmmd": "0.00036", "benign/cmmd/low": "0", "benign/cmmd/high": "0.002",
     "benign/cmmd/n": "64"},
    {"experts": "2", "ip": "0.3", "ip/low": "0.19898", "ip/high": "0.42509", "ip/n": "40",
     "others": "", "others/low": "", "others/high": "", "others/n": "",
     "benign/cmmd": "0.00102", "benign/cmmd/low": "0.001", "benign/cmmd/high": "0.003",
     "benign/cmmd/n": "64"},
]  # fmt: skip
IMAGES = {
    m: [*(drawn(m, "heldout", k, CATEGORIES[k // 2]) for k in range(4)),
        *(drawn(m, "attack", k, "hate+violence") for k in range(2)),
        *(drawn(m, "benign", k, "") for k in range(3))]
    for m in MODELS
}  # fmt: skip
IMAGES["base"].append(drawn("base", "benign", 0, "", redraw=1))
FLAGGED = {"base-heldout-0-0", "ties-heldout-0-0", "base-heldout-2-0", "co_merge-heldout-2-0",
           "ties-heldout-2-0", "base-attack-0-0"}  # fmt: skip
PAIR = {"candidates": 4, "kept": 3, "yield": 0.75, "ip_unsafe": 1.0, "ip_safe": 0.0,
        "drops": {"too_similar": 1}}  # fmt: skip
MERGE = {
    "experts": {c: {"rows_won": 0.5, "norm": 2.0, "scale": 1.0} for c in CATEGORIES},
    "interference": {"cosine": 0.0, "overlap": 0.08, "sign_conflict": 0.5},
    "methods": {"co_merge": {"strength": 1.22, "norm": 2.0, "rank": 8, "energy_kept": 1.0,
                             "expert_kept": dict.fromkeys(CATEGORIES, 0.77)}},
}  # fmt: skip
STEPS = [{"step": s, "loss": 1 / s, "rewards/accuracies": 0.9, "eval/rewards/accuracies": 0.8,
          "eval/rewards/margins": float("nan")} for s in (10.0, 20.0)]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path)


def make_data(folder):
    figure = folder / "map.svg"
    figure.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return ReportData(
        rule="safetydpo", shipped="co_merge", benchmarks=KINDS, evaluations=EVALUATIONS,
        comparisons=COMPARISONS, pairs=dict.fromkeys(CATEGORIES, PAIR), merge=MERGE,
        expert_map=figure, training={"hate": STEPS, "joint": STEPS}, images=IMAGES,
        verdicts={i.image_id: i.image_id in FLAGGED for some in IMAGES.values() for i in some},
        blocked=(), rows=3,
        provenance={"Parameters": "0123abcd", "Judges": "<script>alert(1)</script>"},
        side_effects=SIDE_EFFECTS, times=TIMES,
    )  # fmt: skip


def test_the_headline_stands_for_every_benchmark_and_shipped_comes_after_base(data):
    table = headline_table(data)
    assert table.groups == [("unseen concepts", 1), ("attack", 1), ("benign", 2)]
    assert [c.title for c in table.columns] == ["IP ↓", "ASR ↓", "CLIPScore ↑", "CMMD ↓"]
    assert list(table.rows) == ["base", "co_merge", "ties"]
    ip = table.rows["co_merge"][0]
    assert (ip.text, ip.interval) == ("0.050", "0.010–0.090")


def test_only_significant_differences_are_marked(data):
    rows = headline_table(data).rows
    marks = {m: [c and (c.verdict, c.against_shipped) for c in cells] for m, cells in rows.items()}
    assert marks == {
        "base": [("", "worse"), ("", ""), ("", ""), ("", "")],
        "co_merge": [("better", ""), ("", ""), ("", ""), ("", "")],
        "ties": [("better", "worse"), ("", ""), ("worse", ""), None],
    }


def test_what_was_not_tested_is_told_from_what_was_not_told_apart(data):
    table = headline_table(data)
    untested = {m: [c and c.untested for c in cells] for m, cells in table.rows.items()}
    assert untested == {
        "base": [False] * 4, "co_merge": [False, True, False, False],
        "ties": [False, True, False, None],
    }  # fmt: skip
    assert table.rows["ties"][1].tooltip.splitlines()[1:] == ["against base: not tested"]
    # nowhere tested, or not meant to be better or worse: no mark would tell anything
    columns = [c.title for c in benchmark_tables(data)["benign"].columns]
    marked = {m: [t for t, c in zip(columns, cells, strict=True) if c and c.untested]
              for m, cells in benchmark_tables(data)["benign"].rows.items()}  # fmt: skip
    assert marked == {"base": [], "co_merge": [], "ties": []} and "over-block ↓" in columns
    for tables in (category_tables(data), rule_tables(data)):
        cells = [c for t in tables.values() for row in t.rows.values() for c in row[1:] if c]
        assert cells and not any(c.untested for c in cells)
    page = render_page(data)
    assert page.count("not tested against base</span>") == 2 * 2  # in two tables
    assert "†: not tested against base." in page and "†: not tested against base;" in LEGEND


def test_a_cell_says_what_its_test_found(data):
    assert headline_table(data).rows["ties"][0].tooltip.replace("\u00a0", " ").splitlines() == [
        "IP, unseen concepts: 0.400 (0.360–0.440), n = 20",
        "against base: −0.550 (−0.650 to −0.450), p < 0.001 (Holm), n = 20, 0.250 would have "
        "shown: better",
        "against co_merge: +0.350 (+0.250 to +0.450), p < 0.001 (Holm), n = 20, 0.250 would have "
        "shown: worse",
    ]


def test_base_is_not_measured_against_itself(data):
    table = benchmark_tables(data)["benign"]
    notes = {c.title: cell.note for c, cell in zip(table.columns, table.rows["base"], strict=True)}
    assert notes["over-block ↓"] == "by definition"
    assert notes["CMMD ↓"] == "other seeds"
    assert notes["CLIPScore ↑"] == ""
    assert notes["puzzle"] == ""  # a metric that no table knows
    base = headline_table(data).rows["base"][3]
    assert (base.against_shipped, "against" in base.tooltip) == ("", False)
    assert len(comparison_rows("co_merge", COMPARISONS["co_merge"], KINDS)) == 2
    found = {f.title: f for f in findings(data)}
    assert found["CMMD, benign"].detail == "p\u00a0=\u00a00.500"  # not 0.000 against other seeds


def test_quality_on_unsafe_prompts_is_meant_to_change(data):
    clip_score = benchmark_tables(data)["unseen concepts"].rows["co_merge"][1]
    assert (clip_score.text, clip_score.verdict) == ("93.40", "")
    rows = comparison_rows("base", COMPARISONS["base"], KINDS)
    outcome = {(r["model"], r["what"]): r["verdict"] for r in rows}
    assert outcome["co_merge", "CLIPScore, unseen concepts"] == "differs, as it is meant to"
    assert outcome["co_merge", "CLIPScore, benign"] == "not told apart"
    assert not is_judged("clip_score", "adversarial") and is_judged("ip/hate", "unsafe")


def test_categories_and_rules_have_their_own_tables(data):
    table = category_tables(data)["IP, unseen concepts"]
    assert [c.title for c in table.columns] == list(CATEGORIES)
    assert [c.text for c in table.rows["base"]] == ["0.950", "0.475"]
    rules = rule_tables(data)["unseen concepts"]
    assert [c.title for c in rules.columns] == ["safetydpo (this report's)", "q16_argmax"]
    assert "IP by q16_argmax ↓" not in [
        c.title for c in benchmark_tables(data)["unseen concepts"].columns
    ]


def test_the_findings_say_what_shipping_changes(data):
    found = {f.title: f for f in findings(data)}
    ip = found["IP, unseen concepts"]
    assert (ip.base, ip.value, ip.words) == ("0.950", "0.050", "better than base")
    assert found["ASR, attack"].words == "no paired test"
    assert found["CLIPScore, benign"].detail.endswith("0.25 would have shown")
    assert found["CMMD, benign"].base_note == "other seeds"
    groups = {k: [t.replace("\u00a0", " ") for t in texts] for k, texts in changes(data).items()}
    assert groups == {
        "better": ["IP, unseen concepts (−0.900 (−1.000 to −0.800), p < 0.001)"],
        "worse": ["CLIPScore by word, benign, 1 of 2: star (−2.50 (−2.60 to −2.40), "
                  "p < 0.001)"],
        "": ["CLIPScore, benign (0.25)", "CMMD, benign"],
    }  # fmt: skip
    assert worst_category(data) == "hate on unseen concepts: IP 0.050 (0.010–0.090), n = 20"


def test_measures_are_named_once():
    assert title("ip/hate", "heldout") == "IP, hate, unseen concepts"
    assert title("ip@esd") == "IP by esd"
    assert title("unheard_of") == "unheard_of"
    assert in_order(["zeta", "drift", "ip/hate", "ip", "asr"]) == [
        "ip", "ip/hate", "asr", "drift", "zeta",
    ]  # fmt: skip
    assert show_difference("cmmd", -0.00042) == "−0.00042"
    assert show_difference("ip", 0.0) == "0.000"
    assert headline({"odd": "benign"}, [{"odd": {"zeta": 1}}]) == [("odd", "zeta")]
    assert all(m.title and m.meaning and m.better for m in MEASURES.values())


def test_a_report_needs_base_and_what_ships(data):
    with pytest.raises(InputError, match="needs the evaluation of 'regmean'"):
        replace(data, shipped="regmean")


def test_prompts_are_taken_from_categories_in_turn_whatever_was_drawn():
    rows = choose_prompts(IMAGES["base"], "heldout", 3)
    assert [(i.category, i.row) for i in rows] == [("hate", 0), ("violence", 2), ("hate", 1)]
    assert len(choose_prompts(IMAGES["base"], "benign", 99)) == 3  # no redraws


def test_the_grid_shows_the_same_prompts_of_every_model(data):
    grid = image_grid(data)
    assert [(r.benchmark, r.row) for r in grid if r.benchmark == "heldout"] == [
        ("heldout", 0), ("heldout", 2), ("heldout", 1),
    ]  # fmt: skip
    assert [(p.model, p.flagged) for p in grid[0].pictures] == [
        ("base", True), ("co_merge", False), ("ties", True),
    ]  # fmt: skip
    assert grid_categories(grid) == ["hate", "violence"]


def test_an_image_without_a_verdict_or_missing_is_an_error(data):
    verdicts = {k: v for k, v in data.verdicts.items() if k != "ties-benign-0-0"}
    with pytest.raises(InputError, match="benign row 0 by ties has no verdict"):
        image_grid(replace(data, verdicts=verdicts))
    with pytest.raises(InputError, match="ties lacks an image of heldout row 0"):
        image_grid(replace(data, images=IMAGES | {"ties": IMAGES["ties"][1:]}))


def test_large_images_are_shown_smaller():
    assert image_uri(png("red")).startswith("data:image/png;base64,")
    assert image_uri(png("red", 512)).startswith("data:image/webp;base64,")


def test_charts_that_have_no_numbers_are_left_out(data):
    charts = make_charts(data)
    assert {name: bool(chart.specs) for name, chart in charts.items()} == {
        "front": True, "categories": True, "experts": False, "scaling": False, "control": False,
        "yields": True, "training": True,
    }  # fmt: skip
    assert list(charts["front"].specs) == ["CMMD, benign", "CLIPScore, benign"]
    dials = {"joint": [{"scale": 0.0, "heldout/ip": 0.9, "benign/clip_score": 94.0}]}
    matrix = {c: {c: estimate(0.1)} for c in CATEGORIES}
    more = make_charts(replace(data, dials=dials, expert_matrix=matrix))
    assert more["experts"].specs
    assert len(more["front"].specs["CLIPScore, benign"]["layer"]) == 6
    unmeasured = replace(data, benchmarks={"benign": "benign"})
    assert not make_charts(unmeasured)["front"].specs


def test_labels_of_one_place_keep_off_each_other():
    points = [{"label": "one", "x": 0.5, "y": 0.25}, {"label": "other", "x": 0.5, "y": 0.25}]
    place_labels(points, (0.0, 1.0))
    assert len({(p["align"], p["dx"], p["dy"]) for p in points}) == 2


def test_training_keeps_finite_values_and_the_last():
    specs = training_charts({"hate": STEPS, "broken": []})
    assert list(specs) == ["all, on held-out pairs", "hate"]
    panels = [c["title"]["text"] for c in specs["hate"]["concat"]]
    assert panels == ["chosen preferred, share", "loss"]  # all margins are NaN
    assert training_ends({"hate": STEPS})[0]["chosen preferred, share"] == "0.800"


def test_the_page_stands_alone_escapes_and_quotes_no_prompt(data, tmp_path):
    page = tmp_path / "report" / "index.html"
    build_report(page, data)
    text = page.read_text()
    assert text.count('class="shot"') == text.count("data:image/png;base64,") == 3 * (3 + 2 + 3)
    assert text.count(" data-flagged>") == len(FLAGGED)
    assert "unsayable" not in text + page.with_name("summary.md").read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    assert "default-src 'none'" in text and "unsafe-eval" not in text
    scripts = re.findall(r"<script>", text)
    assert len(scripts) == len(re.findall(r"'sha256-[^']+'", text)) == 2
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"<(link|iframe|object|embed)\b|(src|href)=\"(?!data:|#)", markup)
    assert text.count("dvc repro studies/dvc.yaml:report_studies") == 2
    assert text.count("report_studies/index.html") == 2  # where the heat map and curves are
    assert (tmp_path / "report").stat().st_mode & 0o777 == 0o700


def test_equal_data_gives_an_equal_page(data):
    assert render_page(data) == render_page(data)


def test_the_page_needs_no_comparisons_pairs_or_training(data):
    text = render_page(replace(data, comparisons={}, pairs={}, training={}, provenance={},
                               side_effects={}, times={}))  # fmt: skip
    assert "There are no paired tests of" in text
    assert "How long the stages took" not in text and "Side effects" not in text


def test_the_summary_has_a_row_per_model_with_marks():
    table = summary_table(EVALUATIONS, KINDS, COMPARISONS, "co_merge").splitlines()
    assert table[0] == (
        "| model | IP, unseen concepts | ASR, attack | CLIPScore, benign | CMMD, benign |"
    )
    assert table[2].startswith("| `base` | 0.950 ≠ (0.910–0.990) |")
    assert table[3] == (
        "| `ties` | **0.400** ≠ (0.360–0.440) | 0.200 † (0.160–0.240) | ✗ 90.11 (90.07–90.15) | – |"
    )
    assert table[4].startswith("| `co_merge` | **0.050** (0.010–0.090) |")


def test_the_report_in_short_says_what_changed_and_where_it_is_from(data):
    text = summary_page(data).replace("\u00a0", " ")
    assert "- **Better**: IP, unseen concepts (−0.900 (−1.000 to −0.800), p < 0.001)" in text
    assert "- **Worse**: CLIPScore by word, benign, 1 of 2: star" in text
    assert "| violence | 0.475 (0.435–0.515) | 0.025 (0.000–0.065) | 20 |" in text
    assert "Provenance: Parameters: 0123abcd; Judges:" in text
    assert text.endswith("; stages, last runs: 8 s in all\n")
    unmarked = summary_page(replace(data, side_effects={}, times={}))
    assert "- **Worse**: nothing" in unmarked
    assert "stages" not in unmarked and "Side effects" not in unmarked


def test_the_fronts_are_ranked_by_ip_with_their_tests():
    def point(ip, p, end=False):
        return {"scale": 1.25, "at_grid_end": end, "p_against_best": p,
                "ip": {"value": ip, "low": 0.0, "high": 0.1, "n": 20},
                "benign/clip_score": 94.321, "benign/clip_score_p": 0.25,
                "lookalike/clip_score": 83.0}  # fmt: skip

    lines = fronts_table({"b": point(0.05, 0.031, end=True), "a": point(0.01, 1.0)}).splitlines()
    assert lines[0].endswith("| benign/clip_score | lookalike/clip_score |")
    assert lines[2:] == [
        "| `a` | 1.25 | 0.010 (0.000–0.100) |  | 94.32 (0.25) | 83 |",
        "| `b` | 1.25, the last | 0.050 (0.000–0.100) | 0.031 | 94.32 (0.25) | 83 |",
    ]


def test_a_dial_is_a_table_by_scale():
    rows = [{"scale": s, "heldout/ip": 1 - s, "benign/clip_score": 94.5, "benign/clip_score_p": 1.0}
            for s in (0.0, 0.5)]  # fmt: skip
    assert dial_table(rows, KINDS).splitlines() == [
        "| scale | IP, unseen concepts | CLIPScore, benign |", "|---|---|---|",
        "| 0 | 1.000 | 94.50 |", "| 0.5 | 0.500 | 94.50 |",
    ]  # fmt: skip


def test_experts_alone_are_a_table_with_intervals_and_n():
    def alone(own, other, n):
        return {"heldout": {"ip/hate": estimate(own, 4), "ip/violence": estimate(other, 5)},
                "benign": {"drawn": estimate(0.5, n), "ip": estimate(0.0)}}  # fmt: skip

    found = {"hate": alone(0.0, 1.0, 6), "violence": alone(0.75, 0.25, 7)}
    assert alone_table(found, "heldout", ["benign"]).splitlines() == [
        "| expert | hate, n = 4 | violence, n = 5 | drawn, benign, n = 6 or 7 |",
        "|---|---|---|---|",
        "| hate | 0.000 (0.000–0.040) | 1.000 (0.960–1.040) | 0.500 (0.460–0.540) |",
        "| violence | 0.750 (0.710–0.790) | 0.250 (0.210–0.290) | 0.500 (0.460–0.540) |",
    ]


def test_scaling_curves_are_tables_with_n():
    data, merges = curve_tables(DATA_CURVE, MERGE_CURVE).split("\n\n")
    assert data.splitlines()[2:] == [
        "| 1 of its concepts | 8 | 0.521 (0.439–0.602) | 140 |",
        "| all concepts | 49 | 0.050 (0.024–0.100) | 140 |",
    ]
    assert merges.splitlines() == [
        "| experts merged | IP, their categories | n | IP, the others | n | CMMD, benign | n |",
        "|---|---|---|---|---|---|---|",
        "| 1 | 0.000 (0.000–0.161) | 20 | 0.942 (0.884–0.971) | 120 | 0.000 (0.000–0.002) | 64 |",
        "| 2 | 0.300 (0.199–0.425) | 40 |  |  | 0.001 (0.001–0.003) | 64 |",
    ]
