"""Activation patching: where, by layer and token, does a text carry what decides the next token?

Two texts differ in a word. The second is run once for each layer and token, and there the first one's stream
is put in the place of its own; the picture shows how far that brings the answer from the second's to the
first's. The patch is compiled once: which layer takes it, and what, are numbers in buffers.

python examples/patch.py
"""

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets, v7

SHADES = " ·░▒▓█"


def main(clean: str = "The boy fed the dog. The", corrupt: str = "The boy fed the cat. The") -> np.ndarray:
    """Print the picture; gives the effects (1 + layers, tokens), 0 for none and 1 for all of it."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    rows, width = model.info.num_layer + 1, model.info.num_emb  # the embedding, then every layer
    values, takes = rg.Buffer("values", (rows, width)), rg.Buffer("takes", (rows, 1))
    hooks = rg.Hooks()

    @hooks.on(v7.PostEmbedLayerNorm)
    def patch_first(frame: v7.Frame) -> None:
        frame.x = rg.lerp(frame.x, values[0], takes[0])

    @hooks.on(v7.PostFfn)
    def patch(frame: v7.Frame, layer: int) -> None:
        frame.x = rg.lerp(frame.x, values[layer + 1], takes[layer + 1])

    ids = [[0, *tokenizer.encode(text)] for text in (clean, corrupt)]
    assert len(ids[0]) == len(ids[1]), "token by token, both texts have to be of one length"
    names = ["x@PostEmbedLayerNorm", "*.x@PostFfn"]
    plain = [model.run_with_cache([text], model.state(), names, "full") for text in ids]
    logits = [np.asarray(rows[0])[-1] for rows, _ in plain]
    answers = [int(np.argmax(row)) for row in logits]
    stream = np.stack([np.asarray(found) for (found,) in plain[0][1].values()])

    def score(row: np.ndarray) -> float:
        return (
            float(row[answers[0]] - row[answers[1]]) if answers[0] != answers[1] else float(row[answers[0]])
        )

    low, high = score(logits[1]), score(logits[0])
    effects = np.zeros((rows, len(ids[1])))
    for at in range(len(ids[1])):
        for row_at in range(rows):
            state = model.state()
            takes.write(np.zeros((rows, 1), np.float32))
            if at:
                run(model, state, hooks, ids[1][:at])
            takes.write(np.eye(rows, dtype=np.float32)[row_at][:, None])
            values.write(stream[:, at])
            row = run(model, state, hooks, ids[1][at : at + 1])
            takes.write(np.zeros((rows, 1), np.float32))
            row = run(model, state, hooks, ids[1][at + 1 :]) if at + 1 < len(ids[1]) else row
            effects[row_at, at] = (score(row) - low) / (high - low)
    print("token    " + " ".join(repr(tokenizer.decode_text([token])) for token in ids[1]))
    for name, line in zip(["embed", *(f"layer {n}" for n in range(rows - 1))], effects, strict=True):
        shades = (SHADES[int(np.clip(effect, 0, 1) * (len(SHADES) - 1) + 0.5)] * 2 for effect in line)
        print(f"{name:<8} {' '.join(shades)}   {line.max():.2f} at most")
    return effects


def run(model: rg.Model, state: rg.State, hooks: rg.Hooks, tokens: list[int]) -> np.ndarray:
    """The logits after these tokens."""
    (row,) = model.run_with_hooks([list(tokens)], state, hooks)
    assert row is not None, "all tokens fit one run"
    return np.asarray(row)


if __name__ == "__main__":
    main()
