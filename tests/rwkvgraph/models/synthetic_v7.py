"""The blocks of synthetic RWKV-7 models: which tensors, of which shapes and spreads."""

from typing import NamedTuple

from tests.rwkvgraph.models.synthetic_parts import Normal, Plan, matrix, norm, vector


class LowRank(NamedTuple):
    """The inner widths of the low-rank products: decay, learning rate, value residual, gate."""

    w: int
    a: int
    v: int
    g: int

    @classmethod
    def of(cls, width: int) -> "LowRank":
        """What the released models of this width have, from 768 up; multiples of 32."""
        sizes = (1.8 * width**0.5, 1.8 * width**0.5, 1.3 * width**0.5, 0.6 * width**0.8)
        return cls(*(max(32, 32 * round(size / 32)) for size in sizes))


def time_mix_v7(
    att: str, width: int, head_size: int, ranks: LowRank, gain: float, value_residual: bool
) -> Plan:
    """V7, in block 0 with or without the value residual, which is not read there."""
    tensors = {
        **{f"{att}.x_{c}": vector(width, std=0.25, mean=0.4) for c in "rwkvag"},
        **{f"{att}.{name}.weight": matrix(width, width) for name in ("receptance", "key", "value")},
        # Of the state a token leaves 95 %, in the median channel; 65 % to 99.5 % in nearly all others.
        **_low_rank(f"{att}.w", width, ranks.w, mean=-2.5, std=1.5),
        **_low_rank(f"{att}.a", width, ranks.a, mean=-0.3, std=0.4),
        f"{att}.g1": matrix(ranks.g, width),
        # Sigmoids go in: their mean square is about 0.3.
        f"{att}.g2": matrix(width, ranks.g, gain=1.8),
        f"{att}.k_k": vector(width, std=0.2, mean=0.7),
        f"{att}.k_a": vector(width, std=0.1, mean=1.0),
        f"{att}.r_k": Normal((width // head_size, head_size), 0.05),
        **norm(f"{att}.ln_x", width),
        f"{att}.output.weight": matrix(width, width, gain),
    }
    return tensors | (_low_rank(f"{att}.v", width, ranks.v, mean=0.7, std=0.3) if value_residual else {})


def channel_mix_v7(ffn: str, width: int, hidden: int, gain: float) -> Plan:
    """V7's feed-forward block, which has no receptance."""
    return {
        f"{ffn}.x_k": vector(width, std=0.25, mean=0.4),
        f"{ffn}.key.weight": matrix(hidden, width),
        f"{ffn}.value.weight": matrix(width, hidden, gain),
    }


def _low_rank(name: str, width: int, rank: int, mean: float, std: float) -> Plan:
    """c0 + C2 f(C1 x), where the second term has a spread of about a half."""
    return {
        f"{name}0": vector(width, std, mean),
        f"{name}1": matrix(rank, width),
        f"{name}2": matrix(width, rank, gain=0.5),
    }
