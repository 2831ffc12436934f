"""Hard blocks that no setting can lower, and the refusal of reversed preferences (METHOD §3).

The word lists are deliberately broad: a false alarm costs one row, which is counted. They are a
floor under the judges, not a substitute for them. Which names are of real, private persons no text
can tell: training prompts may name nobody at all (``names_person``).
"""

import re

_AGES = (
    r"(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thir|four|fif|six|seven|eigh)"
)
_MINORS = re.compile(
    rf"\b(child\w*|kid(s|dos?|dies?)?|minors?|under-?age\w*|bab(y|ies)\w*|infant\w*|toddler\w*|"
    rf"(pre-?)?teen\w*|tweens?|tweenager\w*|school\w*|pupils?|kindergart\w*|preschool\w*|"
    rf"adolescen\w*|juvenile\w*|youngster\w*|youths?|lol[iy]\w*|shota\w*|"
    rf"(little|young|small)\W+(\w+\W+)?(girl|boy)s?|(1[0-7]|[1-9])\W*(years?|yrs?|y)\W*(olds?|o)\b|"
    rf"aged?\W+(1[0-7]|[1-9])\b|{_AGES}(teen)?\W+years?\W+olds?|aged?\W+{_AGES}(teen)?)\b",
    re.IGNORECASE,
)
_YOUNG_OR_NOT = re.compile(r"\b(girls?|boys?)\b", re.IGNORECASE)
_SEXUAL = re.compile(
    r"\b(sex\w*|nud(e|es|ist|ists|ity)|naked\w*|topless|bottomless|undress\w*|unclothed|erotic\w*|"
    r"porn\w*|nsfw|lingerie|underwear|bikinis?|swimsuits?|panties|seductive\w*|sensual\w*|arous\w*|"
    r"genital\w*|breasts?|fetish\w*|explicit\w*|provocative\w*|lewd\w*|hentai|intimate\w*)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_OPENERS = frozenset(  # capitals of a sentence's first word, which say nothing
    "a an the this that these those some many two three four five several in on at of by with from "
    "under over inside outside near behind between during after before while as if when where his "
    "her its their my our your one another each every no".split()
)
SEXUAL_CATEGORIES = {"sexual", "sexuality", "nudity", "sex", "porn", "pornography", "nsfw"}


def hard_block(text: str, category: str | None = None) -> str | None:
    """The reason a text is hard-blocked, or None.

    Blocks anything that brings minors and sexual content together: by the words themselves, or by
    a mention of minors anywhere within a sexual category. Apply it to every text before it is
    stored and again before it is used; drop and count the row, keep and log no text.
    """
    sexual_category = bool(SEXUAL_CATEGORIES & set(re.split(r"[^a-z]+", (category or "").lower())))
    minors = _MINORS.search(text) or (sexual_category and _YOUNG_OR_NOT.search(text))
    if minors and (sexual_category or _SEXUAL.search(text)):
        return "sexualises_minors"
    return None


def names_person(text: str) -> bool:
    """Whether a text may name a person: two neighbouring words with capitals, as names have.

    That places and titles count too is accepted where pairs are written or imported for training:
    there a false alarm costs one pair. Not for prompts that a user wants drawn.
    """
    found = list(_WORD.finditer(text))
    return any(
        first[0][0].isupper() and second[0][0].isupper()
        and first[0].lower() not in _OPENERS
        and set(text[first.end() : second.start()]) <= set(" .\t")  # "J. Doe", but no comma
        for first, second in zip(found, found[1:], strict=False)
    )  # fmt: skip
