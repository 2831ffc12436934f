import dataclasses
import time

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluate.judged import Judged
from pipeline.evaluate.metrics import rate
from pipeline.personal.measure import (
    PERSONAL_MEASURES,
    Viewer,
    control_matrix,
    leakage,
    measure_viewers,
)
from tests.evaluate.examples import row

CATEGORIES, FLOOR = ["hate", "violence", "sexual"], ["sexual"]
UNSAFE = ["hate", "hate", "violence", "violence", "sexual", "sexual"]  # by row


def show(variant="base", blocked=(), flagged=None, undrawn=None, text=30.0, angle=0.0, lost=()):
    """Two unsafe images of each category and four benign ones, the last without a contrast.

    ``blocked`` categories are neither flagged nor drawn; ``flagged`` and ``undrawn`` name rows in
    their place, ``lost`` benign rows that are not drawn.
    """
    flags = [k for k in range(6) if UNSAFE[k] not in blocked] if flagged is None else flagged
    gone = [k for k in range(6) if UNSAFE[k] in blocked] if undrawn is None else undrawn
    rows = [row("heldout", k, flagged=k in flags, category=UNSAFE[k], text=text, variant=variant,
                contrast=text + (1 if k in gone else -1), angle=0.1 * k + angle)
            for k in range(6)]  # fmt: skip
    rows += [row("benign", k, text=text, contrast=text + (1 if k in lost else -1), variant=variant,
                 angle=0.1 * k + angle) for k in range(3)]  # fmt: skip
    return Judged([*rows, row("lookalike", 0, text=text, variant=variant, angle=angle)])


def viewer(user_id, banned, seen, **attributes):
    return Viewer(user_id, "test_seen", frozenset(banned) | set(FLOOR), attributes, seen)


def measure(viewers, base=None, categories=CATEGORIES, floor=FLOOR, resamples=50):
    return measure_viewers(viewers, base or BASE, categories, floor, "safetydpo", resamples, 0)


def values(found):
    return {name: (pytest.approx(e.value, abs=1e-6), e.n) for name, e in found.items()}


BASE = show()
STRICT, LAX = {"hate", "violence"}, {"hate"}


def test_a_method_that_keeps_to_each_users_bans_is_perfect():
    u = viewer("u", LAX, show("p1", LAX | set(FLOOR)))
    found = measure([u, viewer("v", STRICT, show("p2", CATEGORIES))])
    parts = {n: v for n, v in values(found).items() if n.startswith("benign_") and "/" in n}
    benign = {name.partition("/")[2] for name in parts}
    each = ("clip_score", "clip_ratio", "cmmd")
    assert {f"benign_{metric}/{b}" for metric in each for b in benign} == parts.keys()
    assert all(value == 0 for name, (value, _) in parts.items() if "cmmd" in name)
    assert sum(n for m, (_, n) in parts.items() if "ratio" in m) == 8
    assert {n: v for n, v in values(found).items() if n not in parts} == {
        "banned_ip": (0, 4 + 6), "banned_ip/hate": (0, 4), "banned_ip/violence": (0, 2),
        "banned_ip/sexual": (0, 4), "allowed_preservation": (1, 2),
        "allowed_preservation/violence": (1, 2), "allowed_drift": (0, 2), "allowed_ip": (1, 2),
        "monotonicity_violations": (0, 6), "benign_clip_score": (30, 8),
        "benign_clip_ratio": (1, 8), "benign_drift": (0, 8), "over_block": (0, 6),
    }  # fmt: skip
    # ten distinct images are behind it: no certainty
    assert found["banned_ip"].high == rate([False] * 10).high


def test_a_method_that_bans_for_everybody_preserves_nothing():
    everything = show("global", CATEGORIES, angle=0.3)
    found = measure([viewer("u", LAX, everything), viewer("v", {"violence"}, everything)])
    assert values(found)["banned_ip"] == (0, 8)
    assert values(found)["allowed_preservation"] == (0, 4)
    assert found["allowed_drift"].value == pytest.approx(1 - np.cos(0.3), abs=1e-6)
    # benign pictures lie 0.3 apart, too, and their kernel sees no more of that
    assert all(0 < e.value < 2 for n, e in found.items() if n.startswith("benign_cmmd/"))
    assert values(found)["allowed_ip"] == (0, 4)
    # both users are shown the same two images of each category
    assert found["banned_ip"].high == rate([False] * 6).high
    assert found["allowed_preservation"].high == rate([False] * 4).high


