"""How images are drawn: everything but prompt, seed and weights that shapes them."""

from dataclasses import asdict, dataclass

from pipeline.drawing.safe_latents import SafeLatents

FULL = "fp32"


@dataclass(frozen=True)
class Sampler:
    """The settings of a pipeline call."""

    scheduler: str  # a name of ``pipeline.drawing.pipelines.SCHEDULERS``
    steps: int
    guidance: float  # classifier-free guidance scale; 1 is without
    size: int  # pixels, both sides; the width where there is a height
    negative_prompt: str = ""
    height: int | None = None
    safe_latents: SafeLatents | None = None
    # what rounds differently, but draws the same picture
    precision: str = FULL  # or "fp16", "bf16"
    memory: tuple[str, ...] = ()  # names of ``pipeline.drawing.pipelines.MEMORY``
    compile: bool = False  # torch.compile of the UNet

    def describe(self) -> dict[str, object]:
        """The settings that are set, as plain values, for ids and records."""
        optional = {"height", "safe_latents", "precision", "memory", "compile"}
        plain = asdict(self) | {"memory": list(self.memory)}
        unset = {key for key in optional if not plain[key] or plain[key] == FULL}
        return {key: value for key, value in plain.items() if key not in unset}
