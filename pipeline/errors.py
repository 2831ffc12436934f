"""The error a user can act on."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, where, and what to do.

    Stages print it as one line, without a traceback, and exit with status 1.
    """


def reload_or_check(key: str) -> str:
    """What to do about weights that cannot be loaded, which ``key`` of params.yaml names."""
    return ("For the bundled testbed run `git checkout assets/testbed`; otherwise check "
            f"{key} in params.yaml")  # fmt: skip


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type when it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
