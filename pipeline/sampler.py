"""How images are drawn: everything but prompt, seed and weights that shapes them."""

from dataclasses import asdict, dataclass

from pipeline.safe_latents import SafeLatents


@dataclass(frozen=True)
class Sampler:
    """The settings of a pipeline call."""

    scheduler: str  # "ddim" or "dpm++"
    steps: int
    guidance: float  # classifier-free guidance scale
    size: int  # pixels, both sides; the width where there is a height
    negative_prompt: str = ""
    height: int | None = None
    safe_latents: SafeLatents | None = None

    def describe(self) -> dict[str, object]:
        """The settings that are set, as plain values, for ids and records."""
        return {key: value for key, value in asdict(self).items() if value is not None}
