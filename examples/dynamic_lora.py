"""Dynamic LoRA: y = W x + B (scales * (A x)), of several adapters in memory, mixed anew between two tokens.

python examples/dynamic_lora.py [adapter.st scale]...     scale: alpha / rank; without any, it makes two up
"""

import sys
from collections.abc import Callable
from functools import partial
from itertools import islice

import numpy as np
from safetensors.numpy import load_file

import rwkvgraph as rg
from rwkvgraph import assets, v7

Tensors = dict[str, np.ndarray]  # an adapter: P.lora.0 (in, rank), A transposed, and P.lora.1 (out, rank), B
MATRICES = {  # what P.weight is given, what it gives, and the first site that has both
    "att.receptance": ("att_rx", "att_r", v7.PostAttLinear),
    "att.key": ("att_kx", "att_k", v7.PostAttLinear),
    "att.value": ("att_vx", "att_v", v7.PostAttLinear),
    "att.output": ("att_x", "att_o", v7.PostAttOut),
    "ffn.key": ("ffn_kx", "ffn_k", v7.PostFfnActivate),
    "ffn.value": ("ffn_k", "ffn_v", v7.PostFfnLinear),
}


def attach(*adapters: Tensors) -> tuple[rg.Hooks, Callable[..., None]]:
    """Hooks that add adapters of the same matrices to a model, and a function that says how much of each."""
    ranks = [next(iter(adapter.values())).shape[1] for adapter in adapters]
    hooks, scales = rg.Hooks(), rg.Buffer("scales", sum(ranks))

    def mix(*amounts: float) -> None:
        scales.write(np.repeat(amounts, ranks))  # nothing is compiled again; 0 switches an adapter off

    def add(kind: str, a: rg.Matrix, b: rg.Matrix, frame: v7.Frame) -> None:
        given, gives, _ = MATRICES[kind]
        change = rg.matmul(b, rg.matmul(a, frame.get(given)) * scales)
        if kind == "ffn.key":  # its place is before the activation: said anew, so that the model's is dropped
            frame.ffn_k = rg.squared_relu(rg.matmul(frame.weights.ffn.key, frame.ffn_kx) + change)
        else:
            frame.set(gives, frame.get(gives) + change)

    for name in sorted({name.rpartition(".lora.")[0] for name in adapters[0]}):
        a, b = (np.hstack([adapter[f"{name}.lora.{part}"] for adapter in adapters]) for part in (0, 1))
        _, layer, kind = name.split(".", 2)
        hooks.add(MATRICES[kind][2](int(layer)), partial(add, kind, rg.matrix(a.T), rg.matrix(b)))
    return hooks, mix


def make_up(info: rg.ModelInfo, seed: int, rank: int = 4) -> Tensors:
    """An adapter of random numbers, for what time mixing gives in each layer."""
    random = np.random.default_rng(seed)
    names = [f"blocks.{layer}.att.output.lora.{part}" for layer in range(info.num_layer) for part in (0, 1)]
    return {name: random.normal(0, 0.25, (info.num_emb, rank)).astype(np.float16) for name in names}


def main(*files: tuple[str, float], prompt: str = "Once upon a time", tokens: int = 14) -> dict[str, str]:
    """Print and give a story's parts by the mix of adapters that each was written with."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    hooks, mix = attach(*[load_file(path) for path, _ in files] or [make_up(model.info, n) for n in (1, 2)])
    most = np.array([scale for _, scale in files] or [1, 1], np.float32)
    passes = [len(rg.compile(model.graph, also, model.engine.target).passes) for also in (None, hooks)]
    print(f"passes a token: {passes[0]}, with {len(hooks)} matrices adapted {passes[1]}")
    greedy, parts = rg.Sampler(temperature=0), {}
    story = rg.generate(model, tokenizer, prompt, tokens * (len(most) + 2), greedy, hooks=hooks)
    for amounts in [0 * most, *np.diag(most), most / 2]:
        mix(*amounts)
        parts[str(amounts)] = "".join(piece.text for piece in islice(story, tokens))
        print(f"{amounts}: {parts[str(amounts)]}")
    return parts


if __name__ == "__main__":
    main(*zip(sys.argv[1::2], map(float, sys.argv[2::2]), strict=True))
