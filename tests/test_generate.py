import copy
import csv
import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.artifacts import LORA_FILE, TESTBED
from pipeline.diffusion import load_unet
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.variants import load_variant
from pipeline.generate import (
    main,
    make_recipe,
    read_record,
    side_by_side,
)
from pipeline.lora import attach_lora, extract_lora, save_lora
from pipeline.sources import ModelSource

MODEL = ModelSource(str(TESTBED / "sd"))
STAR, MOON = "a red star at night", "a blue moon in a field"
QUICK = ("--steps", 2, "--size", 64)
ROUNDING = 2  # grey levels: a batch of another size adds up its floats in another order


@pytest.fixture
def loads(monkeypatch, bundled_pipeline):
    """Lets the command draw with a copy of the bundled model; lists the models it asks for."""
    asked = []

    def load(source, checked, precision):
        assert checked and precision == "fp32"  # the model's own safety checker stays
        asked.append(source)
        return copy.deepcopy(bundled_pipeline)

    monkeypatch.setattr("pipeline.generate.load_pipeline", load)
    return asked


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """A folder with a random LoRA that changes images clearly."""
    folder = tmp_path_factory.mktemp("lora")
    parameters = attach_lora(load_unet(MODEL), 4, ["to_q", "to_v"], seed=0)
    for parameter in parameters.values():
        parameter.data += 0.05
    save_lora(folder, extract_lora(parameters), {})
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, loads):
    """Runs the command into ``tmp_path/out``; an error is its exit status or its one line."""

    def call(*arguments, out=tmp_path / "out"):
        line = ["generate", *map(str, arguments), *map(str, QUICK), "--out", str(out)]
        monkeypatch.setattr(sys, "argv", line)
        try:
            main()
        except SystemExit as exit_:
            return exit_.code
        return out

    return call


def grey(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def difference(one, other):
    return abs(grey(one) - grey(other)).max()


def test_an_image_is_the_same_alone_and_in_a_batch(run, tmp_path, loads):
    together = run("--prompt", STAR, "--prompt", MOON, "--images", 2, "--seed", 7)
    names = ["0000-seed7.png", "0000-seed8.png", "0001-seed7.png", "0001-seed8.png"]
    assert sorted(p.name for p in together.glob("*.png")) == names
    alone = run("--prompt", MOON, "--seed", 8, out=tmp_path / "alone")
    assert difference(alone / "0000-seed8.png", together / "0001-seed8.png") <= ROUNDING
    assert difference(together / names[0], together / names[1]) > 50
    small = run("--prompt", STAR, "--prompt", MOON, "--seed", 7, "--batch", 1, out=tmp_path / "1")
    assert difference(small / "0001-seed7.png", together / names[2]) <= ROUNDING
    assert loads == [MODEL] * 3


def test_scale_says_how_much_of_the_lora_counts(run, tmp_path, lora):
    def draw(name, *arguments):
        return run("--prompt", STAR, *arguments, out=tmp_path / name) / "0000-seed0.png"

    base, whole = draw("base"), draw("whole", "--lora", lora)
    assert difference(draw("off", "--lora", lora, "--scale", 0), base) == 0
    half = difference(draw("half", "--lora", lora / LORA_FILE, "--scale", 0.5), base)
    assert 0 < half < difference(whole, base)
    record = read_record(whole)
    theirs = draw_images(
        load_variant(MODEL, "lora", lora)[0], [STAR], [0], Sampler(**record["sampler"])
    )
    assert abs(np.asarray(theirs[0]).astype(int) - grey(whole)).max() <= ROUNDING


def test_a_lora_in_kohyas_layout_draws_the_same(run, tmp_path, lora):
    renamed = {}
    for name, matrix in load_file(lora / LORA_FILE).items():
        layer, side = re.fullmatch(r"unet\.(.*)\.lora_([AB])\.weight", name).groups()
        stem = "lora_unet_" + layer.replace(".", "_")
        renamed[f"{stem}.lora_{'down' if side == 'A' else 'up'}.weight"] = matrix
        if side == "A":
            renamed[f"{stem}.alpha"] = matrix.new_tensor(len(matrix))
    save_file(renamed, tmp_path / "kohya.safetensors")
    ours = run("--prompt", STAR, "--lora", lora)
    kohya = run("--prompt", STAR, "--lora", tmp_path / "kohya.safetensors", out=tmp_path / "k")
    assert difference(ours / "0000-seed0.png", kohya / "0000-seed0.png") <= ROUNDING


def test_the_same_command_draws_only_what_is_missing(run, loads, capsys):
    more = ("--prompt", STAR, "--prompt", MOON)
    out = run(*more)
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("*.png")}
    run(*more)
    assert len(loads) == 1  # nothing to draw, so no model is loaded
    run(*more, "--images", 2)
    assert len(loads) == 2
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    assert capsys.readouterr().out.splitlines() == [
        f"2 images are in {out}, 2 drawn now",
        f"2 images are in {out}, 0 drawn now",
        f"4 images are in {out}, 2 drawn now",
    ]


