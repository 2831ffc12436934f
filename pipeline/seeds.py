"""Content ids and seeds: every random draw is a function of what it is for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

ID_LENGTH = 16  # hex digits of a row id


def content_id(*parts: object) -> str:
    """The id of a row: the first 16 hex digits of the SHA-256 of its JSON-encoded parts.

    Raises TypeError for a part that JSON cannot represent.
    """
    encoded = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(encoded.encode()).hexdigest()[:ID_LENGTH]


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Within, torch draws from a seed, on every device; afterwards it goes on as before."""
    import torch

    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def seed_for(base: int, *parts: object) -> int:
    """A seed in [0, 2^31) from a base seed and the identity of the thing drawn."""
    return int(content_id(base, *parts), 16) % 2**31
