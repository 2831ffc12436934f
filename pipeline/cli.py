"""How a stage is run: arguments, logging, and errors that a user can act on as one line."""

import argparse
import errno
import inspect
import logging
import os
import sys
from collections.abc import Callable

from pipeline.artifacts import DATA
from pipeline.errors import InputError
from pipeline.storage import private_folder


def run_stage(main: Callable[..., None]) -> None:
    """Call a stage's ``main`` with the command line's positional arguments.

    A wrong input, a full disk and Ctrl-C end with one line on stderr and a status other than 0;
    finished work stays, and the next run goes on from it.
    """
    name = os.path.basename(inspect.getfile(main)).removesuffix(".py")
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{name}", description=inspect.getdoc(inspect.getmodule(main))
    )
    for argument in inspect.signature(main).parameters:
        parser.add_argument(argument)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "diffusers", "transformers", "root"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_MININTERVAL", "1")
    private_folder(DATA)
    try:
        main(**vars(parser.parse_args()))
    except (InputError, FloatingPointError) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"{name}: the disk is full ({error.filename or 'while writing'}); free some "
                 "space and run the same command again")  # fmt: skip
