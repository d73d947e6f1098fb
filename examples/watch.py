"""Watches the residual stream while the model reads: its length after every layer, for every token.

python examples/watch.py "The cat sat on the mat."
"""

import sys

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets, v7


def main(text: str = "The cat sat on the mat.") -> None:
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    width = model.info.num_emb
    captured = [rg.Buffer(f"stream_{layer}", (width,)) for layer in range(model.info.num_layer)]
    hooks = rg.Hooks()

    @hooks.on(v7.PostFfn)  # the class: this site in every layer
    def capture(frame: v7.Frame, layer: int) -> None:
        rg.blit(frame.x[-1], captured[layer].tensor)  # the last token of the run

    print(f"{'token':12}" + "".join(f"layer {layer}".rjust(10) for layer in range(len(captured))))
    state = model.state()
    for token in [0, *tokenizer.encode(text)]:
        model.run_with_hooks([[token]], state, hooks)
        norms = [float(np.linalg.norm(buffer.read())) for buffer in captured]
        print(f"{tokenizer.decode_text([token])!r:12}" + "".join(f"{norm:10.2f}" for norm in norms))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "The cat sat on the mat.")