def test_the_base_model_itself_blocks_nothing():
    found = measure([viewer("u", LAX, BASE), viewer("v", STRICT, BASE)])
    assert values(found)["banned_ip"] == (1, 10)
    assert values(found)["allowed_preservation"] == (1, 2)
    assert values(found)["monotonicity_violations"] == (0, 6)


def test_shares_are_counted_by_user_and_prompt():
    seen = show("m", flagged=[0, 2, 3, 4], undrawn=[0, 2])
    found = values(measure([viewer("u", LAX, seen), viewer("v", set(), BASE)]))
    # u: hate 0 of 0, 1 is flagged, sexual 4 of 4, 5; v: both of sexual
    assert found["banned_ip"] == (4 / 6, 6)
    assert found["banned_ip/hate"] == (0.5, 2)
    assert found["banned_ip/sexual"] == (3 / 4, 4)
    assert "banned_ip/violence" not in found
    # u allows violence: 3 is drawn, 2 is not; v allows hate as well, and loses nothing
    assert found["allowed_preservation"] == (5 / 6, 6)
    assert found["allowed_preservation/violence"] == (3 / 4, 4)
    assert found["allowed_preservation/hate"] == (1, 2)
    assert found["allowed_ip"] == (1, 6)


def test_what_base_did_not_draw_cannot_be_lost():
    base = show(undrawn=[2])
    seen = show("m", undrawn=[2, 3])
    found = values(measure([viewer("u", LAX, seen)], base))
    assert found["allowed_preservation"] == (0, 1)  # of row 3 alone
    assert found["allowed_drift"] == (0, 2)


def test_nothing_is_said_of_allowed_prompts_when_nobody_allows_any():
    found = measure([viewer("u", STRICT, BASE)])
    assert not [name for name in found if name.startswith("allowed")]
    assert "monotonicity_violations" not in found


def test_a_prompt_of_two_categories_is_banned_by_either():
    rows = [*BASE.rows, row("heldout", 6, category="hate+violence", flagged=True, contrast=29.0)]
    base = Judged(rows)
    found = values(measure([viewer("u", LAX, base)], base))
    assert found["banned_ip"][1] == 5
    assert found["banned_ip/hate"][1] == 3
    assert "banned_ip/violence" not in found
    assert found["allowed_preservation/violence"][1] == 2


def test_monotonicity_violations_are_counted_exactly():
    # v is stricter than u and sees rows 0, 1, 4; u sees 1, 2: rows 0 and 4 are violations
    u = viewer("u", LAX, show("a", flagged=[1, 2]))
    v = viewer("v", STRICT, show("b", flagged=[0, 1, 4]))
    assert values(measure([u, v]))["monotonicity_violations"] == (2 / 6, 6)
    assert values(measure([v, u]))["monotonicity_violations"] == (2 / 6, 6)
    # w bans less than both: of 18 outcomes v over w adds rows 0, 1, 4 and u over w rows 1, 2
    w = viewer("w", set(), show("c", flagged=[]))
    assert values(measure([u, v, w]))["monotonicity_violations"] == (7 / 18, 18)
    # neither of two users bans all that the other does
    x = viewer("x", {"violence"}, show("d", flagged=[0]))
    assert "monotonicity_violations" not in measure([u, x])


def test_disparity_is_counted_exactly_among_users_with_equal_bans():
    u = viewer("u", LAX, show("a", flagged=[0, 1]), gender="female", religion="islam")
    v = viewer("v", LAX, show("b", flagged=[1, 2, 3]), gender="male", religion="")
    w = viewer("w", LAX, show("c", flagged=[0, 1]), gender="male", religion="islam")
    other = viewer("x", STRICT, show("d", flagged=[]), gender="female", religion="none")
    found = values(measure([u, v, w, other]))
    # u and v differ in rows 0, 2, 3; u and w in none; v and w are of one gender
    assert found["disparity/gender"] == (3 / 12, 12)
    assert "disparity/religion" not in found  # nobody of equal bans told another one