@pytest.mark.parametrize(
    "change", [("--guidance", 3), ("--negative-prompt", "a star"), ("--scheduler", "ddim")]
)
def test_another_image_of_that_name_is_kept_unless_told(run, loads, change):
    out = run("--prompt", STAR)
    before = (out / "0000-seed0.png").read_bytes()
    error = run("--prompt", STAR, *change)
    assert error.startswith(f"generate: {out / '0000-seed0.png'} is there already")
    assert error.endswith("choose another --out, or --overwrite it")
    assert (out / "0000-seed0.png").read_bytes() == before
    assert len(loads) == 1
    assert run("--prompt", STAR, *change, "--overwrite") == out
    assert (out / "0000-seed0.png").read_bytes() != before


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_file_of_another_origin_is_not_overwritten(run, tmp_path, content, loads):
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "0000-seed0.png"
    Image.new("RGB", (64, 64)).save(file) if content is None else file.write_bytes(content)
    assert "is there already" in run("--prompt", STAR)
    assert not loads


def test_what_a_png_holds_is_enough_to_draw_it_again(run, lora):
    scaled = ("--lora", lora, "--scale", 0.5, "--negative-prompt", "a moon", "--guidance", 2)
    file = run("--prompt", STAR, "--seed", 3, *scaled) / "0000-seed3.png"
    record = read_record(file)
    assert record["identity"] == MODEL.identity
    assert len(record["lora_sha256"]) == 64
    pipe, _ = load_variant(
        ModelSource(**record["model"]), "lora", Path(record["lora"]), scale=record["scale"]
    )
    sampler = Sampler(**record["sampler"])
    again = draw_images(pipe, [record["prompt"]], [record["seed"]], sampler)[0]
    assert abs(np.asarray(again).astype(int) - grey(file)).max() <= ROUNDING


def test_compare_draws_the_base_model_too_and_both_in_one(run, tmp_path, lora, loads):
    out = run("--prompt", STAR, "--lora", lora)
    aligned, name = (out / "0000-seed0.png").read_bytes(), "0000-seed0.png"
    run("--prompt", STAR, "--lora", lora, "--compare")
    assert (out / name).read_bytes() == aligned  # only what --compare adds was drawn
    base = run("--prompt", STAR, out=tmp_path / "base")
    assert difference(out / "base" / name, base / name) == 0
    both = grey(out / "side-by-side" / name)
    assert both.shape == (64, 64 + 2 + 64, 3)
    assert (both[:, :64] == grey(out / "base" / name)).all()
    assert (both[:, 66:] == grey(out / name)).all()
    run("--prompt", STAR, "--lora", lora, "--compare")
    assert len(loads) == 3
    fresh = run("--prompt", STAR, "--lora", lora, "--compare", out=tmp_path / "fresh")
    assert difference(fresh / "base" / name, base / name) == 0
    assert difference(fresh / name, out / name) == 0


