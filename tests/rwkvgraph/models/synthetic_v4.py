"""The blocks of synthetic RWKV-4, 5 and 6 models: which tensors, of which shapes and spreads."""

import math
from collections.abc import Iterable

from tests.rwkvgraph.models.synthetic_parts import Normal, Plan, matrix, norm, vector


def time_mix_v4(att: str, width: int, gain: float) -> Plan:
    """V4: a token leaves 69 % of a sum in the median channel, 6 % to 95 % in nearly all others."""
    return {
        f"{att}.time_decay": Normal((width,), 1.0, -1.0),
        f"{att}.time_first": Normal((width,), 0.7, 0.5),
        **_mixed(att, width, "kvr"),
        **_matrices(att, width, ("key", "value", "receptance")),
        # In go means of values, halved by a sigmoid: their mean square is about 0.1.
        f"{att}.output.weight": matrix(width, width, 3 * gain),
    }


def time_mix_v5(att: str, width: int, head_size: int, gain: float, version: str) -> Plan:
    """V5: of the state a token leaves 95 % in the median channel, 60 % to 99.7 % in nearly all others."""
    heads = width // head_size
    shape, repeat = {
        "v5.0": ((heads,), 1),
        "v5.1": ((heads, head_size), head_size),
        "v5.2": ((heads, head_size), 1),
    }[version]
    has_gate = version != "v5.0"
    matrices = ("receptance", "key", "value", *(["gate"] if has_gate else []))
    return {
        **_mixed(att, width, "kvrg" if has_gate else "kvr"),
        f"{att}.time_decay": Normal(shape, 1.0, -3.0, repeat),
        # The bonus, and in 5.0 its logarithm.
        f"{att}.time_first": Normal(shape, 0.4, 0.6 if has_gate else -0.6, repeat),
        **_matrices(att, width, matrices),
        **norm(f"{att}.ln_x", width),
        f"{att}.output.weight": matrix(width, width, (1.7 if has_gate else 1.0) * gain),
    }


def time_mix_v6(att: str, width: int, head_size: int, ranks: tuple[int, int], gain: float) -> Plan:
    """V6, with the ranks of mixing and decay; the decays are spread as V5's, a half of it by the token."""
    mixing, decay = ranks
    return {
        **_mixed(att, width, "xwkvrg"),
        f"{att}.time_mix_w1": matrix(5 * mixing, width),
        f"{att}.time_mix_w2": Normal((5, width, mixing), 0.5 / math.sqrt(mixing)),
        f"{att}.time_decay": vector(width, std=0.9, mean=-3.0),
        f"{att}.time_decay_w1": matrix(decay, width),
        f"{att}.time_decay_w2": matrix(width, decay, gain=0.8),
        f"{att}.time_first": Normal((width // head_size, head_size), 0.4, 0.6),
        **_matrices(att, width, ("receptance", "key", "value", "gate")),
        **norm(f"{att}.ln_x", width),
        f"{att}.output.weight": matrix(width, width, 1.7 * gain),
    }


def channel_mix(ffn: str, width: int, hidden: int, gain: float) -> Plan:
    """The feed-forward block of all three."""
    return {
        **_mixed(ffn, width, "kr"),
        f"{ffn}.key.weight": matrix(hidden, width),
        f"{ffn}.receptance.weight": matrix(width, width),
        f"{ffn}.value.weight": matrix(width, hidden, 2 * gain),  # a sigmoid halves what comes out
    }


def _mixed(block: str, width: int, letters: str) -> Plan:
    return {f"{block}.time_mix_{c}": vector(width, std=0.25, mean=0.4) for c in letters}


def _matrices(att: str, width: int, names: Iterable[str]) -> Plan:
    return {f"{att}.{name}.weight": matrix(width, width) for name in names}
