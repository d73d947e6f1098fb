"""An operation of one's own: RWKV-7's memory made longer or shorter, and what the model then still knows.

A channel of the state keeps exp(-0.607 sigmoid(w)) of itself at each token. The operation below changes w so
that half of it is gone after `times` as many tokens: the new sigmoid is the old one divided by `times`.

python examples/custom_op.py
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import rwkvgraph as rg
from rwkvgraph import assets, v7
from rwkvgraph.testing import holding

STORY = (
    "Lily had a red ball. She went to the park with her mom. They saw a big tree and a bird and a small cat. "
    "They sat on the grass and ate some bread. Then they went home. The girl's name was"
)
LEAST = 1e-6  # where memory would have to be shorter than RWKV-7's shortest, of 1.14 tokens, it is that


@dataclass(frozen=True, eq=False, repr=False)
class Stretch(rg.Map):
    """-log(times (1 + e^-w) - 1), of which the sigmoid is sigmoid(w) / times; times > 0 broadcasts to w."""

    w: rg.Tensor
    times: rg.Tensor
    least: float = LEAST

    wgsl = "-log(max(times * (V(1.0) + exp(min(-w, V(80.0)))) - V(1.0), V(least)))"

    def numpy(self, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        w, times = arrays
        odds = times * (1 + np.exp(np.minimum(-w, 80))) - 1
        return np.asarray(-np.log(np.maximum(odds, np.float32(self.least))))

    @classmethod
    def example(cls, rng: np.random.Generator) -> list[rg.TensorOp]:
        """What `rwkvgraph.testing.check_op(Stretch)` compares a device with numpy on."""
        w = holding(rng.normal(-3, 2, size=(5, 8)))
        return [cls(w, holding(rng.uniform(1, 5, size=shape))) for shape in [(1,), (8,), (5, 1)]]


def half_lives(w: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tokens after which half of what a channel holds is gone."""
    return np.asarray(np.log(2) / 0.606531 * (1 + np.exp(-w)))


def main(story: str = STORY, answer: str = " Lily") -> dict[float, tuple[list[float], float]]:
    """Print a line a strength; gives each one's half-lives (a layer's median) and the answer's chance."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    times = rg.Buffer("times", (model.info.num_layer, 1))  # a number a layer
    hooks = rg.Hooks()

    @hooks.on(v7.PostAttAdapt)
    def stretch(frame: v7.Frame, layer: int) -> None:
        frame.att_w = Stretch(frame.att_w, times[layer]).result

    passes = [len(rg.compile(model.graph, also, model.engine.target).passes) for also in (None, hooks)]
    print(f"passes a token: {passes[0]}, with the operation in every layer {passes[1]}")
    tokens, (wanted, *_) = [0, *tokenizer.encode(story)], tokenizer.encode(answer)
    results = {}
    for factor in (2.0, 1.0, 1 / 4, 1 / 16, 1 / 64):
        times.write(np.full((model.info.num_layer, 1), factor))  # nothing is compiled again
        (rows,), cache = model.run_with_cache([tokens], model.state(), "*.att_w@PreAttTimeMix", "full", hooks)
        lives = [float(np.median(half_lives(w))) for (w,) in cache.values() if w is not None]
        assert rows is not None, "all tokens were run"
        chance = float(model.softmax(rows[-1])[wanted])
        print(f"memory x {factor:<8g} half-lives", *(f"{life:6.1f}" for life in lives), end=" tokens   ")
        print(f"{answer!r}: {chance:.1%}")
        results[factor] = (lives, chance)
    return results


if __name__ == "__main__":
    main()