def test_side_by_side_keeps_left_left():
    both = side_by_side(Image.new("RGB", (128, 8), "red"), Image.new("RGB", (128, 8), "blue"))
    colours = [both.getpixel((x, 4)) for x in (0, 127, 128, 129, 130, 257)]
    assert both.size == (258, 8)
    assert colours == [(255, 0, 0)] * 2 + [(255, 255, 255)] * 2 + [(0, 0, 255)] * 2


def test_a_csv_brings_seeds_and_the_index_can_be_drawn_again(run, tmp_path):
    file = tmp_path / "prompts.csv"
    file.write_text('seed,prompt,note\n17,"a red star, at night",x\n4,a blue moon,\n')
    out = run("--prompts", file, "--images", 2, "--seed", 99)
    with (out / "images.csv").open() as index:
        rows = list(csv.DictReader(index))
    assert [(r["file"], r["prompt"], r["seed"]) for r in rows] == [
        ("0000-seed17.png", "a red star, at night", "17"),
        ("0000-seed18.png", "a red star, at night", "18"),
        ("0001-seed4.png", "a blue moon", "4"),
        ("0001-seed5.png", "a blue moon", "5"),
    ]
    again = run("--prompts", out / "images.csv", out=tmp_path / "again")
    assert difference(again / "0003-seed5.png", out / "0001-seed5.png") <= ROUNDING


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a red star at night\n", "has no column 'prompt'"),
        ("prompt,seed\na secretword,1\na secretword,1.5\n", "line 3 has no whole number"),
        ("prompt,seed\na secretword,-1\n", "line 2 has no whole number"),
        ("prompt,seed\na secretword,\n", "line 2 has no whole number"),
        ("prompt,seed\na secretword\n", "line 2 has no whole number"),
        ("prompt\na secretword, at night\n", "line 2 has too many fields"),
        ("seed,prompt\n1,a secretword\n2\n", "line 3 is empty"),
        (f"prompt,seed\na secretword,{2**63}\n", "line 2: its seed is not within 0 to 2^63 - 1"),
        ("prompt\n", "nothing to draw"),
        (b"prompt\n\xff\n", "as UTF-8 text"),
    ],
)
def test_a_faulty_csv_is_an_error_by_line_never_by_text(run, tmp_path, loads, content, message):
    file = tmp_path / "p.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = run("--prompts", file)
    assert error.startswith("generate: ")
    assert message in error
    assert "secretword" not in error
    assert not loads
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", 65], "--size: Input should be a multiple of 8"),
        (["--steps", 0, "--guidance", 0.5], "--steps: .*; --guidance: Input should be greater"),
        (["--scheduler", "heun"], "--scheduler: Input should be 'own', 'ddim', 'dpm"),
        (["--images", 0], "nothing to draw: give a prompt, and --images 1"),
        (["--seed", -1], "--prompt number 1: its seed is not within"),
        (["--prompt", " "], "--prompt number 2 is empty"),
        (["--lora", "nowhere"], "no LoRA file nowhere"),
        (["--lora", "tests"], f"no LoRA file tests/{LORA_FILE}"),
        (["--scale", 0.5], "--scale .* needs --lora"),
        (["--lora", "tests", "--scale", -1], "--scale must be a number from 0 up"),
        (["--lora", "tests", "--scale", "nan"], "--scale must be a number from 0 up"),
        (["--compare"], "--compare needs --lora"),
        (["--model", "hub/model"], "--model 'hub/model' is no folder here; .* needs --revision"),
        (["--revision", "abc"], "--revision is of a hub id given as --model"),
        (["--out", "README.md"], "--out: cannot make README.md: File exists"),
        (["--out", "README.md/x"], "--out: cannot make README.md/x: Not a directory"),
    ],
)
def test_a_wrong_argument_is_one_line_before_a_model_is_loaded(
    tmp_path, monkeypatch, loads, arguments, message
):
    line = ["generate", "--prompt", STAR, "--out", tmp_path / "out", *arguments]
    monkeypatch.setattr(sys, "argv", [str(a) for a in line])
    with pytest.raises(SystemExit, match=f"^generate: {message}") as error:
        main()
    assert "\n" not in error.value.code
    assert not loads
    assert not (tmp_path / "out").exists()


