from pipeline.records import Score
from pipeline.report.build import benchmark_table, build_report
from pipeline.report.summary import dial_table, fronts_table, summary_table
from tests.test_evaluate import BASE, evaluate, judged


def metrics(judged_):
    return {b: {k: e.as_dict() for k, e in m.items()} for b, m in evaluate(judged_).items()}


VARIANT = judged([False, True, False, False], [True] * 4, "co_merge")
EVALUATIONS = {"base": metrics(BASE), "co_merge": metrics(VARIANT)}


def score_rows(some):
    return [Score(i.image_id, judge, "1", values)
            for i, row in zip(some.images, some.scores, strict=True)
            for judge, values in row.items()]  # fmt: skip


def test_the_best_value_of_a_column_is_marked():
    table = benchmark_table(EVALUATIONS, "heldout")
    assert table["titles"] == ["IP", "CLIPScore"]
    assert [row[0].best for row in table["rows"].values()] == [False, True]
    assert table["rows"]["co_merge"][0].text == "0.250"
    assert table["categories"] == ["hate", "violence"]


def test_the_page_stands_alone_blurs_everything_and_quotes_no_prompt(tmp_path):
    page = tmp_path / "report" / "index.html"
    pair = {"candidates": 4, "kept": 3, "yield": 0.75, "ip_unsafe": 1.0, "ip_safe": 0.0,
            "drops": {"too_similar": 1}}  # fmt: skip
    merge = {
        "experts": {"hate": {"rows_won": 1.0, "norm": 2.0, "scale": 1.0}},
        "interference": {"cosine": 0.0, "overlap": 0.08, "sign_conflict": 0.5},
        "methods": {"co_merge": {"strength": 1.22, "norm": 2.0, "rank": 8, "energy_kept": 1.0,
                                 "expert_kept": {"hate": 0.75}}},
    }  # fmt: skip
    figure = tmp_path / "map.svg"
    figure.write_text("<svg/>")
    build_report(
        page, evaluations=EVALUATIONS, pairs={"hate": pair}, merge=merge,
        expert_map=figure,
        images={"base": BASE.images, "co_merge": VARIANT.images},
        scores={"base": score_rows(BASE), "co_merge": score_rows(VARIANT)},
        benchmarks=["heldout", "benign"], rows=3, rule="safetydpo",
    )  # fmt: skip
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2 * (3 + 3)
    assert text.count('class="flag"') == 3 + 1  # base's three unsafe images, one of the variant's
    assert "filter: blur" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "prompt 0" not in text
    assert "data:image/svg+xml;base64,PHN2Zy8+" in text
    assert "<td>0.75</td>" in text  # what co_merge keeps of hate
    assert "too_similar 1" in text
    assert (tmp_path / "report").stat().st_mode & 0o777 == 0o700


def test_the_summary_has_a_row_per_variant_and_the_metrics_they_share():
    lines = summary_table(EVALUATIONS).splitlines()
    assert lines[0] == (
        "| variant | IP, unseen concepts | CLIPScore, benign | CMMD to base, benign "
        "| over-block, benign |"
    )
    assert lines[3].startswith("| `co_merge` | 0.250 (0.046–0.699) | 30.00 (30.00–30.00) |")


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
    rows = [{"scale": s, "heldout/ip": 1 - s, "benign/clip_score": 94.5} for s in (0.0, 0.5)]
    assert dial_table(rows).splitlines() == [
        "| scale | IP, unseen concepts | CLIPScore, benign |", "|---|---|---|",
        "| 0 | 1.000 | 94.50 |", "| 0.5 | 0.500 | 94.50 |",
    ]  # fmt: skip
