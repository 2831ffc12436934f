"""Custody of the unsafe side: prompts, images, latents and what else can be turned back into them.

``check`` tells whether all of it lies in folders that are closed to others and outside of git.
``purge`` deletes all of it from the workspace, DVC's cache and unfinished runs, then looks again
and lists what is left; the status is 0 only if nothing unsafe and nothing unknown is.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from pipeline.artifacts import EXTERNAL
from pipeline.cli import end_in_one_line
from pipeline.custody.check import find_faults
from pipeline.custody.kinds import KEPT
from pipeline.custody.purge import purge
from pipeline.custody.repository import Repository, open_repository
from pipeline.custody.scan import Found, files_below, owned, scan, table
from pipeline.errors import InputError

NAMED = 20  # files that a message names


def _check() -> None:
    with open_repository() as repository:
        faults = find_faults(repository)
    for fault in faults:
        print(fault)
    if faults:
        raise InputError(f"{len(faults)} faults, listed above")
    print("private, outside of git, and where it should be")


def _plan() -> None:
    with open_repository() as repository:
        print(table(scan(repository)))
    print("purge deletes what is unsafe, but for files elsewhere; the rest stays")


def _purge(agreed: bool, whole_cache: bool) -> None:
    with open_repository() as repository:
        if not (repository.own_cache or whole_cache):
            raise InputError(
                f"DVC's cache is {repository.cache}, outside of this repository, and may serve "
                "others too: --whole-cache deletes all that is unsafe in it, whoever's it is"
            )
        with repository.held():
            found = scan(repository)
            print(table(found))
            _ask(agreed)
            purge(found, owned(repository))
            left = scan(repository)
        print(f"left:\n{table(left)}")
        _tell_what_was_not_looked_at(repository)
    _refuse_to_prove([f for f in left if f.verdict != KEPT])
    print("Nothing unsafe is left. `dvc repro` makes anew what a stage needs of it")


def _ask(agreed: bool) -> None:
    if agreed:
        return
    if not sys.stdin.isatty():
        raise InputError("nothing was deleted: --yes deletes all that is unsafe in the table above")
    if input("Delete all that is unsafe? It cannot be brought back. (yes/no) ") != "yes":
        raise InputError("nothing was deleted")


def _tell_what_was_not_looked_at(repository: Repository) -> None:
    if given := sum(1 for _ in files_below(EXTERNAL)):
        print(
            f"not looked at: {given} files in {EXTERNAL}, which you fetched; delete them yourself"
        )
    for remote in repository.remotes:
        print(f"not looked at: the remote {remote}, from which `dvc pull` brings back what was "
              "pushed. dvc.lock still names it, so `dvc gc --cloud` would keep it: empty the "
              f"storage, then `dvc push --remote {remote}` what is kept")  # fmt: skip


def _refuse_to_prove(left: Sequence[Found]) -> None:
    if not left:
        return
    for f in left[:NAMED]:
        print(f"{f.verdict}: {f.path} ({f.kind})")
    raise InputError(f"{len(left)} files are left that are unsafe or may be; look at them, and "
                     "delete or move what should not be here")  # fmt: skip


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.custody", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="tell what is open to others, in git, or in a wrong place")
    purging = commands.add_parser("purge", help="delete the unsafe side and list what is left")
    purging.add_argument("--plan", action="store_true", help="list only, delete nothing")
    purging.add_argument("--yes", action="store_true", help="do not ask")
    purging.add_argument("--whole-cache", action="store_true", help="also in a cache that other "
                         "projects may share, what they have there that is unsafe")  # fmt: skip
    args = parser.parse_args()
    if args.command == "check":
        work = _check
    else:
        work = _plan if args.plan else partial(_purge, args.yes, args.whole_cache)
    end_in_one_line("custody", work)


if __name__ == "__main__":
    main()