def test_a_file_of_prompts_that_is_not_there_is_named(run):
    assert "cannot read nowhere.txt" in run("--prompts", "nowhere.txt")


def test_a_hard_blocked_prompt_stops_all_and_is_not_repeated(run, tmp_path, loads, monkeypatch):
    monkeypatch.setattr(  # stands for the words, which a test need not spell out
        "pipeline.user_prompts.hard_block", lambda text: "a_reason" if "blocked" in text else None
    )
    error = run("--prompt", STAR, "--prompt", "a blocked star")
    assert error == "generate: --prompt number 2 is hard-blocked (a_reason)"
    assert not loads
    assert not (tmp_path / "out").exists()


def test_prompts_are_in_files_that_are_the_users_alone(run, capfd):
    out = run("--prompt", "a red secretword star " * 20)  # diffusers logs what it truncates
    assert "secretword" not in "".join(capfd.readouterr())
    assert out.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in out.iterdir()} == {0o600}
    assert "secretword" in json.dumps(read_record(out / "0000-seed0.png"))


def test_words_of_a_prompt_without_quotes_are_not_repeated(run, capsys):
    assert run("--prompt", "a", "secretword", "star") == 2
    error = capsys.readouterr().err
    assert "2 arguments are not known; a prompt needs quotes" in error
    assert "secretword" not in error


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left"), "the disk is full"),
    ],
)
def test_a_stopped_command_keeps_what_it_drew_and_goes_on(run, monkeypatch, tmp_path, error, ends):
    drawn, errors = [], [error]

    def draw(pipe, prompts, seeds, sampler):
        if 2 in seeds and errors:
            raise errors.pop()
        drawn.extend(seeds)
        return draw_images(pipe, prompts, seeds, sampler)

    monkeypatch.setattr("pipeline.generate.draw_images", draw)
    order = ("--prompt", STAR, "--images", 4, "--batch", 2)
    code = run(*order)
    assert code == ends or ends in code
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {"images.csv", "0000-seed0.png", "0000-seed1.png"}
    run(*order)
    assert drawn == [0, 1, 2, 3]


def test_another_model_takes_the_place_of_the_default(run, tmp_path, loads):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"x")
    run("--prompt", STAR, "--model", tmp_path / "model")
    out = run("--prompt", STAR, "--model", "hub/model", "--revision", "abc", out=tmp_path / "hub")
    assert loads == [ModelSource(str(tmp_path / "model")), ModelSource("hub/model", "abc")]
    record = read_record(out / "0000-seed0.png")
    assert (record["model"]["path"], record["identity"]) == ("hub/model", "abc")


def test_a_recipe_follows_the_weights(tmp_path, lora):
    sampler, file = Sampler("ddim", 2, 1.0, 64), lora / LORA_FILE
    one = make_recipe(MODEL, lora, 1.0, sampler)
    assert one.lora_sha256 == make_recipe(MODEL, file, 1.0, sampler).lora_sha256
    (tmp_path / "other.safetensors").write_bytes(file.read_bytes() + b"x")
    other = make_recipe(MODEL, tmp_path / "other.safetensors", 1.0, sampler)
    assert one.lora_sha256 != other.lora_sha256
    assert make_recipe(ModelSource("hub/model", "abc"), None, 1.0, sampler).identity == "abc"


def test_help_names_every_option():
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.generate", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "python -m pipeline.generate" in done.stdout
    for option in ("--model", "--lora", "--scale", "--prompts", "--seed", "--compare", "--out"):
        assert f"  {option}" in done.stdout
    assert "image i of a prompt has the seed + i" in " ".join(done.stdout.split())
