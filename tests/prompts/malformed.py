"""Replies as no language model should write them: good ones, damaged by chance."""

import json
import random

UNSAFE, SAFE = "a red star with a thornburst", "a red star with a cup"
GOOD = json.dumps({"unsafe": UNSAFE, "safe": SAFE})
STRANGE = ["\ud83d", "\udc00", "\\ud83d", "\\udfff", "\x00", "\x07", "\x1b[0m", "\u202e", "\u200b",
           "\ufeff", "\u2028", "\xa0", "e\u0301", "İ", "ﬃ", "\U0001f600", "漢字", "\U000e0041",
           "\ufdd0", "\\u0000", "\\n", "\\x", "\\", '"', "'", "{", "}", "[", "<think>", "</think>",
           ",", ":", "\n", "NaN", "1e999", "null"]  # fmt: skip
VALUES = ["null", "true", "-1", "1e999", "NaN", "9" * 5_000, "[]", '["a"]', "{}", '{"a": []}', '""',
          '"a b"', "[" * 40 + "]" * 40, "[" * 9_000 + "]" * 9_000, f'"{UNSAFE}"', f'"{SAFE}"',
          '"a red star with a spikeflare"', '"a red ball with a cup"',
          '"ein roter Stern mit einem thornburst"']  # fmt: skip
PROSE = ["Sure! ", "```json\n", "\n```", " I hope this helps.", "I'm sorry, I can't. ", "{unsafe}",
         "<think>hm {}</think>", "As an AI ", "\ufeff", "Here is the pair: ", GOOD]  # fmt: skip


def truncate(reply, rng):
    return reply[: rng.randrange(len(reply) + 1)]


def behead(reply, rng):
    return reply[rng.randrange(len(reply) + 1) :]


def surround(reply, rng):
    return rng.choice(["", *PROSE]) + reply + rng.choice(["", *PROSE])


def insert(reply, rng):
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(reply) + 1)
        reply = reply[:place] + rng.choice([*STRANGE, chr(rng.randrange(0x110000))]) + reply[place:]
    return reply


def leave_out(reply, rng):
    start = rng.randrange(len(reply) + 1)
    return reply[:start] + reply[start + rng.randint(1, 4) :]


def replace_value(reply, rng):
    return reply.replace(f'"{rng.choice([UNSAFE, SAFE])}"', rng.choice(VALUES), 1)


def replace_word(reply, rng):
    words = reply.split(" ")
    words[rng.randrange(len(words))] = rng.choice([*STRANGE, "blue", "Spikeflare", "Dora Cup"])
    return " ".join(words)


def rename_key(reply, rng):
    return reply.replace(rng.choice(["unsafe", "safe"]), rng.choice(["safe", "Safe", "x", ""]), 1)


def repeat_key(reply, rng):
    return reply.replace("{", f'{{"{rng.choice(["unsafe", "x"])}": {rng.choice(VALUES)}, ', 1)


def repeat(reply, rng):
    return reply * rng.randint(0, 3)


def lengthen(reply, rng):
    return reply.replace(rng.choice(["cup", "}", "{", "thornburst"]), rng.choice("x {[\n") * 2**20)


MUTATIONS = {truncate: 3, behead: 1, surround: 4, insert: 4, leave_out: 3, replace_value: 4,
             replace_word: 4, rename_key: 1, repeat_key: 1, repeat: 1, lengthen: 0.3}  # fmt: skip


def malformed(count, *replies):
    """So many of the replies in turn, each damaged once to three times; the same for every call."""
    rng = random.Random(0)
    for k in range(count):
        damaged = replies[k % len(replies)]
        for mutate in rng.choices(list(MUTATIONS), MUTATIONS.values(), k=rng.choice([1, 1, 2, 3])):
            damaged = mutate(damaged, rng)[: 2**20 + 100]
        yield damaged
