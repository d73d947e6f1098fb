"""State surgery: two texts are read, what the model keeps of each is saved, mixed, and written on from.

A state is an array (layers, rows, channels), however long the text was. First the two are blended, a part of
one and the rest of the other; then the last layers of one take the place of the other's.

python examples/state_surgery.py [folder for the two states]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets

TEXTS = (
    "Once upon a time, there was a big ship. The ship sailed on the sea.",
    "Once upon a time, there was a little cat. The cat lived in a house.",
)


def remember(model: rg.Model, tokens: list[int], path: Path) -> None:
    """Save what is left of the tokens once they were read."""
    state, rest = model.state(), [tokens]
    while any(rest):  # a run takes tokens out of the list, up to model.token_chunk_size
        model.run(rest, state)
    state.save(path, 0)


def mixtures(one: np.ndarray, two: np.ndarray) -> dict[str, np.ndarray]:
    """States made of two, by a name that says how."""
    blends = {f"{part:.0%} of the second": (1 - part) * one + part * two for part in np.linspace(0, 1, 5)}
    cuts = range(1, len(one))
    layers = {f"the second from layer {cut} on": np.concatenate([one[:cut], two[cut:]]) for cut in cuts}
    return blends | layers


def main(texts: tuple[str, str] = TEXTS, folder: Path | None = None, max_tokens: int = 30) -> dict[str, str]:
    """Print and give what each mixture of the two texts' states goes on with after " One day,"."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    state, memories, stories = model.state(), [], {}
    with tempfile.TemporaryDirectory() as spare:
        for name, text in zip(("first.st", "second.st"), texts, strict=True):
            path = (folder or Path(spare)) / name
            remember(model, [0, *tokenizer.encode(text)], path)
            state.load(path, 0)  # refused where another model saved it
            memories.append(state.read(0))

    for name, rows in mixtures(*memories).items():
        state.write(0, rows)
        greedy = rg.Sampler(temperature=0)
        story = rg.generate(model, tokenizer, " One day,", max_tokens, greedy, state)
        stories[name] = "".join(piece.text for piece in story)
        print(f"{name}: One day,{stories[name]}\n")
    return stories


if __name__ == "__main__":
    main(folder=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
