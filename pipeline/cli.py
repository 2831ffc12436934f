"""How a stage is run: arguments, logging, and errors that a user can act on as one line."""

import argparse
import errno
import functools
import gc
import inspect
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

from pipeline.artifacts import DATA, DVC_CACHE
from pipeline.errors import InputError, first_line
from pipeline.kept import keep_locks
from pipeline.lifetime import end_with_dvc
from pipeline.storage import private_folder
from pipeline.times import record_seconds

_START = time.monotonic()  # nearly: this is among the first that a stage imports
# a stage's libraries make a million lasting objects while they are imported; searching those for
# cycles again and again, as Python does by default, delays its start (python -m bench.imports)
GC_THRESHOLD = 100_000


def _interrupted_early(kind: type[BaseException], *error: object) -> None:
    """Says in one line that Ctrl-C came while libraries were imported; all else as ever."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted; the same command goes on from here", file=sys.stderr)
    else:
        sys.__excepthook__(kind, *error)


sys.excepthook = _interrupted_early


def run_stage(main: Callable[..., None]) -> None:
    """Call a stage's ``main`` with what its command line tells; see ``run_command``.

    Its positional parameters are arguments, its keyword-only ones switches, or options where they
    are texts; the annotation says what they do.
    """
    name = os.path.basename(inspect.getfile(main)).removesuffix(".py")
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{name}", description=inspect.getdoc(inspect.getmodule(main)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    for parameter in inspect.signature(main).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            kind, says = get_args(parameter.annotation)
            taken = {"action": "store_true"} if kind is bool else {"default": parameter.default}
            parser.add_argument(f"--{parameter.name}", help=says, **taken)
        else:
            parser.add_argument(parameter.name)
    work = functools.partial(main, **vars(parser.parse_args()))
    end_with_dvc()
    # DVC knows it by this name; of several processes the first speaks for all
    stage = os.environ.get("DVC_STAGE") if os.environ.get("RANK", "0") == "0" else None
    run_command(name, functools.partial(_keep_locks_and, work) if stage else work)
    if stage:
        record_seconds(stage, time.monotonic() - _START)


def _keep_locks_and(work: Callable[[], None]) -> None:
    keep_locks()
    work()


def run_command(name: str, work: Callable[[], None]) -> None:
    """``end_in_one_line``, with the libraries quiet and what it writes the user's alone."""
    os.umask(0o077)
    _quiet_libraries()
    gc.set_threshold(GC_THRESHOLD)
    with _in_one_line(name):
        for folder in (DATA, DVC_CACHE):
            private_folder(folder)
        work()


def end_in_one_line(name: str, work: Callable[[], None]) -> None:
    """Do a command's work.

    A wrong input, a full disk and Ctrl-C end with one line on stderr and a status other than 0;
    finished work stays, and the next run goes on from it.
    """
    with _in_one_line(name):
        work()


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    try:
        yield
    except (InputError, FloatingPointError) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not _is_disk_full(error):
            raise
        sys.exit(f"{name}: the disk is full ({first_line(error)}); free some space and run the "
                 "same command again")  # fmt: skip


def _quiet_libraries() -> None:
    """Our own progress, no one else's: diffusers would even log prompts that it truncates."""
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ[f"{library}_VERBOSITY"] = "error"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("pipeline").setLevel(logging.INFO)


def _is_disk_full(error: BaseException) -> bool:
    """Whether an error is of a full disk or quota; safetensors reports it as text only."""
    full = errno.ENOSPC, errno.EDQUOT
    return getattr(error, "errno", None) in full or (
        type(error).__name__ == "SafetensorError"
        and any(f"os error {number}" in str(error) for number in full)
    )
