"""Progress bars on stderr: lively on a terminal, a line now and then in a log."""

import os
import sys

from tqdm import tqdm


def progress_bar(total: int, what: str, unit: str, initial: int = 0) -> tqdm:
    """A bar that counts ``total`` units of work; use it as a context manager.

    Of several processes that do one thing together the first shows its own.
    """
    lively = sys.stderr.isatty()
    return tqdm(
        total=total, desc=what, unit=unit, initial=initial, mininterval=0.2 if lively else 15,
        maxinterval=15, dynamic_ncols=lively, disable=os.environ.get("RANK", "0") != "0",
    )  # fmt: skip
