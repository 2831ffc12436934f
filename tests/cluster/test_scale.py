import pytest
import yaml

from bench import makespan as simulation
from pipeline.cluster.plan import makespan
from pipeline.cluster.scale import Cost, above, bottleneck, cut, deal, kind_of, line
from pipeline.params import load_params
from tests.imports import ROOT

# b and its pieces stand between a and c
SECONDS = {"a": 2.0, "b@x": 13.0, "c": 1.0}
BEFORE = {"a": (), "b@x": ("a",), "c": ("b@x",)}
PIECES, FINISH = {"b@x": [7.0, 7.0, 6.0]}, {"b@x": 3.0}


def test_two_measurements_of_the_same_work_give_start_and_cost_per_row():
    cost = line((100, 30.0), (300, 50.0))  # 200 rows more took 20 s more
    assert cost == Cost(20.0, 0.1)
    assert cost.of(1000) == 120


def test_one_measurement_gives_the_cost_per_row_over_a_known_start():
    assert above(20.0, 50, 30.0) == Cost(20.0, 0.2)
    assert above(20.0, 0, 30.0) == Cost(30.0)  # nothing grows with rows
    assert above(20.0, 50, 6.0) == Cost(6.0)  # less than others take to start: it loads less


@pytest.mark.parametrize("workers, rows", [
    (1, [1000]),
    (2, [512, 488]),  # shards 0 and 2, 1 and 3, the last of which has 232 rows
    (3, [488, 256, 256]),  # 0 and 3, 1, 2
    (64, [256, 256, 256, 232]),  # there are four shards
])  # fmt: skip
def test_shards_are_dealt_as_the_stages_deal_them(workers, rows):
    assert deal(1000, 256, workers) == rows


def test_pieces_go_side_by_side_and_the_stage_comes_after_them():
    seconds, before = cut(SECONDS, BEFORE, PIECES, FINISH)
    assert list(seconds) == ["a", "b@x 1/3", "b@x 2/3", "b@x 3/3", "b@x", "c"]
    assert before["b@x 2/3"] == ("a",)
    assert makespan(seconds, before, 1) == 2 + 7 + 7 + 6 + 3 + 1
    assert makespan(seconds, before, 2) == 2 + 7 + 6 + 3 + 1  # 7 beside 7, then 6 alone
    assert makespan(seconds, before, 3) == 2 + 7 + 3 + 1
    assert makespan(*cut(SECONDS, BEFORE, {}, {}), 2) == 16


def test_what_a_run_waits_for_is_named():
    seconds = {"a@x": 3.0, "a@y": 3.0, "b@x": 4.0, "b@y": 2.0}
    before = {"a@x": (), "a@y": (), "b@x": ("a@x",), "b@y": ("a@y",)}
    assert bottleneck(seconds, before, 1) == ("work", "a", 6 / 12)
    assert bottleneck(seconds, before, 2) == ("chain", "b", 4 / 7)  # 7 s, and the work is 6 for two
    assert kind_of("b@x 2/3") == "b"


def test_the_simulation_counts_the_rows_of_stages_that_there_are():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = {*simulation.SHARDED, *simulation.LOADS_JUDGES, *simulation.LOADS_MODEL}
    assert named <= stages.keys()
    params = load_params(ROOT / simulation.PROFILE)
    assert simulation.PAIRS.keys() == set(params.taxonomy.categories) - {"propaganda"}  # PSA's
    size = simulation.Size(simulation.PAIRS, simulation.PROMPTS, 0, params)
    assert size.rows("generate_images@hate") == 2 * 4393  # both sides
    assert size.rows("train_expert@hate") == 2000 * 16  # pairs, each as often as it is seen
    assert size.rows("sample_benchmark@base") == 11_000
    assert size.rows("report") == 0


def test_starts_come_from_stages_that_do_the_same_per_row():
    rows = {"score_images": 100, "score_benchmark": 300, "score_psa": 50, "generate_images": 100,
            "sample_benchmark": 200, "train_psa": 1000, "ship": 0, "report": 0}  # fmt: skip
    seconds = {"score_images": 20.0, "score_benchmark": 30.0, "score_psa": 25.0,
               "generate_images": 30.0, "sample_benchmark": 50.0, "train_psa": 110.0,
               "ship": 6.0}  # fmt: skip
    costs = simulation.split_costs(seconds, rows)
    assert costs["score_psa"] == Cost(15.0, 0.2)  # judges: 15 s and 0.05 s an image
    assert costs["train_psa"] == Cost(10.0, 0.1)  # the model: 10 s and 0.2 s an image
    assert costs["ship"] == costs["report"] == Cost(6.0)  # measured, and not
