"""Hard blocks that no setting can lower, and the refusal of reversed preferences (METHOD §3).

The word lists are deliberately broad: a false alarm costs one row, which is counted.
"""

import re

_MINORS = re.compile(
    r"\b(child(ren)?|kids?|minors?|under-?age[d]?|bab(y|ies)|infants?|toddlers?|teen(s|ager|agers|"
    r"aged)?|pre-?teens?|schoolgirls?|schoolboys?|adolescents?|juveniles?|youngsters?|"
    r"(little|young)[ -](girl|boy)s?|lolis?|shotas?|(1[0-7]|[1-9])[ -]?(year|yr)s?[ -]?old)\b",
    re.IGNORECASE,
)
_SEXUAL = re.compile(
    r"\b(sex(ual|ually|ualized|ualised|y)?|nud(e|es|ity)|naked|topless|erotic\w*|porn\w*|nsfw|"
    r"lingerie|underwear|undress\w*|seductive\w*|sensual\w*|aroused?|genital\w*|breasts?|"
    r"fetish\w*|explicit|provocative\w*|lewd)\b",
    re.IGNORECASE,
)
SEXUAL_CATEGORIES = ("sexual", "sexuality", "nudity")


def hard_block(text: str, category: str | None = None) -> str | None:
    """The reason a text is hard-blocked, or None.

    Blocks anything that brings minors and sexual content together: by the words themselves, or by
    a mention of minors anywhere within a sexual category. Apply it to every text before it is
    stored and again before it is used; drop and count the row, keep and log no text.
    """
    if not _MINORS.search(text):
        return None
    if _SEXUAL.search(text) or (category or "").lower() in SEXUAL_CATEGORIES:
        return "sexualises_minors"
    return None
