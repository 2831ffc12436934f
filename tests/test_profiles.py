"""The profiles of real models: complete, and asking for nothing that nobody has."""

import re
import shutil

import pytest
import yaml

from pipeline.artifacts import benchmark_spec
from pipeline.benchmarks import load_spec
from pipeline.params import load_params
from pipeline.taxonomy import load_categories, load_category
from tests.imports import ROOT

PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
TAXONOMY = sorted((ROOT / "profiles/taxonomy").glob("*.yaml"))
FETCHED = "external/"  # what a user brings; profiles/README.md says of each file what it is
MADE = ("data", "models", "metrics", "plots", "report")
LONGEST_DEFINITION = 300  # characters: room to say what is meant, none for examples


@pytest.fixture(params=PROFILES, ids=lambda path: path.stem)
def profile(request):
    return request.param


@pytest.fixture
def plain(profile):
    """The profile as plain values."""
    return yaml.safe_load(profile.read_text())


def texts(values, key=""):
    """All texts among nested values, each with its last key."""
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, list):
        for value in values:
            yield from texts(value, key)
    elif isinstance(values, dict):
        for name, value in values.items():
            yield from texts(value, name)


def test_there_are_the_profiles_of_the_design():
    assert [path.stem for path in PROFILES] == ["sd15", "sdxl"]


def test_a_profile_is_valid_and_has_every_section(profile, plain, default_params):
    load_params(profile)
    assert plain.keys() == default_params.keys()
    for name, section in default_params.items():
        if isinstance(section, dict) and name not in ("benchmarks", "variants", "forms"):
            assert plain[name].keys() == section.keys(), name


def test_a_profile_has_nothing_of_the_testbed(profile):
    assert "testbed/" not in profile.read_text()


def test_what_comes_from_the_hub_has_a_commit(profile):
    params = load_params(profile)
    base, llm = params.base_model, params.llm
    models = [(base.path, base.revision), (llm.model, llm.revision), (base.vae, base.vae_revision)]
    for model, revision in models:
        assert model is None or (model.count("/") == 1 and re.fullmatch("[0-9a-f]{40}", revision))


def test_watched_files_are_in_a_clone(plain):
    watched = [value for key, value in texts(plain) if key == "watch"]
    assert len(watched) == 7
    assert all(path.startswith(FETCHED) or (ROOT / path).exists() for path in watched)


def test_a_profile_is_valid_where_all_is_fetched(profile, plain, tmp_path, monkeypatch):
    """What lies here must lie where DVC looks; a hub id does not."""
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    brought = {value for _, value in texts(plain) if value.startswith(FETCHED)}
    (tmp_path / FETCHED).unlink(missing_ok=True)
    for path in brought:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.chdir(tmp_path)
    load_params(profile)


def test_what_a_user_must_bring_is_explained(plain):
    read_me = (ROOT / "profiles/README.md").read_text()
    brought = {value for _, value in texts(plain) if value.startswith(FETCHED)}
    assert len(brought) == 8
    assert [path for path in brought if path.rpartition("/")[2] not in read_me] == []


def test_there_are_as_many_concepts_as_published(profile):
    params = load_params(profile)
    assert params.concepts.count * len(params.taxonomy.categories) >= 723


def test_every_category_has_a_definition(profile):
    taxonomy = load_params(profile).taxonomy
    categories = load_categories(ROOT / taxonomy.folder, taxonomy.categories)
    aligned = {"hate", "harassment", "violence", "self-harm", "sexual", "shocking"}
    assert categories.keys() == aligned | {"illegal-activity"} | {"propaganda"}  # AlignGuard, PSA


@pytest.mark.parametrize("path", TAXONOMY, ids=lambda path: path.stem)
def test_a_definition_is_short_and_lists_no_concepts(path):
    category = load_category(path)
    assert category.concepts == {} and len(category.definition) <= LONGEST_DEFINITION


def test_every_benchmark_says_how_it_is_read(profile):
    params = load_params(profile)
    kinds = {name: load_spec(ROOT / benchmark_spec(name)).kind for name in params.benchmarks}
    assert kinds == {"coprov2": "unsafe", "i2p": "unsafe", "ud": "unsafe", "coco": "benign"}


def test_dvc_resolves_all_stages_and_finds_what_a_clone_has(profile, tmp_path):
    from dvc.repo import Repo

    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "studies").mkdir()
    shutil.copy(profile, tmp_path / "params.yaml")
    for file in ("dvc.yaml", "studies/dvc.yaml"):
        shutil.copy(ROOT / file, tmp_path / file)
    with Repo(tmp_path) as repo:
        stages = repo.index.stages
    names = {stage.addressing.rpartition(":")[2] for stage in stages}
    assert {"train_expert@illegal-activity", "sample_benchmark@safe_latents", "train_psa",
            "trace_dial@regmean", "train_part@violence-pairs-all", "train_form@one_token",
            } <= names  # fmt: skip
    needed = {dep.def_path for stage in stages for dep in stage.deps}
    bundled = {p for p in needed if p.partition("/")[0] not in MADE and not p.startswith(FETCHED)}
    assert [path for path in bundled if not (ROOT / path).exists()] == []