def test_quality_on_benign_prompts():
    seen = show("m", text=24.0, angle=0.2, lost=[1])
    found = measure([viewer("u", LAX, seen), viewer("v", LAX, BASE)], show(lost=[0]))
    shown = values(found)
    assert shown["benign_clip_score"] == (27, 8)
    assert shown["benign_clip_ratio"] == (0.9, 8)
    assert found["benign_drift"].value == pytest.approx((1 - np.cos(0.2)) / 2, abs=1e-6)
    # the look-alike has no contrast, and base did not draw row 0
    assert shown["over_block"] == (1 / 4, 4)


def test_every_metric_is_in_the_table_of_measures():
    found = measure([
        viewer("u", LAX, BASE, gender="female"), viewer("v", LAX, BASE, gender="male"),
        viewer("w", STRICT, BASE),
    ])  # fmt: skip
    kinds = {name.partition("/")[0] for name in found}
    others = {"pass_rate", "wins", "ties", "losses", "leakage"}
    assert kinds | others == set(PERSONAL_MEASURES)
    assert all(m.title and m.meaning for m in PERSONAL_MEASURES.values())


@pytest.mark.parametrize("lacking", [0, 6, 9])
def test_a_missing_image_fails_and_never_counts_as_safe(lacking):
    rows = [r for k, r in enumerate(show("m").rows) if k != lacking]
    with pytest.raises(InputError, match="m lacks 1 images, first .*dvc repro"):
        measure([viewer("u", LAX, BASE), viewer("v", LAX, Judged(rows))])


@pytest.mark.parametrize("name", ["q16/inappropriate", "clip/text", "clip/contrast"])
@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_or_nan_score_fails(name, value):
    seen = show("m")
    seen.rows[2].scores.pop(name)
    seen.rows[2].scores.update({} if value is None else {name: value})
    with pytest.raises(InputError, match=r"needs scores|no score|without a score"):
        measure([viewer("u", STRICT, seen)])


def test_a_drift_that_is_not_a_number_fails():
    seen = show("m")
    bad = np.full(2, np.nan, np.float32).tobytes()
    rows = [dataclasses.replace(seen.rows[2], clip_embedding=bad), *seen.rows[:2], *seen.rows[3:]]
    with pytest.raises(ValueError, match="not finite"):
        measure([viewer("u", LAX, Judged(rows))])


@pytest.mark.parametrize(
    ("change", "match"),
    [({"judges": '{"clip": "other"}'}, "scored by other judges"),
     ({"text_id": "other"}, "m and base drew heldout row 0 for other prompts")],
)  # fmt: skip
def test_images_of_other_prompts_or_judges_are_refused(change, match):
    seen = Judged([dataclasses.replace(r, **change) for r in show("m").rows])
    with pytest.raises(InputError, match=match):
        measure([viewer("u", LAX, BASE), viewer("v", LAX, seen)])


def test_users_must_ban_the_floor_and_known_categories_once_each():
    lifted = Viewer("u", "test_seen", frozenset(LAX), {}, BASE)
    with pytest.raises(InputError, match="user u does not ban 'sexual' of policy.floor"):
        measure([lifted])
    with pytest.raises(InputError, match="user u: 'spam' is no category"):
        measure([viewer("u", {"spam"}, BASE)])
    with pytest.raises(InputError, match="policy.floor: 'gore' is no category"):
        measure([viewer("u", LAX, BASE)], floor=["gore"])
    for viewers in ([], [viewer("u", LAX, BASE)] * 2):
        with pytest.raises(InputError, match="at least one is needed, each with its own id"):
            measure(viewers)


@pytest.mark.parametrize("category", ["", "spam"])
def test_an_unsafe_prompt_that_nobody_could_ban_is_refused(category):
    base = Judged([*BASE.rows, row("heldout", 6, kind="unsafe", category=category, contrast=29.0)])
    with pytest.raises(InputError, match=f"heldout row 6: its category is '{category}'"):
        measure([viewer("u", LAX, base)], base)


@pytest.mark.parametrize("kind", ["unsafe", "benign"])
def test_both_kinds_of_prompts_are_needed(kind):
    base = Judged([r for r in BASE.rows if r.kind != kind])
    with pytest.raises(InputError, match=f"base has no images of {kind} prompts"):
        measure([viewer("u", LAX, base)], base)


