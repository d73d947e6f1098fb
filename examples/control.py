"""Guidance: how a wanted beginning changes what comes next, taken two and three times as strong.

Two slots of one state write one story, the first after a neutral beginning, the second after a wanted one. A
hook mixes their logits on the device, neutral + strength (wanted - neutral), and both go on with one token:
strength 0 is the neutral story, 1 the wanted one, and more goes beyond it. (Classifier-free guidance.)

python examples/control.py
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import rwkvgraph as rg
from rwkvgraph import assets, v7

NEUTRAL = "Once upon a time, there was"
WANTED = "This is a story about a ship on the sea. Once upon a time, there was"


@dataclass(frozen=True, eq=False, repr=False)
class Guide(rg.Map):
    """neutral + strength (wanted - neutral), in both rows of a pair: neutral is the even one, wanted the odd.

    strength (1,); neutral and wanted are the same tensor (O, V), O even.
    """

    strength: rg.Tensor
    neutral: rg.Tensor = rg.operand(row="i0 - i0 % 2u")  # i0: the row that is written
    wanted: rg.Tensor = rg.operand(row="i0 - i0 % 2u + 1u")

    wgsl = "neutral + strength * (wanted - neutral)"

    def numpy(self, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        strength, neutral, wanted = arrays
        even, odd = neutral[0::2], wanted[1::2]
        return np.repeat(even + strength * (odd - even), 2, axis=0)


def guidance(strength: rg.Buffer) -> rg.Hooks:
    """Hooks that mix the logits of slots 0 and 1, 2 and 3, … by a strength (1,)."""

    def mix(frame: v7.Frame) -> None:
        frame.head_o = Guide(strength.tensor, frame.head_o, frame.head_o).result

    return rg.Hooks({v7.PostHead(): mix})


def write(model: rg.Model, prompts: list[list[int]], hooks: rg.Hooks, max_tokens: int) -> NDArray[np.float32]:
    """The mixed logits (n, V) after a pair of prompts; the story is of the likeliest tokens."""
    state, logits = model.state(num_batch=2), list[NDArray[np.float32]]()
    rest = [prompt[:-1] for prompt in prompts]
    while any(rest):  # without the hook, as the shorter prompt may come to its end in an earlier run
        model.run(rest, state)
    last = [prompt[-1] for prompt in prompts]
    while len(logits) < max_tokens and any(last):  # token 0 ends a text
        row, _ = model.run_with_hooks([[token] for token in last], state, hooks)
        assert row is not None, "a run takes both of its tokens"
        logits.append(row)
        last = [int(row.argmax())] * 2
    return np.stack(logits)


def main(neutral: str = NEUTRAL, wanted: str = WANTED, max_tokens: int = 40) -> dict[float, str]:
    """Print and give the story for each strength."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    strength, stories = rg.Buffer("strength", (1,)), {}
    hooks, prompts = guidance(strength), [[0, *tokenizer.encode(text)] for text in (neutral, wanted)]
    for number in (0.0, 1.0, 2.0, 3.0):
        strength.write([number])  # nothing is compiled again
        story = write(model, prompts, hooks, max_tokens).argmax(1)
        stories[number] = neutral + tokenizer.decode_text(story.tolist())
        print(f"{number:.0f}: {stories[number]}\n")
    return stories


if __name__ == "__main__":
    main()
