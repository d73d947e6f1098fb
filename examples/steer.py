"""Steers a story: adds to the residual stream, after one layer, how one text differs from another there.

python examples/steer.py
"""

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets, v7

LAYER = 3
TOWARDS = "The ship sailed over the sea, and the fish swam in the waves of the ocean."
AWAY = "The boy sat in the house, and the dog slept in the corner of the room."


def main(prompt: str = "One day, a girl", max_tokens: int = 40) -> dict[float, str]:
    """Print and give a story for each strength."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    push = rg.Buffer("push", (model.info.num_emb,))
    hooks = rg.Hooks()

    @hooks.on(v7.PostFfn(LAYER))
    def add_push(frame: v7.Frame) -> None:
        frame.x = frame.x + push

    def stream_of(text: str) -> np.ndarray:
        name = f"{LAYER}.x@PostFfn"
        _, cache = model.run_with_cache([tokenizer.encode(text)], model.state(), name, "full")
        (rows,) = cache[name]
        assert rows is not None, "the slot had tokens"
        return np.asarray(rows.mean(axis=0))  # of all tokens

    direction = stream_of(TOWARDS) - stream_of(AWAY)
    stories = {}
    for strength in (-1.0, 0.0, 0.5, 1.0):
        push.write(strength * direction)  # what was compiled stays as it is
        story = rg.generate(model, tokenizer, prompt, max_tokens, rg.Sampler(temperature=0), hooks=hooks)
        stories[strength] = prompt + "".join(piece.text for piece in story)
        print(f"{strength:+.1f}: {stories[strength]}\n")
    return stories


if __name__ == "__main__":
    main()
