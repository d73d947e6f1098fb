"""Elementwise operations: one class each, with its meaning on numpy and its WGSL expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from rwkvgraph.op import Array, Map, Tensor
from rwkvgraph.tensor import NUMBERS, Operand

DECAY = 0.606531
"""e^(-1/2) as web-rwkv rounds it: RWKV-7 bounds its decay by exp(-e^(-1/2))."""


@dataclass(frozen=True, eq=False, repr=False)
class Add(Map):
    """a + b; operands broadcast."""

    a: Tensor
    b: Tensor

    wgsl = "a + b"

    def numpy(self, *arrays: Array) -> Array:
        a, b = arrays
        return a + b


@dataclass(frozen=True, eq=False, repr=False)
class Subtract(Map):
    """a - b; operands broadcast."""

    a: Tensor
    b: Tensor

    wgsl = "a - b"

    def numpy(self, *arrays: Array) -> Array:
        a, b = arrays
        return a - b


@dataclass(frozen=True, eq=False, repr=False)
class Multiply(Map):
    """a * b; operands broadcast."""

    a: Tensor
    b: Tensor

    wgsl = "a * b"

    def numpy(self, *arrays: Array) -> Array:
        a, b = arrays
        return a * b


@dataclass(frozen=True, eq=False, repr=False)
class Divide(Map):
    """a / b; operands broadcast."""

    a: Tensor
    b: Tensor

    wgsl = "a / b"

    def numpy(self, *arrays: Array) -> Array:
        a, b = arrays
        return np.asarray(a / b)


@dataclass(frozen=True, eq=False, repr=False)
class Lerp(Map):
    """a + (b - a) * t; operands broadcast.

    Token shift is `Lerp(x, previous, mu)`: mu = 0 keeps the token, mu = 1 takes the one before.
    """

    a: Tensor
    b: Tensor
    t: Tensor

    wgsl = "a + (b - a) * t"

    def numpy(self, *arrays: Array) -> Array:
        a, b, t = arrays
        return np.asarray(a + (b - a) * t)


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Map):
    """x * scale + shift, with two numbers. They are data to the shader: other numbers are no other shader."""

    x: Tensor
    scale: float = 1.0
    shift: float = 0.0

    wgsl = "x * scale + V(shift)"

    def numpy(self, *arrays: Array) -> Array:
        (x,) = arrays
        return x * np.float32(self.scale) + np.float32(self.shift)


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Map):
    """x itself, as a value of its own: what a slot holds, so that replacing one slot leaves another alone."""

    x: Tensor

    wgsl = "x"

    def numpy(self, *arrays: Array) -> Array:
        return arrays[0]


@dataclass(frozen=True, eq=False, repr=False)
class Sigmoid(Map):
    """1 / (1 + e^-x)."""

    x: Tensor

    wgsl = "V(1.0) / (V(1.0) + exp(-x))"

    def numpy(self, *arrays: Array) -> Array:
        return sigmoid_of(arrays[0])


@dataclass(frozen=True, eq=False, repr=False)
class Tanh(Map):
    """tanh x, elementwise.

    The argument is clamped to ±15, where float32 tanh is ±1, as some drivers give NaN beyond 42.
    """

    x: Tensor

    wgsl = "tanh(clamp(x, V(-15.0), V(15.0)))"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.tanh(arrays[0]))


@dataclass(frozen=True, eq=False, repr=False)
class Silu(Map):
    """x * sigmoid(x)."""

    x: Tensor

    wgsl = "x / (V(1.0) + exp(-x))"

    def numpy(self, *arrays: Array) -> Array:
        return arrays[0] * sigmoid_of(arrays[0])


@dataclass(frozen=True, eq=False, repr=False)
class SquaredRelu(Map):
    """max(x, 0)²."""

    x: Tensor

    wgsl = "max(x, V(0.0)) * max(x, V(0.0))"

    def numpy(self, *arrays: Array) -> Array:
        return np.square(np.maximum(arrays[0], 0))


@dataclass(frozen=True, eq=False, repr=False)
class Exp(Map):
    """e^x."""

    x: Tensor

    wgsl = "exp(x)"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.exp(arrays[0]))


@dataclass(frozen=True, eq=False, repr=False)
class StableExp(Map):
    """exp(-exp(x)), between 0 and 1: what RWKV-6's state keeps per token. Name: web-rwkv's."""

    x: Tensor

    wgsl = "exp(-exp(min(x, V(10.0))))"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.exp(-np.exp(arrays[0])))


@dataclass(frozen=True, eq=False, repr=False)
class Decay(Map):
    """exp(-0.606531 * sigmoid(x)), between 0.545 and 1: what RWKV-7's state keeps per token.

    Source: web-rwkv, time_mix_v7.
    """

    x: Tensor
    rate: float = DECAY

    wgsl = "exp(V(-rate) / (V(1.0) + exp(-x)))"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.exp(np.float32(-self.rate) * sigmoid_of(arrays[0])))


@dataclass(frozen=True, eq=False, repr=False)
class ScaleKey(Map):
    """k * (1 + (a - 1) * amount): RWKV-7 scales the key by its in-context learning rate a.

    amount (C,) is `k_a`.
    """

    k: Tensor
    a: Tensor
    amount: Tensor

    wgsl = "k * (V(1.0) + (a - V(1.0)) * amount)"

    def numpy(self, *arrays: Array) -> Array:
        k, a, amount = arrays
        return np.asarray(k * (1 + (a - 1) * amount))


def sigmoid_of(x: Array) -> Array:
    """1 / (1 + e^-x) without overflow, in x's precision."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + small), small / (1 + small)), x.dtype)


