"""Replies kept on disk until a run is finished: a killed one asks for none of them again.

Nothing hard-blocked is written (METHOD §3), nor anything beside a reply's JSON object, which nobody
reads and which may speak of all kinds of things.
"""

import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.llm.chat import ChatRequest, Engine
from pipeline.llm.engines import OnDemand, load_engine
from pipeline.llm.replies import Fault, find_object
from pipeline.policy import hard_block
from pipeline.progress import progress_bar
from pipeline.seeds import content_id
from pipeline.storage import run_folder, write_json

# in place of a hard-blocked text: a word that is hard-blocked itself, whatever the category, so
# that whoever reads it drops and counts it as what it stands for
WITHHELD = "csam"
AT_ONCE = 256  # requests that the engine gets together; a killed run loses at most these replies
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')  # of JSON


class KeptReplies:
    """An engine that keeps the replies to every batch of requests, and reads them back.

    A reply is the text of its JSON object, or the ``Fault`` that it has none, kept or not.

    Args:
        load: the engine itself; called when a batch comes that has no replies yet.
        folder: private, made with the first batch; what other runs left in it is then removed.
            Remove it when the run is finished.
        run_id: identifies the model and how it samples.
    """

    def __init__(self, load: Callable[[], Engine], folder: Path, run_id: str) -> None:
        self._engine = OnDemand(load)
        self._place = folder, run_id

    @functools.cached_property
    def _folder(self) -> Path:
        return run_folder(*self._place)

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """As of ``Engine``; a file of replies that is damaged counts as none."""
        replies: list[str] = []
        with progress_bar(len(requests), "replies", "reply") as progress:
            for start in range(0, len(requests), AT_ONCE):
                some = requests[start : start + AT_ONCE]
                replies += self._some(some)
                progress.update(len(some))
        return replies

    def _some(self, requests: Sequence[ChatRequest]) -> list[str]:
        asked = content_id([[r.messages, r.seed, r.schema] for r in requests])
        path = self._folder / f"{asked}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return [Fault(k["fault"]) if isinstance(k, dict) else k for k in kept]
        except (FileNotFoundError, ValueError, KeyError):
            pass
        replies = [
            without_blocked(reply, request.category)
            for request, reply in zip(requests, self._engine.generate(requests), strict=True)
        ]
        write_json(path, [{"fault": r} if isinstance(r, Fault) else r for r in replies])
        return replies


def without_blocked(reply: str, category: str | None) -> str:
    """What of a reply may be stored: its JSON object, hard-blocked texts within ``WITHHELD``.

    Texts are looked at one by one, as in a list each is an answer of its own. A reply without an
    object is the reason why, as of ``read_object``.
    """
    found = find_object(reply)
    if isinstance(found, Fault):
        return found

    def shown(text: re.Match[str]) -> str:
        blocked = hard_block(" ".join(json.loads(text[0]).split()), category)
        return json.dumps(WITHHELD) if blocked else text[0]

    return _TEXT.sub(shown, found.text)


@contextmanager
def kept_engine(
    loading: Mapping[str, object], provenance: Mapping[str, object], folder: Path
) -> Iterator[KeptReplies]:
    """The engine of ``load_engine``, its replies kept in ``folder`` until the work is done."""
    load = functools.partial(load_engine, **loading)
    yield KeptReplies(load, folder, content_id(provenance))
    shutil.rmtree(folder, ignore_errors=True)  # not there where nothing was asked
