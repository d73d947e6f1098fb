"""What the model would say after each layer: the stream there, through the last norm and the head.

All layers are looked at in one run: the lens is compiled into the model.

python examples/logit_lens.py
"""

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets, v7


def main(prompt: str = "Once upon a time, there was a little", show: int = 3) -> list[list[str]]:
    """Print a line a layer with its likeliest tokens; gives them."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    lens = rg.Buffer("lens", (model.info.num_layer, model.info.num_vocab))
    stream: dict[int, rg.Tensor] = {}
    hooks = rg.Hooks()

    @hooks.on(v7.PostFfn)
    def remember(frame: v7.Frame, layer: int) -> None:
        stream[layer] = rg.identity(frame.x[-1:])  # the last token's

    @hooks.on(v7.PreHead)
    def look(frame: v7.Frame) -> None:
        norm, head = frame.weights.ln_out, frame.weights.head
        for layer, x in stream.items():
            rg.blit(rg.matmul(head, rg.layer_norm(x, norm.weight, norm.bias)), lens[layer : layer + 1])

    tokens = [0, *tokenizer.encode(prompt)]
    (logits,) = model.run_with_hooks([tokens], model.state(), hooks)
    said = []
    for layer, row in enumerate(lens.read()):
        best = np.argsort(row)[::-1][:show]
        chances = model.softmax(row)[best]
        said.append([tokenizer.decode_text([int(token)]) for token in best])
        words = "  ".join(
            f"{word!r:<12}{chance:6.1%}" for word, chance in zip(said[-1], chances, strict=True)
        )
        print(f"layer {layer}   {words}")
    assert logits is not None
    assert int(np.argmax(logits)) == int(np.argmax(lens.read()[-1])), (
        "the last layer's is what the model says"
    )
    return said


if __name__ == "__main__":
    main()
