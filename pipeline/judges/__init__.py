"""The classifiers that look at images: raw scores here, verdicts by named rules in ``rules``."""
