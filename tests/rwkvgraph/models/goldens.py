"""What BlinkDL's `rwkv` package (PyPI, 0.8.32) answers for one small model of every version, in float64.

So the oracles rest on an implementation that is nobody's here. Run with strategy "cpu fp32" from a .pth of
`raw`'s tensors, JIT off, torch.float32 and Tensor.float replaced by their float64 namesakes, in one pass and
token by token, which agree to 8e-15. The models are drawn so that no numpy and no platform changes a weight:
RandomState's uniform numbers are promised to stay, unlike those of Generator.
"""

from typing import NamedTuple

import numpy as np

from tests.rwkvgraph.models.synthetic import Half, plan

TOKENS = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 32, 3, 23, 8, 4, 6, 26, 4, 33]
LOW_RANK = {"v6": (5, 7), "v7": (5, 7, 3, 6)}


class Golden(NamedTuple):
    """After the last of TOKENS: the first logits, and elements of the state of layer 1 as rows.

    The elements are the first of every row in V4; in other versions of rows 0, 1, 2, S and S + 1.
    """

    logits: tuple[float, ...]
    state: tuple[float, ...]


def golden_model(version: str) -> dict[str, Half]:
    """Two layers of 24 with three heads of 8 (V4: none), hidden 50, 37 tokens; uniform weights."""
    return {
        name: _uniform(index, tensor.size // tensor.repeat, tensor.mean, tensor.std)
        .repeat(tensor.repeat)
        .reshape(tensor.shape)
        for index, (name, tensor) in enumerate(
            plan(2, 24, 8, hidden=50, vocab=37, low_rank=LOW_RANK.get(version), version=version).items()
        )
    }


def _uniform(seed: int, count: int, mean: float, std: float) -> Half:
    drawn = np.random.RandomState(seed).random_sample(count) - 0.5
    return (mean + std * 12**0.5 * drawn).astype(np.float16)


GOLDENS = {
    "v4": Golden(
        (2.518062814737, -0.01646400050806, -1.166562313743, -1.012340217409, -0.06678083799223),
        (0.0336480080126, 0.1199114507594, 1.421661515335, -0.6183357607968, 0.2306090598384),
    ),
    "v5.0": Golden(
        (2.645446635765, 1.060735659578, 0.0402734574902, 2.963814172899, 0.7529334887079),
        (-0.2169851757923, -3.903983373524, -2.748009514918, 2.55058478585, -0.7487267272418),
    ),
    "v5.1": Golden(
        (-1.090888702591, 1.184616801112, -0.1939350294198, -2.024041025312, 0.8823612533454),
        (2.147677438167, 2.189296028553, 1.435505214081, -0.001552025285252, 1.827138740205),
    ),
    "v5.2": Golden(
        (-1.042006058067, 1.020125868131, 0.1880124957364, -1.934113986042, 0.8930560697869),
        (2.027219119846, 2.972970468093, 1.398104650772, -0.5642384924549, 1.69594532458),
    ),
    "v6": Golden(
        (-0.2296291115393, 0.6675558892321, 1.093926908447, -0.5385524289196, 3.116236787215),
        (0.2142378168142, 3.499548790832, -5.35108728488, 4.651824947471, -0.04740605778078),
    ),
    "v7": Golden(
        (-2.512637094808, -3.391839012609, 3.717743931632, 0.3406777473397, -2.3335832094),
        (-0.2292250528415, 0.1735601995225, 0.006729027198545, 0.7467491903686, 0.1112997593674),
    ),
}
