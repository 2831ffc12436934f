"""Draw prompts of your own with a model, a LoRA and a user adapter on it, each into a PNG.

Image i of a prompt has the seed + i. A PNG holds, as JSON in its text chunk "generate", all that it
takes to draw it again, so the same command draws only what is missing. Prompts are never printed.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from pipeline.artifacts import GENERATED
from pipeline.cli import run_command
from pipeline.drawing.images import Draw
from pipeline.drawing.pipelines import apply_lora, draw_images, load_pipeline, lora_file
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.params import Images, load_params
from pipeline.personal.asked import ForWhom, add_arguments, for_whom
from pipeline.progress import progress_bar
from pipeline.sources import ModelSource
from pipeline.storage import atomic_path, private_folder, write_csv
from pipeline.user_prompts import Plan, Prompt, plan_images, read_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TEXT_CHUNK = "generate"
BASE, SIDE_BY_SIDE = "base", "side-by-side"  # folders that --compare adds
SETTINGS = {"scheduler": str, "steps": int, "guidance": float, "size": int, "batch": int,
            "precision": str}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that shapes an image but its prompt and seed."""

    model: ModelSource
    identity: str  # of the model's weights
    sampler: Sampler
    lora: str | None = None
    lora_sha256: str | None = None
    scale: float = 1.0  # how often the LoRA counts
    person: ForWhom | None = None  # with a user adapter

    def record(self, prompt: str, seed: int) -> dict[str, object]:
        """All that shapes an image, as plain values."""
        plain = asdict(replace(self, person=None)) | {"sampler": self.sampler.describe()}
        told = {"person": self.person.record()} if self.person else {}
        return {"prompt": prompt, "seed": seed} | plain | told


def make_recipe(
    model: ModelSource, lora: Path | None, scale: float, sampler: Sampler,
    person: ForWhom | None = None,
) -> Recipe:  # fmt: skip
    """Identify the weights, without loading a model; InputError for a LoRA that is not there."""
    if not 0 <= scale < float("inf") or (scale != 1 and lora is None):
        raise InputError("--scale must be a number from 0 up and needs --lora")
    base = Recipe(model, model.identity, sampler, person=person)
    if lora is None:
        return base
    with lora_file(lora).open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return replace(base, lora=str(lora), lora_sha256=digest, scale=scale)


def generate(
    out: Path, plan: Plan, recipe: Recipe, batch: int, compare: bool, overwrite: bool
) -> int:
    """Draw what is missing of a plan into ``out``, and return how many images that were.

    With ``compare`` the base model's go to ``base/``, and both, base left, to ``side-by-side/``.
    Raises InputError for a file that is there and another image, unless ``overwrite``.
    """
    recipes = {out: recipe}
    if compare:  # base first: once added to the weights, a LoRA cannot be taken off again
        recipes = {out / BASE: Recipe(recipe.model, recipe.identity, recipe.sampler), out: recipe}
    missing = {folder: _missing(folder, plan, r, overwrite) for folder, r in recipes.items()}
    pairs = _missing(out / SIDE_BY_SIDE, plan, recipe, overwrite) if compare else {}
    drawn = sum(map(len, missing.values()))
    _make_folder(out)
    rows = [{"file": name, "prompt": p, "seed": s} for name, (p, s) in plan.items()]
    write_csv(out / "images.csv", rows)
    if drawn:
        pipe = load_pipeline(recipe.model, checked=True, precision=recipe.sampler.precision)
        with progress_bar(drawn, "draw", "image") as progress:
            for folder, part in missing.items():
                if part:
                    _draw(_prepare(pipe, recipes[folder]), folder, part, recipes[folder], batch,
                          progress)  # fmt: skip
    for name, image in pairs.items():
        with Image.open(out / BASE / name) as left, Image.open(out / name) as right:
            _save(out / SIDE_BY_SIDE / name, side_by_side(left, right), recipe.record(*image))
    return drawn


def _prepare(pipe: "DiffusionPipeline", recipe: Recipe) -> Draw:
    """Put on the pipeline what the recipe asks for; returns how it draws."""
    if recipe.lora:
        apply_lora(pipe, Path(recipe.lora), recipe.scale)
    if recipe.person is None:
        return partial(draw_images, pipe)
    from pipeline.personal.pipeline import PersonalSafetyPipeline

    person = recipe.person
    personal = PersonalSafetyPipeline.load(pipe, person.adapter, recipe.identity)
    return personal.drawing_for(person.boundary, person.strength)


