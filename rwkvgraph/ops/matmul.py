"""The matrix product, one op.

Which of its kernels runs is chosen by the number of rows when a batch is bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph.errors import ShapeError
from rwkvgraph.op import Array, Tensor, TensorOp, caller
from rwkvgraph.ops.elementwise import identity
from rwkvgraph.quant import Matrix
from rwkvgraph.view import LANES, Shape


@dataclass(frozen=True, eq=False, repr=False)
class Matmul(TensorOp):
    """w @ x for each row of x: w (M, K), x (T, K), result (T, M)."""

    w: Matrix
    x: Tensor

    kind = "matmul"

    def infer(self) -> Shape:
        """(T, M). Raises ShapeError unless x is (rows, K)."""
        rows, columns = self.w.shape
        if len(self.x.shape) != 2 or self.x.shape[1] != columns:
            raise ShapeError(
                f"matmul of {self.w} takes rows of {columns}; it was given {self.x} (built at {caller()})"
            )
        return (self.x.shape[0], rows)

    def numpy(self, *arrays: Array) -> Array:
        *parts, x = arrays
        weights = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.asarray(x @ self.w.format.unpack(weights).astype(x.dtype, copy=False).T)


def matmul(w: Matrix, x: Tensor) -> Tensor:
    """w @ x for each row of x (T, K), as (T, M).

    Raises ShapeError for what is no matrix, and for rows of another width.
    """
    if not isinstance(w, Matrix):
        raise ShapeError(
            f"matmul takes a matrix of weights and a tensor; it was given {w!r:.80} first. rg.matrix(values) "
            f"makes a matrix, frame.weights has the model's (built at {caller()})"
        )
    return Matmul(w, x if _is_dense(x) else identity(x)).result


def _is_dense(x: Tensor) -> bool:
    """Whether kernels can load x as whole lanes; other views are copied first."""
    steps = x.view.strides
    return len(steps) == 2 and steps[1] == 1 and x.view.offset % LANES == steps[0] % LANES == 0
