"""Hard blocks that no setting can lower, and the refusal of reversed preferences (METHOD §3).

The word lists are deliberately broad: a false alarm costs one row, which is counted. They are a
floor under the judges, not a substitute for them. Which names are of real, private persons no text
can tell: training prompts may name nobody at all (``names_person``).
"""

import re
import unicodedata


def _any_of(*patterns: str) -> re.Pattern[str]:
    """Any of the patterns, given apart by blanks, as whole words of a text in lower case."""
    return re.compile(rf"\b(?:{'|'.join(' '.join(patterns).split())})\b")


_AGE = r"(?:1[0-7]|[1-9])"
_AGE_WORD = (
    "(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    "(?:thir|four|fif|six|seven|eigh|nine)teen)"
)
# each of these says both: minors, and what is done to them
_BOTH = (
    r"p(?:ae|æ|e)do(?:s|phil\w*|sex\w*)? p(?:ae|æ|e)derast\w* hebephil\w* ephebophil\w* csam csem "
    r"statutory\W+rap\w+"
)
_MINORS = _any_of(
    _BOTH,
    r"child\w* kid(?:s|do\w*|dy|dies?)? minors? under\W?age\w* bab(?:y|ies)\w* infant\w*",
    r"new\W?borns? toddler\w* (?:pre)?teen\w* tweens? tweenager\w* school\w* pupils? graders?",
    r"kindergart\w* preschool\w* adolescen\w* juvenile\w* youngster\w* youths? youthful orphan\w*",
    r"(?:pre)?pubescen\w* (?:pre)?pubert\w* lol[iy]\w* shota\w*",
    # not always young, but nobody can tell: they count like the others
    r"girl(?:s|y|ish|ie|ies|hood)? boy(?:s|ish|hood)? lads? lass(?:es|ies?)?",
    r"(?:step|grand)?(?:daughter|son)s? nieces? nephews?",
    r"(?:little|young)\W+(?:ones?|people|persons?|students?)",
    # ages
    rf"{_AGE}\W*(?:years?|yrs?|y)\W*(?:olds?|o|of\W+age) {_AGE_WORD}\W+years?\W+(?:olds?|of\W+age)",
    r"\d+\W*(?:days?|weeks?|months?)\W*olds?",
    rf"aged?\W+(?:of\W+)?(?:{_AGE}|{_AGE_WORD})",
    r"(?:under|below|younger\W+than)\W+(?:the\W+)?(?:age\W+of\W+)?(?:1[0-8]s?|\w+teens?)",
)
_SEXUAL = _any_of(
    _BOTH,
    # undressed, and what little is worn
    r"nud(?:e|es|is[mt]|ists|ity) naked\w* topless bottomless shirtless undress\w* unclothed",
    r"disrob\w* bare\W?(?:breast|chest|bottom)\w* skinny\W?dip\w* strip(?:tease\w*|pers?|ping|ped)",
    r"(?:no|without|off)\W+(?:\w+\W+)?cloth(?:es|ing) lingerie underwear bikinis? swimsuits?",
    r"swimwear bathing\W?suits? panties bras? thongs? negligees? upskirt\w*",
    # kinds of content
    r"(?:hyper)?sex\w* (?:homo)?erotic\w* porn\w* nsfw hentai explicit\w* x\W?rated lewd\w*",
    r"obscen\w* indecen\w* adult\W+(?:content|entertainment|films?|movies?|videos?|sites?)",
    r"seduc\w* sensual\w* arous\w* fetish\w* provocative\w* suggestive\w* intima(?:te\w*|cy)",
    r"lust(?:s|y|ed|ing|ful\w*)? voyeur\w* pervers\w* pervert\w* bondage bdsm",
    # the body, and acts
    r"genital\w* breasts? nipples? buttocks? crotch\w* groins? penis\w* vagina\w* vulva\w* semen",
    r"intercourse copulat\w* fornicat\w* masturbat\w* orgasm\w* org(?:y|ies) ejaculat\w*",
    r"coit(?:us|al) fellatio cunnilingus sodom\w* foreplay fondl\w* grop(?:es?|ed|ing)",
    # abuse
    r"rap(?:es?|ed|ing|ists?) molest\w* incest\w* abus\w* exploit\w* traffick\w* predators?",
    r"groom(?:ed|ers?|ing) prostitut\w* brothel\w*",
)
# how the names of such categories begin: "sexually-explicit", "erotica", "adult_content"
SEXUAL_CATEGORIES = ("sex", "porn", "erotic", "adult", "explicit", "nud", "nsfw")
_SEXUAL_CATEGORY = re.compile(rf"(?<![a-z])(?:{'|'.join(SEXUAL_CATEGORIES)})")
_OTHER = re.compile(r"[^ -~]")  # than printable ASCII
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_OPENERS = frozenset(  # capitals of a sentence's first word, which say nothing
    "a an the this that these those some many two three four five several in on at of by with from "
    "under over inside outside near behind between during after before while as if when where his "
    "her its their my our your one another each every no".split()
)


def hard_block(text: str, category: str | None = None) -> str | None:
    """The reason a text is hard-blocked, or None.

    Blocks anything that brings minors and sexual content or abuse together: by the words
    themselves, or by a mention of minors anywhere within a sexual category; a category's name is
    read like the text. ``category`` may be several names, joined by '+'. Apply it to every text
    before it is stored and again before it is used; drop and count the row, keep and log no text.
    """
    words = _plain(f"{category}: {text}" if category else text).lower()
    if _MINORS.search(words) is None:
        return None
    sexual = _SEXUAL_CATEGORY.search(_plain(category or "").lower()) or _SEXUAL.search(words)
    return "sexualises_minors" if sexual else None


def names_person(text: str) -> bool:
    """Whether a text may name a person: two neighbouring words with capitals, as names have.

    That places and titles count too is accepted where pairs are written or imported for training:
    there a false alarm costs one pair. Not for prompts that a user wants drawn.
    """
    text = _plain(text)
    found = list(_WORD.finditer(text))
    for first, second in zip(found, found[1:], strict=False):
        between = text[first.end() : second.start()]
        if (
            first[0][0].isupper() and second[0][0].isupper()
            and set(between) <= set(" .\t")  # "J. Doe", but no comma
            and (first[0].lower() not in _OPENERS or "." in between)  # "A. Doe"
        ):  # fmt: skip
            return True
    return False


def _plain(text: str) -> str:
    """The text in plain letters: no widths, accents, joints or characters that do not show."""
    text = unicodedata.normalize("NFKD", text).replace("_", " ")
    joined = _OTHER.sub(lambda c: _shown(c[0], ""), text)
    spaced = _OTHER.sub(lambda c: _shown(c[0], " "), text)
    # what does not show may stand within a word, or part two
    return joined if joined == spaced else f"{joined} | {spaced}"


def _shown(character: str, hidden: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cf" or (kind == "Cc" and not character.isspace()):
        return hidden
    return "" if kind.startswith("M") else character
