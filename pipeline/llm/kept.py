"""Replies kept on disk until a run is finished: a killed one asks for none of them again."""

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.llm.chat import ChatRequest, Engine
from pipeline.llm.engines import load_engine
from pipeline.seeds import content_id
from pipeline.storage import run_folder, write_json


class KeptReplies:
    """An engine that keeps the replies to every batch of requests, and reads them back.

    Args:
        load: the engine itself; called when a batch comes that has no replies yet.
        folder: private; what other runs left in it is removed. Remove it when the run is finished.
        run_id: identifies the model and how it samples.
    """

    def __init__(self, load: Callable[[], Engine], folder: Path, run_id: str) -> None:
        self._load, self._engine = load, None
        self._folder = run_folder(folder, run_id)

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """As of ``Engine``; a file of replies that is damaged counts as none."""
        asked = content_id([[r.messages, r.seed, r.schema] for r in requests])
        path = self._folder / f"{asked}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            pass
        self._engine = self._engine or self._load()
        replies = self._engine.generate(requests)
        write_json(path, replies)
        return replies


@contextmanager
def kept_engine(
    loading: Mapping[str, object], provenance: Mapping[str, object], folder: Path
) -> Iterator[KeptReplies]:
    """The engine of ``load_engine``, its replies kept in ``folder`` until the work is done."""
    load = functools.partial(load_engine, **loading)
    yield KeptReplies(load, folder, content_id(provenance))
    shutil.rmtree(folder)