def _draw(draw: Draw, folder: Path, plan: Plan, recipe: Recipe, batch: int, progress) -> None:
    for start in range(0, len(plan), batch):
        part = list(plan.items())[start : start + batch]
        prompts, seeds = zip(*(order for _, order in part), strict=True)
        images = draw(prompts, seeds, recipe.sampler)
        for (name, prompt_and_seed), image in zip(part, images, strict=True):
            _save(folder / name, image, recipe.record(*prompt_and_seed))
        progress.update(len(part))


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two images of one size in one, with a white gap."""
    gap = max(2, left.width // 64)
    both = Image.new("RGB", (2 * left.width + gap, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + gap, 0))
    return both


def _save(path: Path, image: Image.Image, record: Mapping[str, object]) -> None:
    text = PngInfo()
    text.add_text(TEXT_CHUNK, json.dumps(record))
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG", pnginfo=text)


def read_record(path: Path) -> dict[str, object] | None:
    """All that shaped a PNG; None when it does not say."""
    try:
        with Image.open(path) as image:
            return json.loads(image.info[TEXT_CHUNK])
    except (OSError, SyntaxError, KeyError, ValueError):
        return None


def _missing(folder: Path, plan: Plan, recipe: Recipe, overwrite: bool) -> Plan:
    missing = {n: i for n, i in plan.items() if overwrite or not (folder / n).exists()}
    for name, image in plan.items():
        if name not in missing and read_record(folder / name) != recipe.record(*image):
            raise InputError(
                f"{folder / name} is there already with another prompt, model, LoRA, scale, "
                "user or setting; choose another --out, or --overwrite it"
            )
    return missing


def _make_folder(out: Path) -> None:
    """Make a folder that is the user's alone; one that exists keeps the mode it was given."""
    try:
        if not out.is_dir():
            private_folder(out)
    except OSError as error:
        raise InputError(f"--out: cannot make {out}: {error.strerror}") from error


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.generate", description=__doc__)
    add, prompts = parser.add_argument, parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", action="append", help="may be given more than once")
    prompts.add_argument("--prompts", type=Path, metavar="FILE", help=".csv with a column prompt, "
                         "perhaps seed; or text, one prompt a line")  # fmt: skip
    add("--negative-prompt", default="", help="what to keep away from")
    add("--model", help="diffusers folder or hub id (default: base_model of params.yaml)")
    add("--revision", help="commit of a hub id given as --model")
    add("--lora", type=Path, help="folder or .safetensors file, of diffusers or kohya")
    add("--scale", type=float, default=1.0, help="strength of the LoRA: 0 is off (default: 1)")
    add("--images", type=int, default=1, help="per prompt (default: 1)")
    add("--seed", type=int, default=0, help="image i of a prompt has the seed + i; a .csv's own "
        "seeds go before this one (default: 0)")  # fmt: skip
    for name, kind in SETTINGS.items():
        add(f"--{name}", type=kind, help=f"default: images.{name} of params.yaml")
    add_arguments(parser)
    add("--out", type=Path, default=GENERATED, help="folder (default: generated)")
    add("--compare", action="store_true", help="also the base model's image, and both side by side")
    add("--overwrite", action="store_true", help="draw anew what is there")
    args, unknown = parser.parse_known_args()
    if unknown:  # argparse would print them, and they may be words of a prompt without quotes
        parser.error(f"{len(unknown)} arguments are not known; a prompt needs quotes")
    return args


def _model(args: argparse.Namespace, default: ModelSource) -> ModelSource:
    if args.model is None and args.revision is None:
        return default
    if args.model is None:
        raise InputError("--revision is of a hub id given as --model")
    if args.revision is None and not Path(args.model).is_dir():
        raise InputError(f"--model {args.model!r} is no folder here; a hub id needs --revision")
    return ModelSource(args.model, args.revision)


def _run(args: argparse.Namespace) -> None:
    params = load_params()
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    try:
        i = Images.model_validate(params.images.model_dump() | given)
    except ValidationError as error:
        faults = "; ".join(f"--{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise InputError(faults) from error
    if args.compare and args.lora is None and args.psa is None:
        raise InputError("--compare needs --lora or --psa: without there is the base model alone")
    typed = [Prompt(text, f"--prompt number {k}") for k, text in enumerate(args.prompt or [], 1)]
    prompts = read_prompts(args.prompts) if args.prompts else typed
    plan = plan_images(prompts, args.seed, args.images)
    sampler = Sampler(**i.sampler, negative_prompt=args.negative_prompt)
    model = _model(args, ModelSource(**params.base_model.weights))
    recipe = make_recipe(model, args.lora, args.scale, sampler, for_whom(args))
    drawn = generate(args.out, plan, recipe, i.batch, args.compare, args.overwrite)
    where = args.out / SIDE_BY_SIDE if args.compare else args.out
    print(f"{len(plan)} images are in {where}, {drawn} drawn now")


def main() -> None:
    """Command line entry point; errors end it as they end a stage."""
    run_command("generate", partial(_run, _parse()))


if __name__ == "__main__":
    main()
