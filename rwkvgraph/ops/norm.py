"""Operations that reduce the last axis and then map it: norms, the RWKV-7 bonus, softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph.op import Array, Reduction, Row, Tensor

LAYER_NORM_EPS = 1e-5
GROUP_NORM_EPS = 64e-5
"""BlinkDL's (1e-5) * head_size_divisor², with its divisor of 8: V5 to V7."""
L2_EPS = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Row):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis; biased variance.

    Over heads, as (T, H, S) with weight and bias (H, S), this is RWKV's group norm.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    eps: float = LAYER_NORM_EPS

    reduce = (
        Reduction("total", "x"),
        Reduction("squares", "(x - V(total / n)) * (x - V(total / n))"),
    )
    wgsl = "(x - V(total / n)) * inverseSqrt(squares / n + eps) * weight + bias"

    def numpy(self, *arrays: Array) -> Array:
        x, weight, bias = arrays
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + np.float32(self.eps)) * weight + bias)


@dataclass(frozen=True, eq=False, repr=False)
class L2Norm(Row):
    """x / sqrt(Σ x² + eps) over the last axis."""

    x: Tensor
    eps: float = L2_EPS

    reduce = (Reduction("squares", "x * x"),)
    wgsl = "x * inverseSqrt(squares + eps)"

    def numpy(self, *arrays: Array) -> Array:
        (x,) = arrays
        return np.asarray(x / np.sqrt(np.square(x).sum(-1, keepdims=True) + np.float32(self.eps)))


@dataclass(frozen=True, eq=False, repr=False)
class Bonus(Row):
    """(Σ r * k * u) * v over the last axis: RWKV-7's term for the current token.

    r k v (T, H, S), u (H, S).
    """

    r: Tensor
    k: Tensor
    u: Tensor
    v: Tensor

    reduce = (Reduction("score", "r * k * u"),)
    wgsl = "V(score) * v"

    def numpy(self, *arrays: Array) -> Array:
        r, k, u, v = arrays
        return np.asarray((r * k * u).sum(-1, keepdims=True) * v)


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(Row):
    """e^x / Σ e^x over the last axis."""

    x: Tensor

    reduce = (Reduction("top", "x", "max"), Reduction("total", "exp(x - V(top))"))
    wgsl = "exp(x - V(top)) / V(total)"

    def numpy(self, *arrays: Array) -> Array:
        (x,) = arrays
        raised = np.exp(x - x.max(-1, keepdims=True))
        return np.asarray(raised / raised.sum(-1, keepdims=True))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = LAYER_NORM_EPS) -> Tensor:
    """x (T, C) normalised over its last axis, times weight (C,) plus bias (C,)."""
    return LayerNorm(x, weight, bias, eps).result


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = GROUP_NORM_EPS) -> Tensor:
    """x (T, H, S) normalised per head, times weight (H, S) plus bias (H, S)."""
    return LayerNorm(x, weight, bias, eps).result


def l2_norm(x: Tensor, eps: float = L2_EPS) -> Tensor:
    """x divided by its length over the last axis."""
    return L2Norm(x, eps).result


def bonus(r: Tensor, k: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """(Σ r * k * u) * v over the last axis."""
    return Bonus(r, k, u, v).result


def softmax(x: Tensor) -> Tensor:
    """e^x / Σ e^x over the last axis."""
    return Softmax(x).result