def add(a: Tensor, b: Operand) -> Tensor:
    """a + b, b a tensor or a number; operands broadcast. Raises ShapeError if they do not."""
    return Affine(a, 1.0, float(b)).result if isinstance(b, NUMBERS) else Add(a, _tensor(b)).result


def subtract(a: Tensor, b: Operand) -> Tensor:
    """a - b, b a tensor or a number; operands broadcast. Raises ShapeError if they do not."""
    return Affine(a, 1.0, -float(b)).result if isinstance(b, NUMBERS) else Subtract(a, _tensor(b)).result


def multiply(a: Tensor, b: Operand) -> Tensor:
    """a * b, b a tensor or a number; operands broadcast. Raises ShapeError if they do not."""
    return Affine(a, float(b), 0.0).result if isinstance(b, NUMBERS) else Multiply(a, _tensor(b)).result


def divide(a: Tensor, b: Operand) -> Tensor:
    """a / b, b a tensor or a number; operands broadcast. Raises ShapeError if they do not."""
    return Affine(a, 1.0 / float(b), 0.0).result if isinstance(b, NUMBERS) else Divide(a, _tensor(b)).result


def _tensor(value: Operand) -> Tensor:
    return cast(Tensor, value)  # what is no tensor either, the operation refuses with its own words


def affine(x: Tensor, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """x * scale + shift."""
    return Affine(x, float(scale), float(shift)).result


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """a + (b - a) * t; operands broadcast. Raises ShapeError if they do not."""
    return Lerp(a, b, t).result


def identity(x: Tensor) -> Tensor:
    """x as a value of its own."""
    return Identity(x).result


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return Sigmoid(x).result


def tanh(x: Tensor) -> Tensor:
    """tanh x."""
    return Tanh(x).result


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return Silu(x).result


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)²."""
    return SquaredRelu(x).result


def exp(x: Tensor) -> Tensor:
    """e^x."""
    return Exp(x).result


def stable_exp(x: Tensor) -> Tensor:
    """exp(-exp(x)): RWKV-6's decay per token from the logarithm of minus its logarithm."""
    return StableExp(x).result


def decay(x: Tensor) -> Tensor:
    """exp(-0.606531 * sigmoid(x)): RWKV-7's decay per token from its logit."""
    return Decay(x).result


def scale_key(k: Tensor, a: Tensor, amount: Tensor) -> Tensor:
    """k * (1 + (a - 1) * amount)."""
    return ScaleKey(k, a, amount).result
