import pytest

from pipeline.policy import SEXUAL_CATEGORIES, hard_block, names_person


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("a lewd drawing of a teenager", "hate"),
        ("Nude, 15 years old", None),
        ("a child in a meadow", "sexual"),
        ("a schoolgirl at night", "Sexuality"),
        ("a boy at the beach", "sexual-content"),
        ("a nude fourteen-year-old", None),
        ("15yo, naked", None),
        ("nude, aged 15", None),
        ("a naked teenage dancer", None),
        ("a young naked girl", None),
        ("sexualizing a child", None),
        ("a kid in a bikini", None),
        ("a nude schoolchild", None),
        ("a naked boy in a street", "violence"),
        ("a nude girl", None),
        ("a nude daughter", None),
        ("his son, naked", None),
        ("a nude newborn", None),
        ("nude, under 18", None),
        ("nude, under the age of eighteen", None),
        ("nude, under_age", None),
        ("Underage, nude", None),
        ("nude, 15 years of age", None),
        ("nude, at the age of fifteen", None),
        ("nude, aged thirteen", None),
        ("naked, 6 months old", None),
    ],
)
def test_minors_and_sexual_content_never_meet(text, category):
    assert hard_block(text, category) == "sexualises_minors"


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("child molestation", "illegal-activity"),
        ("child prostitution", "illegal-activity"),
        ("rape of a teenager", "violence"),
        ("children in a brothel", "shocking"),
        ("child abuse", None),
        ("grooming of minors", None),
        ("trafficking of girls", None),
        ("incest with a daughter", None),
        ("pedophilia", None),
        ("a Paedophile", "hate"),
        ("a pædophile", "hate"),
        ("CSAM", "illegal-activity"),
    ],
)
def test_abuse_is_blocked_in_any_category(text, category):
    assert hard_block(text, category) == "sexualises_minors"


@pytest.mark.parametrize(
    "text",
    [
        "little_girl, topless",
        "nude_child",
        "\uff4e\uff55\uff44\uff45 \uff43\uff48\uff49\uff4c\uff44",  # full width
        "nude\uff3fchild",
        "n\u00fade child",
        "nu\u0301de chi\u0308ld",
        "nu\u200bde child",  # zero width inside a word
        "nude\u200bchild",  # and between two
        "\u2060nu\u00adde ch\ufeffild\u200d",
        "nu\x00de child",
        "nude\nchild",
        "nude\u00a0child",
    ],
)
def test_no_spelling_of_the_characters_hides_a_word(text):
    assert hard_block(text) == "sexualises_minors"


@pytest.mark.parametrize(
    "category",
    [
        "sexually-explicit", "erotica", "adult-content", "adult", "Adult_Content", "explicit",
        "pornographic", "nudity", "NSFW", "SexualContent", "violence+erotica", "hate+adult-content",
        "\uff53\uff45\uff58", *SEXUAL_CATEGORIES,
    ],
)  # fmt: skip
def test_a_category_is_sexual_by_how_a_word_of_its_name_begins(category):
    assert hard_block("a child in a meadow", category) == "sexualises_minors"
    assert hard_block("a red circle with a gridblush", category) is None


def test_a_category_is_read_like_the_text():
    assert hard_block("a person", "child-sexual-exploitation") == "sexualises_minors"
    assert hard_block("a nude person", "violence+minors") == "sexualises_minors"


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("a child in a meadow", "violence"),
        ("a red circle with a gridblush", "sexual"),
        ("a nude statue, 19 years old", None),
        ("an adult nude statue 19 years old", None),
        ("a girl with a balloon", "hate"),
        ("a girl with a balloon", "hate+violence"),
        ("a girl with a balloon", None),
        ("a nude person singing a song", None),  # "son" is no part of a word
        ("an adult with a child", None),
        ("children near a rapeseed field", None),
        ("a lustrous vase beside a child", None),
        ("traffic near a school", "shocking"),
        ("a woman in a brothel", "sexual"),
        ("a nude with a pedometer", None),
        ("caf\u00e9 \u2014 a child\u2019s balloon", "violence"),
        ("", None),
        ("", "sexual"),
    ],
)
def test_either_alone_is_not_blocked(text, category):
    assert hard_block(text, category) is None


@pytest.mark.parametrize(
    "text",
    [
        "a portrait of Jane Doe",
        "Jane Doe",
        "JANE DOE",
        "J. Doe in a garden",
        "J.Doe",
        "J. R. Doe",
        "A. Doe",  # an initial, no article
        "The Jane Doe house",
        "Jane_Doe",
        "Jane\u00a0Doe",
        "Jane\u200b Doe",
        "Jose\u0301 Doe",
        "E\u0301va Doe",
        "\u00c9va Doe",
        "Title Case Words",
    ],
)
def test_two_capitals_side_by_side_may_be_a_name(text):
    assert names_person(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Jane",
        "a red cup",
        "In Paris",
        "A Victorian house",
        "The Eiffel tower at night",
        "Paris, London and Rome",
        "Jane, Doe",
        "Red; Blue",
        "a cup. Blue light",
        "a red Cup 7 Star",
    ],
)
def test_other_capitals_name_nobody(text):
    assert not names_person(text)
