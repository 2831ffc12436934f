"""Every path the pipeline reads or writes. ``tests/test_dvc.py`` holds them against dvc.yaml."""

from pathlib import Path

PARAMS = Path("params.yaml")
TESTBED = Path("assets/testbed")

DATA = Path("data")  # private: prompts, images and latents of both sides
DVC_CACHE = Path(".dvc/cache")  # holds copies of all of them
MODELS = Path("models")
METRICS = Path("metrics")
REPORT = Path("report/index.html")
LORA_FILE = "pytorch_lora_weights.safetensors"  # the name diffusers loads by default
MERGE_METRICS = METRICS / "merge.json"
MERGE_ROWS = Path("plots/merge/rows.csv")
MERGE_PAIRS = Path("plots/merge/interference.csv")
MERGE_MAP = Path("plots/merge/experts.svg")
MERGED = MODELS / "merged"
CALIBRATION = DATA / "calibration"  # what layers see; made of unsafe prompts' embeddings
FRONTS = METRICS / "fronts.json"
FRONTS_FIGURE = Path("plots/fronts.svg")
SHIPPED = MODELS / "shipped"
SHIPPED_METRICS = METRICS / "shipped.json"
JOINT = MODELS / "joint"
JOINT_METRICS = METRICS / "joint.json"
JOINT_STEPS = Path("plots/joint.csv")


def category_file(folder: str | Path, category: str) -> Path:
    """The definition and concepts of a category."""
    return Path(folder) / f"{category}.yaml"


def prompts(category: str) -> Path:
    """PromptPair rows."""
    return DATA / "prompts" / f"{category}.parquet"


def prompt_metrics(category: str) -> Path:
    """Accepted pairs and failures by reason."""
    return METRICS / "prompts" / f"{category}.json"


def images(category: str) -> Path:
    """Folder of DrawnImage shards."""
    return DATA / "images" / category


def scores(category: str) -> Path:
    """Score rows."""
    return DATA / "scores" / f"{category}.parquet"


def pairs(category: str) -> Path:
    """PreferencePair rows."""
    return DATA / "pairs" / f"{category}.parquet"


def pair_metrics(category: str) -> Path:
    """Candidates, kept, yield and drops by reason."""
    return METRICS / "pairs" / f"{category}.json"


def latents(category: str) -> Path:
    """Folder of cached VAE posteriors and text embeddings."""
    return DATA / "latents" / category


def expert(category: str) -> Path:
    """Folder of one category's LoRA."""
    return MODELS / "experts" / category


def expert_metrics(category: str) -> Path:
    """Summary of one expert's training."""
    return METRICS / "experts" / f"{category}.json"


def expert_steps(category: str) -> Path:
    """Step metrics of one expert's training, for ``dvc plots``."""
    return Path("plots/experts") / f"{category}.csv"


def checkpoints(run: str) -> Path:
    """Folder of an unfinished training run; never an output, gone when the run is finished."""
    return Path(".checkpoints") / run


def live(run: str) -> Path:
    """Folder of a training run's step metrics as DVCLive writes them, if it is asked to."""
    return Path("dvclive") / run


def benchmark(variant: str) -> Path:
    """Folder of BenchmarkImage shards of a model variant."""
    return DATA / "benchmark" / variant


def evaluation_scores(variant: str) -> Path:
    """Score rows of a model variant's benchmark images."""
    return DATA / "evaluation" / f"{variant}.parquet"


def evaluation(variant: str) -> Path:
    """Metrics of a model variant by benchmark."""
    return METRICS / "evaluation" / f"{variant}.json"


def dial(model: str) -> Path:
    """Folder of a LoRA's images by scale."""
    return DATA / "dial" / model


def dial_outcomes(model: str) -> Path:
    """Outcome rows of a LoRA at all scales."""
    return DATA / "dial_outcomes" / f"{model}.parquet"


def dial_curve(model: str) -> Path:
    """Metrics of a LoRA against its scale, for ``dvc plots``."""
    return Path("plots/dial") / f"{model}.csv"
