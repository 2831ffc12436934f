import json

from pipeline.live import live_metrics


def test_entries_are_written_as_they_come(tmp_path):
    folder = tmp_path / "live"
    with live_metrics(folder) as log:
        log({"step": 20, "loss": 0.5, "rewards/margins": 1.0})
        table = folder / "plots" / "metrics" / "rewards" / "margins.tsv"
        assert table.read_text().split() == ["step", "margins", "20", "1.0"]
        log({"step": 40, "loss": 0.25, "rewards/margins": 2.0})
        assert table.read_text().splitlines()[-1].split() == ["40", "2.0"]
    assert json.loads((folder / "metrics.json").read_text())["loss"] == 0.25
    assert not (folder / "dvc.yaml").exists()  # the stage is DVC's already
    with live_metrics(folder) as log:  # a resumed run tells its steps again, once
        log({"step": 20, "rewards/margins": 1.0})
        assert len(table.read_text().splitlines()) == 2


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with live_metrics(None) as log:
        log({"step": 20, "loss": 0.5})
    assert not list(tmp_path.iterdir())
