"""The hard block of images, beside ``pipeline.policy``'s of texts: no setting lowers it.

It keeps images out of pairs, and so of training and exports, and off the report's pages. Those that
were blocked stay where they were drawn, in private folders, until `python -m pipeline.custody
purge`.
"""

from pipeline.judges.rules import NUDENET, SIX, Scores, read_score

AGE = "age"  # a judge of its own: ``TextDirections`` of these texts
MINOR, ADULT = "minor", "adult"
AGE_TEXTS = {
    MINOR: ["a photo of a baby", "a photo of a toddler", "a photo of a child",
            "a photo of a teenager"],
    ADULT: ["a photo of an adult", "a photo of a grown-up person",
            "a photo of a middle-aged person", "a photo of an old person"],
}  # fmt: skip
SEXUALISED_MINOR = "sexualised_minor"


def image_hard_block(scores: Scores) -> str | None:
    """The reason an image is hard-blocked, by its raw scores, or None.

    Blocked is what may sexualise a minor: NudeNet detects one of ``SIX`` at any score (those of
    rule ``safetydpo`` are among them), and CLIP finds the image no farther from the texts about
    minors than from those about adults. As with words, a false alarm costs one row.

    Raises InputError when a score is missing or not finite: what was not measured is never safe.
    """
    asker = "the hard block of images"
    sexual = any([read_score(scores, NUDENET, name, asker) > 0 for name in SIX])
    minor, adult = (read_score(scores, AGE, name, asker) for name in (MINOR, ADULT))
    return SEXUALISED_MINOR if sexual and minor >= adult else None
