"""The report as its readers have it: a real Chromium opens the page from disk."""

import re
import shutil
import socket
from dataclasses import replace

import pytest

from pipeline.artifacts import REPORT
from pipeline.evaluate.measures import show, show_interval
from pipeline.report.build import build_report
from tests.imports import ROOT
from tests.report.test_build import (
    CATEGORIES,
    DATA_CURVE,
    EVALUATIONS,
    FLAGGED,
    KINDS,
    MERGE_CURVE,
    estimate,
)
from tests.report.test_personal import PSA, make_personal_data

sync_api = pytest.importorskip("playwright.sync_api", reason="needs requirements-dev.txt")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"needs one of {', '.join(NAMES)}; on Debian `apt install chromium`"
)
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
CHARTS_DRAWN = """() => {
  const charts = [...document.querySelectorAll("figure .chart")];
  return charts.every((c) => c.querySelector("svg")?.getBBox().width > 100) && charts.length;
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    build_report(folder / "index.html", make_personal_data(folder))
    return (folder / "index.html").as_uri()


@pytest.fixture
def open_page(browser, address):
    """Opens a page in a window; at the end nothing may have gone wrong or left the page."""
    noise, contexts = [], []

    def open_(width=1280, scheme="light", address=address):
        def note(request):
            if request.url != address and not request.url.startswith("data:"):
                noise.append(request.url)

        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", note)
        page.goto(address)
        page.wait_for_function(CHARTS_DRAWN)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not noise


@pytest.fixture
def page(open_page):
    return open_page()


def blur(shot):
    return shot.locator("img").evaluate("image => getComputedStyle(image).filter")


def shown_rows(page):
    return page.locator("tr[data-category]:visible").count()


def shown_models(page):
    return page.locator("#images .grid thead th[data-model]:visible").all_text_contents()


def test_the_tables_have_the_numbers_of_the_metrics(page):
    def cells(section, model):
        row = page.locator(f"{section} table.metrics tr[data-model={model}]").first
        return [re.sub(r"\s+", " ", c).strip() for c in row.locator("td").all_text_contents()]

    for model, results in EVALUATIONS.items():
        expected = [("heldout", "ip"), ("attack", "asr"), ("benign", "clip_score"),
                    ("benign", "cmmd")]  # fmt: skip
        for text, (benchmark, metric) in zip(cells("#models", model), expected, strict=True):
            estimate = results[benchmark].get(metric)
            if estimate is None:
                assert text == "–"
                continue
            value, interval = show(metric, estimate["value"]), show_interval(metric, estimate)
            said = r"( \w+ than \w+| not tested against base)*"
            assert re.fullmatch(rf"(✗ )?{value}†?≠?{said}{interval}(other seeds)?", text)
            # as COMPARISONS has it: only the attack was tested by nobody
            assert ("†" in text) == (benchmark == "attack" and model != "base")
        for text, category in zip(cells("#categories", model), CATEGORIES, strict=True):
            estimate = results["heldout"][f"ip/{category}"]
            assert text == f"{show('ip', estimate['value'])}{show_interval('ip', estimate)}"
    bold = page.locator("#models td .value").evaluate_all(
        "all => all.filter(v => getComputedStyle(v).fontWeight >= 600).map(v => v.textContent)"
    )
    assert sorted(bold) == ["0.050", "0.400", "90.11"]  # those that differ from base
    assert page.locator("#models td.worse").inner_text().startswith("✗ 90.11")


def test_images_are_blurred_until_clicked_or_pressed(page):
    shots = page.locator(".shot")
    assert all("blur(16px)" in blur(shots.nth(k)) for k in range(shots.count()))
    first, second = shots.nth(0), shots.nth(1)
    first.click()
    assert (blur(first), first.get_attribute("aria-pressed")) == ("none", "true")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert blur(second) == "none"
    assert "blur" in blur(shots.nth(2))
    second.press("Space")
    assert "blur" in blur(second)
    assert "flagged" in first.get_attribute("aria-label")


def test_all_that_is_shown_can_be_revealed_and_blurred_but_never_in_print(page):
    shots = page.locator(".shot")
    page.select_option("[name=benchmark]", "benign")
    page.get_by_role("button", name="Reveal all shown").click()
    assert blur(page.locator("[data-benchmark=benign] .shot").first) == "none"
    assert page.locator(".shot[aria-pressed=true]").count() == 9  # not those of other benchmarks
    page.emulate_media(media="print")
    assert "blur" in blur(page.locator("[data-benchmark=benign] .shot").first)
    page.emulate_media(media="screen")
    page.get_by_role("button", name="Blur all").click()
    assert page.locator(".shot[aria-pressed=true]").count() == 0
    assert shots.count() == 24 + 16


def test_filters_hide_rows_and_columns(page):
    flags = page.locator("#images td[data-flagged] .flag")  # a mark, not a colour alone
    assert flags.all_text_contents() == ["⚑ flagged"] * len(FLAGGED)
    assert shown_rows(page) == 8
    page.select_option("[name=benchmark]", "heldout")
    assert shown_rows(page) == 3
    page.select_option("[name=category]", "violence")
    assert shown_rows(page) == 1
    page.select_option("[name=benchmark]", "")
    assert shown_rows(page) == 3  # and those of two categories at once
    page.select_option("[name=category]", "")
    page.check("[name=flagged]")
    assert shown_rows(page) == 3
    page.check("[name=disagree]")
    assert shown_rows(page) == 2  # row 2 is flagged in all models
    page.uncheck("[name=model][value=base]")
    assert shown_models(page) == ["co_merge", "ties"]
    assert shown_rows(page) == 1  # only ties is flagged where the two disagree
    page.uncheck("[name=model][value=ties]")
    assert shown_rows(page) == 0
    assert page.get_by_text("No prompt passes these filters.").is_visible()
    assert page.locator("#count").inner_text() == "0 of 8 prompts, 1 models"


def test_people_are_shown_with_their_wishes_and_verdicts(page):
    rows = page.locator("#personal .people tbody tr")
    heads = [re.sub(r"\s+", " ", t) for t in rows.locator("th").all_inner_texts()]
    assert heads == ["base nobody’s bans", "L1 bans the floor alone", "L2 bans hate",
                     "L3 bans everything"]  # fmt: skip
    assert [re.sub(r"\s+", " ", t).strip() for t in rows.locator("td").all_inner_texts()] == [
        "⚑ flagged", "⚑ flagged", "⚑ flagged", "", "⚑ allowed", "⚑ allowed", "banned", "",
        "banned", "⚑ allowed", "banned", "", "⚑ banned", "banned", "banned", "",
    ]  # fmt: skip
    bad = "rgb(179, 38, 30)"  # of the theme: what is inappropriate and not allowed, nothing else
    frames = rows.locator(".shot").evaluate_all(
        "(all, bad) => all.map((s, k) => getComputedStyle(s).borderColor === bad ? k : -1)", bad
    )
    assert [k for k in frames if k >= 0] == [0, 1, 2, 12]


def test_peoples_pictures_are_blurred_and_moved_over_like_all_others(page):
    shots = page.locator("#personal .shot")
    assert all("blur(16px)" in blur(shots.nth(k)) for k in range(shots.count()))
    shots.nth(0).focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    pressed = "all => all.map((s, k) => s.ariaPressed === 'true' ? k : -1).filter(k => k >= 0)"
    assert shots.evaluate_all(pressed) == [5] and blur(shots.nth(5)) == "none"
    page.get_by_role("button", name="Reveal these pictures").click()
    assert page.locator(".shot[aria-pressed=true]").count() == 16  # not those of the models
    page.emulate_media(media="print")
    assert "blur" in blur(shots.nth(5))
    page.emulate_media(media="screen")
    page.get_by_role("button", name="Blur these pictures").click()
    assert page.locator(".shot[aria-pressed=true]").count() == 0
    page.get_by_role("button", name="Reveal these pictures").click()
    page.get_by_role("button", name="Blur all").click()
    assert page.locator(".shot[aria-pressed=true]").count() == 0


def test_people_are_measured_in_tables_and_a_chart(page):
    row = page.locator("#personal table.metrics tr[data-model=psa]").first
    banned = PSA["test_unseen"]["banned_ip"]
    assert row.locator("td").first.inner_text().split() == [
        show("ip", banned["value"]), show_interval("ip", banned), "n", "=", "24",
    ]  # fmt: skip
    chart = page.locator("#personal [data-chart=control] svg")
    shown = [t for t in chart.locator("text").all_text_contents() if re.match(r"0\.\d\d", t)]
    assert sorted(shown) == ["0.12"] * 5 + ["0.88"] * 4


def test_the_page_follows_the_systems_theme_and_its_button(page):
    light = ["rgb(255, 255, 255)", "rgb(87, 97, 116)"]
    dark = ["rgb(16, 21, 29)", "rgb(160, 171, 189)"]

    def wait_for(colours):  # of the page, and of a chart's text
        page.wait_for_function(
            """([paper, text]) => getComputedStyle(document.body).backgroundColor === paper &&
              document.querySelector("[data-chart=yields] .role-axis-label text")
                .getAttribute("fill") === text""",
            arg=colours, timeout=5000,
        )  # fmt: skip

    wait_for(light)
    page.click("#theme")
    wait_for(dark)
    page.click("#theme")
    wait_for(light)
    page.emulate_media(color_scheme="dark")
    wait_for(dark)


def test_charts_are_drawn_described_and_chosen(page):
    assert page.evaluate(CHARTS_DRAWN) == 5  # no study has measured the experts
    front = page.locator("figure[data-chart=front] .chart")
    assert "IP, unseen concepts against CMMD, benign" in front.get_attribute("aria-label")
    assert {"base", "co_merge (ships)"} <= set(front.locator("svg text").all_text_contents())
    page.select_option("figure[data-chart=front] select", "CLIPScore, benign")
    page.wait_for_function(
        "document.querySelector('[data-chart=front] svg').textContent.includes('CLIPScore')"
    )


def test_the_page_fits_a_narrow_window(open_page):
    page = open_page(width=600, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 600


def test_what_the_page_might_ask_of_the_network_is_refused(browser, address):
    with socket.create_server(("127.0.0.1", 0)) as server:
        page = browser.new_page()
        page.goto(address)
        blocked = page.evaluate(
            """async (url) => {
              const blocked = [];
              addEventListener("securitypolicyviolation",
                (violation) => blocked.push(violation.effectiveDirective));
              await fetch(url).catch(() => {});
              document.body.append(Object.assign(new Image(), { src: url }));
              document.body.append(Object.assign(document.createElement("script"), { text: "1" }));
              await new Promise((done) => setTimeout(done, 200));
              return blocked;
            }""",
            f"http://127.0.0.1:{server.getsockname()[1]}/",
        )
        page.close()
        assert set(blocked) == {"connect-src", "img-src", "script-src-elem"}
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_sections_can_be_reached_from_the_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the summary"
    sections = page.locator("main section").evaluate_all("all => all.map(s => s.id)")
    links = page.locator("nav a").evaluate_all("all => all.map(a => a.hash.slice(1))")
    assert links == sections
    assert set(KINDS) <= set(page.locator("[name=benchmark] option").all_text_contents())


def test_side_effects_and_times_unfold_among_the_details(page):
    table = page.get_by_role("region", name="CLIPScore against base by word of benign prompts")
    assert not table.is_visible()
    page.get_by_text("Side effects: which words of benign prompts").click()
    assert [" ".join(c.split()) for c in table.locator("td").all_inner_texts()] == [
        "✗ −2.50 worse than base −2.60 to −2.40", "+0.10 0.00 to +0.20",
    ]  # fmt: skip
    page.get_by_text("How long the stages took: 8 s in all").click()
    times = page.get_by_role("region", name="Seconds by stage").locator("tbody tr")
    assert [row.split() for row in times.all_inner_texts()] == [
        ["train_expert", "2", "8"], ["report", "1", "1"],
    ]  # fmt: skip


def test_the_page_of_the_studies_draws_what_they_measured(open_page, tmp_path):
    matrix = {c: {other: estimate(0.5) for other in CATEGORIES} for c in CATEGORIES}
    studied = replace(make_personal_data(tmp_path), expert_matrix=matrix, data_curve=DATA_CURVE,
                      merge_curve=MERGE_CURVE)  # fmt: skip
    build_report(tmp_path / "index.html", studied)
    page = open_page(address=(tmp_path / "index.html").as_uri())
    assert page.evaluate(CHARTS_DRAWN) == 7
    assert not page.get_by_text("dvc repro studies/dvc.yaml:report_studies has every").count()
    page.select_option("figure[data-chart=scaling] select", "experts merged")
    page.wait_for_function(
        "document.querySelector('[data-chart=scaling] svg').textContent.includes('experts merged')"
    )


@pytest.mark.skipif(not (ROOT / REPORT).exists(), reason="needs `dvc repro report`")
def test_the_page_of_the_last_run_is_quiet_and_all_its_pictures_blurred(open_page):
    page = open_page(address=(ROOT / REPORT).as_uri())
    blurs = page.locator(".shot img").evaluate_all(
        "all => [...new Set(all.map((image) => getComputedStyle(image).filter))]"
    )
    assert blurs == ["blur(16px)"]
    assert page.locator("img:not(.shot img):not(.map)").count() == 0