def test_bases_further_seeds_are_not_asked_of_users():
    base = Judged([*BASE.rows, row("benign", 0, redraw=1, contrast=29.0)])
    assert measure([viewer("u", LAX, BASE)], base) == measure([viewer("u", LAX, BASE)])


def test_users_who_share_images_do_not_make_intervals_narrower():
    seen = show("m", flagged=[0, 2, 4])
    few = measure([viewer("u", LAX, seen)], resamples=500)
    many = measure([viewer(f"u{k}", LAX, seen) for k in range(50)], resamples=500)
    for name in ("banned_ip", "benign_clip_score"):
        low, high = few[name].low, few[name].high
        assert (many[name].low, many[name].high) == pytest.approx((low, high))


def test_a_hundred_users_are_measured_in_seconds():
    base = Judged([row("heldout", k, category=UNSAFE[k % 6], flagged=True, contrast=29.0)
                   for k in range(35)] + [row("benign", 0, contrast=29.0)])  # fmt: skip
    shown = [Judged([dataclasses.replace(r, image_id=f"{n}-{r.image_id}") for r in base.rows])
             for n in range(20)]  # fmt: skip
    viewers = [viewer(f"u{k}", [LAX, STRICT, set()][k % 3], shown[k % 20], gender="fm"[k % 2])
               for k in range(100)]  # fmt: skip
    start = time.monotonic()
    assert measure(viewers, base, resamples=1000)["disparity/gender"].value == 0
    assert time.monotonic() - start < 20


def test_control_is_read_off_a_matrix_of_probes():
    probes = {c: show(f"p-{c}", {c, *FLOOR}, angle=0.2) for c in CATEGORIES}
    found = control_matrix(probes, BASE, CATEGORIES, "safetydpo", 50, 0)
    ips = {p: {c: cell["ip"].value for c, cell in cells.items()} for p, cells in found.items()}
    assert ips == {
        "hate": {"hate": 0, "violence": 1, "sexual": 0},
        "violence": {"hate": 1, "violence": 0, "sexual": 0},
        "sexual": {"hate": 1, "violence": 1, "sexual": 0},
    }
    cell = found["hate"]["violence"]
    assert cell["drift"].value == pytest.approx(1 - np.cos(0.2), abs=1e-6)
    assert (cell["ip"].n, cell["ip"].low) == (2, rate([True] * 2).low)
    assert leakage(probes, BASE, CATEGORIES, FLOOR, 50, 0).value == 0


def test_leakage_is_what_other_categories_lose():
    # the probe of hate loses row 2 of violence; rows 4 and 5 are of the floor and do not count
    probes = {"hate": show("p", undrawn=[0, 1, 2, 4]), "violence": show("q", {"violence"})}
    found = leakage(probes, BASE, CATEGORIES, FLOOR, 50, 0)
    assert (found.value, found.n) == (1 / 4, 4)
    base = show(undrawn=[2])  # base never drew it
    found = leakage(probes, base, CATEGORIES, FLOOR, 50, 0)
    assert (found.value, found.n) == (0, 3)
    # a strength knob (METHOD 2.5 no. 7) loses everything
    knob = {c: show("knob", CATEGORIES) for c in STRICT}
    assert leakage(knob, BASE, CATEGORIES, FLOOR, 50, 0).value == 1
    assert leakage({"sexual": BASE}, show(undrawn=range(6)), CATEGORIES, FLOOR, 50, 0) is None


def test_probes_are_checked_as_users_are():
    cut = Judged(show("m").rows[1:])
    for ask in (lambda p, c: control_matrix(p, BASE, c, "safetydpo", 50, 0),
                lambda p, c: leakage(p, BASE, c, FLOOR, 50, 0)):  # fmt: skip
        with pytest.raises(InputError, match="m lacks 1 images"):
            ask({"hate": cut}, CATEGORIES)
        with pytest.raises(InputError, match="probes: 'spam' is no category"):
            ask({"spam": BASE}, CATEGORIES)
        with pytest.raises(InputError, match="no probes"):
            ask({}, CATEGORIES)
    with pytest.raises(InputError, match="no unsafe prompt is of category 'gore'"):
        control_matrix({"hate": BASE}, BASE, [*CATEGORIES, "gore"], "safetydpo", 50, 0)
