"""Steers a story: adds to the residual stream, at one site, how one text differs from another there.

python examples/steer.py
"""

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets, v7

SITE = v7.PostFfn(3)
TOWARDS = "The ship sailed over the sea, and the fish swam in the waves of the ocean."
AWAY = "The boy sat in the house, and the dog slept in the corner of the room."


def main(prompt: str = "One day, a girl", max_tokens: int = 40) -> None:
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    seen, push = (rg.Buffer(name, (model.info.num_emb,)) for name in ("seen", "push"))

    def capture(frame: v7.Frame) -> None:
        rg.blit(frame.x[-1], seen.tensor)

    def add_push(frame: v7.Frame) -> None:
        frame.x = frame.x + push.tensor

    watching, steering = rg.Hooks({SITE: capture}), rg.Hooks({SITE: add_push})

    def direction_of(text: str) -> np.ndarray:
        state, stream = model.state(), []
        for token in tokenizer.encode(text):
            model.run_with_hooks([[token]], state, watching)
            stream.append(seen.read())
        return np.asarray(np.mean(stream, axis=0))

    direction = direction_of(TOWARDS) - direction_of(AWAY)
    for strength in (-1.0, 0.0, 1.0):
        push.write(strength * direction)  # what was compiled stays as it is
        greedy = rg.Sampler(temperature=0)
        story = rg.generate(model, tokenizer, prompt, max_tokens, greedy, hooks=steering)
        print(f"{strength:+.0f}: {prompt}{''.join(piece.text for piece in story)}\n")


if __name__ == "__main__":
    main()
