"""Which benign words models draw otherwise, as the page and Markdown show it."""

import sys
from dataclasses import replace

import pytest

from pipeline import artifacts
from pipeline.report import summary
from pipeline.report.build import render_page
from pipeline.report.markdown import side_effects_table, summary_page
from pipeline.report.side_effects import changed_words, side_effects, what_words_changed
from pipeline.storage import write_json
from tests.report.test_build import SIDE_EFFECTS, compared, make_data


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path)


def plain(text):
    return text.replace("\u00a0", " ")


def word(difference, changed=True):
    return compared(difference, None, p=0.01 if changed else 0.5) | {"changed": changed}


def test_words_that_changed_come_the_most_changed_first():
    words = {"sea": word(-1.0), "moon": word(-9.0, changed=False), "red": word(2.0)}
    assert list(changed_words(words)) == ["red", "sea"]


def test_every_model_is_said_to_have_changed_some_words_or_none(data):
    found = side_effects(data)
    assert found.sentences == {
        "co_merge": "1 of 2 words changed: star", "ties": "none of 2 words changed",
    }  # fmt: skip
    assert found.notes == {"star": "n = 20"}
    ours, ties = found.table.rows["star"]  # moon is changed by none
    assert (ours.text, ours.interval, ours.verdict) == ("−2.50", "−2.60 to −2.40", "worse")
    assert (ties.text, ties.verdict) == ("+0.10", "")
    assert plain(ours.tooltip) == (
        "co_merge, prompts with star, against base: −2.50 (−2.60 to −2.40), p < 0.001 (Holm), "
        "n = 20, 0.25 would have shown: worse"
    )


def test_what_the_shipped_model_changes_comes_first(data):
    more = {"ties": {"ash": word(-1.0), "star": word(-1.0)}, "co_merge": SIDE_EFFECTS["co_merge"]}
    found = side_effects(replace(data, side_effects=more))
    assert list(found.table.rows) == ["star", "ash"]
    assert found.table.rows["ash"][0] is None  # a word that was not tested there


def test_the_cost_of_shipping_tells_words_that_fell_from_words_that_rose(data):
    words = {"co_merge": {"sea": word(-1.0), "red": word(2.0), "moon": word(9.0, changed=False)}}
    changed = replace(data, side_effects=words)
    said = {k: plain(what_words_changed(changed, k)) for k in ("better", "worse")}
    assert said == {
        "better": "CLIPScore by word, benign, 1 of 3: red (+2.00 (+1.90 to +2.10), "
                  "p = 0.010)",
        "worse": "CLIPScore by word, benign, 1 of 3: sea (−1.00 (−1.10 to −0.90), "
                 "p = 0.010)",
    }  # fmt: skip


def test_page_and_summary_show_them(data):
    page, short = plain(render_page(data)), plain(summary_page(data))
    assert "CLIPScore by word, benign, 1 of 2: star (−2.50" in page
    assert "<code>co_merge</code>, which ships: 1 of 2 words changed: star" in page
    assert "<code>ties</code>: none of 2 words changed" in page
    assert '<th scope="row">star<small>n = 20</small></th>' in page
    assert short.count("### Side effects on benign words") == 1
    assert (
        "| `co_merge` | 1 of 2 | star −2.50 (−2.60 to −2.40), n = 20 |\n| `ties` | none of 2 | – |"
    ) in short


def test_where_no_word_changed_there_is_no_table_of_words(data):
    same = replace(data, side_effects={"co_merge": {}, "ties": {"sea": word(-1.0, changed=False)}})
    assert side_effects(same).table.rows == {}
    page = render_page(same)
    assert "none of 0 words changed" in page and "by word of benign prompts" not in page
    assert side_effects_table(same.side_effects).splitlines()[2] == "| `co_merge` | none of 0 | – |"
    assert side_effects(replace(data, side_effects={})) is None
    assert "Side effects" not in render_page(replace(data, side_effects={}))


def test_the_command_line_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["summary", "--side-effects"])
    write_json(artifacts.SIDE_EFFECTS, SIDE_EFFECTS)
    summary.main()
    table, legend = capsys.readouterr().out.split("\n\n")
    assert table.splitlines()[2] == "| `co_merge` | 1 of 2 | star −2.50 (−2.60 to −2.40), n = 20 |"
    assert legend.startswith("CLIPScore minus base's, over the benign prompts that have a word")
