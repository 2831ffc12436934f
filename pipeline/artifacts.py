"""Every path the pipeline reads or writes. ``tests/test_dvc.py`` holds them against dvc.yaml."""

from pathlib import Path

PARAMS = Path("params.yaml")
TESTBED = Path("assets/testbed")

DATA = Path("data")  # private: prompts, images and latents of both sides
DVC_CACHE = Path(".dvc/cache")  # holds copies of all of them
REQUIREMENTS = Path("requirements.txt")
CLUSTER = Path(".checkpoints/cluster")  # workspaces of stages that run side by side
DVC_LOCKS = (Path("dvc.lock"), Path("studies/dvc.lock"))
DVC_CLAIMS = Path(".dvc/tmp/rwlock")  # DVC's list of the paths that its commands are busy with
KEPT_LOCKS = Path(".dvc/tmp/kept")  # copies of dvc.lock for ``pipeline.mend``
STAGE_TIMES = Path(".dvc/tmp/times")
DVC_TEMPORARY = Path(".dvc/tmp/exps")  # workspaces of experiments that run beside this one
EXTERNAL = Path("external")  # what a profile's user fetched or wrote, benchmarks' prompts too
GENERATED = Path("generated")  # drawn with ``python -m pipeline.generate``
MODELS = Path("models")
METRICS = Path("metrics")
REPORT = Path("report/index.html")
STUDIES_REPORT = Path("report_studies/index.html")
LORA_FILE = "pytorch_lora_weights.safetensors"  # the name diffusers loads by default
MERGE_METRICS = METRICS / "merge.json"
MERGE_ROWS = Path("plots/merge/rows.csv")
MERGE_PAIRS = Path("plots/merge/interference.csv")
MERGE_MAP = Path("plots/merge/experts.svg")
MERGED = MODELS / "merged"
CALIBRATION = DATA / "calibration"  # what layers see; made of unsafe prompts' embeddings
REFERENCES = DATA / "references"
SUMMARY = METRICS / "summary.json"  # every variant in few numbers
COMPARISONS = METRICS / "comparisons.json"  # of every metric, against base and what ships
SIDE_EFFECTS = METRICS / "side_effects.json"
SUMMARY_TABLE = Path("plots/evaluation.csv")
DATA_CURVE = Path("plots/scaling/data.csv")
MERGE_CURVE = Path("plots/scaling/experts.csv")
FRONTS = METRICS / "fronts.json"
FRONTS_FIGURE = Path("plots/fronts.svg")
SHIPPED = MODELS / "shipped"
SHIPPED_METRICS = METRICS / "shipped.json"
CONCEPTS = DATA / "concepts"  # <category>.yaml, each with its concepts
CONCEPT_METRICS = METRICS / "concepts.json"
REWRITTEN = DATA / "rewritten/prompts.parquet"  # Rewritten rows
# replies of the LLM in unfinished runs; private, gone when the run is finished
UNFINISHED_CONCEPTS = Path(".checkpoints/concepts")
UNFINISHED_REWRITING = Path(".checkpoints/rewriting")
PROMPT_AUDIT = METRICS / "prompt_audit.json"
USERS = DATA / "users/users.parquet"  # User rows
USER_SPACE = DATA / "users/space.safetensors"  # how profiles become vectors
USER_METRICS = METRICS / "users.json"
USER_LEVELS = Path("plots/users.csv")  # every user by what is banned, and the level
USER_PAIRS = DATA / "user_pairs/pairs.parquet"  # UserPair rows
USER_PAIR_METRICS = METRICS / "user_pairs.json"
PSA = MODELS / "psa/psa_adapter.safetensors"
PSA_TRAINING = METRICS / "psa_training.json"
PSA_STEPS = Path("plots/psa.csv")
PSA_IMAGES = DATA / "psa_images"
PSA_SCORES = DATA / "psa_scores"
PSA_METRICS = METRICS / "psa.json"
PSA_METHODS = METRICS / "psa_methods.json"  # what it is compared with
PSA_CONTROL = METRICS / "psa_control.json"  # each ban alone, and the levels
FORMS = METRICS / "forms.json"  # the adapter in other forms, by split of users
JOINT = MODELS / "joint"
JOINT_METRICS = METRICS / "joint.json"
JOINT_STEPS = Path("plots/joint.csv")


def category_file(folder: str | Path, category: str) -> Path:
    """The definition and concepts of a category."""
    return Path(folder) / f"{category}.yaml"


def unfinished_prompts(category: str) -> Path:
    """Folder of the pairs of an unfinished run; private, gone when the run is finished."""
    return Path(".checkpoints/prompts") / category


def own_benchmark(split: str) -> Path:
    """The prompts that the language model wrote of a split's concepts; private, unsafe."""
    return EXTERNAL / "benchmarks" / f"{split}.csv"


def prompts(category: str) -> Path:
    """PromptPair rows."""
    return DATA / "prompts" / f"{category}.parquet"


def prompt_metrics(category: str) -> Path:
    """Yields, failures by reason."""
    return METRICS / "prompts" / f"{category}.json"


def images(category: str) -> Path:
    """Folder of DrawnImage shards."""
    return DATA / "images" / category


def unfinished_scores(category: str) -> Path:
    """Folder of what judges found in an unfinished run; private, gone when that is finished."""
    return Path(".checkpoints/scores") / category


def scores(category: str) -> Path:
    """Score rows."""
    return DATA / "scores" / f"{category}.parquet"


def pairs(category: str) -> Path:
    """PreferencePair rows."""
    return DATA / "pairs" / f"{category}.parquet"


def pair_metrics(category: str) -> Path:
    """Candidates, kept, yield and drops by reason."""
    return METRICS / "pairs" / f"{category}.json"


def pair_plot(category: str) -> Path:
    """Histograms of the scores that pairs are chosen by, for ``dvc plots``."""
    return Path("plots/pairs") / f"{category}.csv"


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


def benchmark_spec(name: str) -> Path:
    """How a benchmark's prompt file is read, and what it is."""
    return Path("benchmarks") / f"{name}.yaml"


def benchmark_prompts(name: str) -> Path:
    """BenchmarkPrompt rows."""
    return DATA / "benchmark_prompts" / f"{name}.parquet"


def benchmark_metrics(name: str) -> Path:
    """How many rows of a benchmark's file were kept, and drops by reason."""
    return METRICS / "benchmarks" / f"{name}.json"


def benchmark(variant: str) -> Path:
    """Folder of BenchmarkImage shards of a model variant."""
    return DATA / "benchmark" / variant


def benchmark_scores(variant: str) -> Path:
    """Folder of JudgedImage shards of a model variant."""
    return DATA / "benchmark_scores" / variant


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


def alone(category: str) -> Path:
    """Folder of the images of one expert alone."""
    return DATA / "alone" / category


def alone_metrics(category: str) -> Path:
    """Metrics of one expert alone by benchmark."""
    return METRICS / "alone" / f"{category}.json"


def part(run: str) -> Path:
    """Folder of an expert trained on a part of its pairs, ``run`` is <category>/<part>."""
    return MODELS / "parts" / run


def measured_part(run: str) -> Path:
    """Folder of its images and metrics."""
    return DATA / "parts" / run


def scaled_merge(experts: str) -> Path:
    """Folder of a merge of the first so many experts."""
    return DATA / "scaled_merge" / experts


def form(name: str) -> Path:
    """Folder of the user adapter in another form."""
    return MODELS / "forms" / name


def shown_by_form(name: str) -> Path:
    """Folder of what that adapter shows evaluated users, and of its scores."""
    return DATA / "forms" / name
