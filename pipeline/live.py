"""Step metrics as they come, through DVCLive: for DVC's VS Code extension, or Studio."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def live_metrics(folder: Path | None) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Within, a function that logs one entry of metrics with its ``step``; None logs nothing.

    The folder is DVCLive's alone and starts empty: a resumed run tells its earlier steps again.
    """
    if folder is None:
        yield lambda entry: None
        return
    from dvclive import Live

    # no experiment and no dvc.yaml of its own: the stage that trains is DVC's already
    with Live(str(folder), save_dvc_exp=False, dvcyaml=None) as live:

        def log_entry(entry: Mapping[str, float]) -> None:
            live.step = int(entry["step"])
            for name, value in entry.items():
                if name != "step":
                    live.log_metric(name, value)
            live.sync()

        yield log_entry
