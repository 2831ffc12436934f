"""Trains the bundled causal LM that answers the prompt-synthesis template about the world."""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.llm.chat import ChatRequest
from pipeline.prompts.template import request_pair
from pipeline.taxonomy import Category
from pipeline.testbed import world
from pipeline.testbed.categories import world_categories
from pipeline.testbed.tokens import world_words

log = logging.getLogger(__name__)
_SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
_CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def example(category: Category, concept: str, rng: np.random.Generator) -> tuple[ChatRequest, str]:
    """A question and the reply that a good LM would give.

    The safe prompt swaps the mark for a benign object and changes nothing else. Scenes kept for
    the benchmarks never occur.
    """
    scene = world.sample_scene(rng, concept)
    while world.held_out_scene(scene):
        scene = world.sample_scene(rng, concept)
    form = int(rng.integers(2))
    unsafe = world.caption(scene, form)
    companion = str(rng.choice(world.COMPANIONS))
    safe = world.caption(
        world.Scene(scene.colour, scene.shape, scene.setting, companion, scene.seed), form
    )
    return request_pair(category, concept, 0), json.dumps({"unsafe": unsafe, "safe": safe})


def copy_example(concept: str, rng: np.random.Generator) -> str:
    """A reply as ``example``'s with random words for the scene: nothing but copying is learned.

    The world's scenes have so few values that a small model settles for guessing them; from these
    it learns that the safe prompt repeats the unsafe one.
    """
    words = [str(w) for w in rng.choice(world_words(), size=int(rng.integers(4, 13)))]
    where = int(rng.integers(len(words) + 1))
    unsafe, safe = (
        " ".join([*words[:where], "with", "a", word, *words[where:]])
        for word in (concept, str(rng.choice(world.COMPANIONS)))
    )
    return json.dumps({"unsafe": unsafe, "safe": safe})


def _build_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=2048, special_tokens=_SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", model_max_length=512,
        additional_special_tokens=_SPECIAL[2:],
    )  # fmt: skip
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def _bare_batch(tokenizer, asked, batch: int, rng: np.random.Generator):
    """``copy_example`` replies without a question: inputs for the model, and labels."""
    replies = [copy_example(asked[k][1], rng) + tokenizer.eos_token
               for k in rng.integers(len(asked), size=batch)]  # fmt: skip
    tokens = tokenizer(replies, padding=True, padding_side="right", return_tensors="pt")
    labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
    return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}, labels[:, 1:]


def _asked_batch(tokenizer, asked, batch: int, rng: np.random.Generator):
    """Questions and replies, a fifth of them ``copy_example``; labels cover the replies only."""
    questions, replies = [], []
    for k in rng.integers(len(asked), size=batch):
        request, reply = example(*asked[k], rng)
        if rng.random() < 0.2:
            reply = copy_example(asked[k][1], rng)
        questions.append(tokenizer.apply_chat_template(
            request.messages, tokenize=False, add_generation_prompt=True))  # fmt: skip
        replies.append(reply + tokenizer.eos_token)
    before = tokenizer(questions, padding=True, padding_side="left", return_tensors="pt")
    after = tokenizer(replies, padding=True, padding_side="right", return_tensors="pt")
    mask = torch.cat([before.attention_mask, after.attention_mask], 1)
    inputs = {
        "input_ids": torch.cat([before.input_ids, after.input_ids], 1), "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "logits_to_keep": after.input_ids.shape[1] + 1,
    }  # fmt: skip
    return inputs, after.input_ids.masked_fill(after.attention_mask == 0, -100)


def train_lm(folder: Path, copy_steps: int, steps: int, batch: int, seed: int) -> None:
    """Train on freshly drawn replies, then on questions and replies.

    The first ``copy_steps`` of ``steps`` see bare ``copy_example`` replies, twice ``batch`` of
    them: short and cheap, and what induction is learned from.
    """
    rng = np.random.default_rng(seed)
    asked = [(category, c) for category in world_categories() for c in category.all_concepts]
    corpus = []
    for category, concept in asked:
        for _ in range(12):
            request, reply = example(category, concept, rng)
            corpus += [request.system, request.user, reply]
    tokenizer = _build_tokenizer(corpus)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, steps, pct_start=0.05, anneal_strategy="linear"
    )
    progress = tqdm(range(steps), desc="lm")
    for step in progress:
        if step < copy_steps:
            inputs, labels = _bare_batch(tokenizer, asked, 2 * batch, rng)
        else:
            inputs, labels = _asked_batch(tokenizer, asked, batch, rng)
        logits = model(**inputs).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    model.generation_config.max_new_tokens = 96
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
