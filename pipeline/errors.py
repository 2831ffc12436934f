"""The error a user can act on."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, where, and what to do.

    Stages print it as one line, without a traceback, and exit with status 1.
    """
