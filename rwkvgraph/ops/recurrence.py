"""What the recurrences of time mixing share: operands of a token, cursors, a state updated in place."""

from __future__ import annotations

from typing import ClassVar

from rwkvgraph.errors import ShapeError
from rwkvgraph.op import Array, DType, Tensor, TensorOp, caller
from rwkvgraph.view import Shape, broadcast_shapes
from rwkvgraph_codegen import HeadRule, ScanRule


class Recurrence(TensorOp):
    """An operation that goes through the tokens of each slot in order, with a state.

    Subclasses have the fields `starts` (N,), the first stacked token of each slot with tokens, `cursors`
    (T, 4), the operands of a token, which broadcast to the result, and `state`, updated in place.
    """

    kind = "wkv"
    rule: ClassVar[HeadRule | ScanRule]
    """What a token does: to the matrix of a head (T, H, S), or to the numbers of a channel (T, C)."""
    starts: Tensor
    cursors: Tensor
    state: Tensor

    @property
    def token_operands(self) -> dict[str, Tensor]:
        """The operands of a token, by field name."""
        return {
            name: tensor
            for name, tensor in self.operands().items()
            if tensor.dtype is not DType.U32 and name != "state"
        }

    def shape_of(self, cursors: Array) -> tuple[int, ...]:
        """The result's shape in a run with these cursors (T, 4)."""
        return (len(cursors), *(size for size in self.shape[1:] if isinstance(size, int)))

    def infer(self) -> Shape:
        """(T, H, S) or (T, C). Raises ShapeError unless operands and state fit together."""
        operands = self.token_operands
        try:
            shape = broadcast_shapes(*(tensor.shape for tensor in operands.values()))
        except ShapeError:
            shape = ()
        wanted, letters = (3, "(T, H, S)") if isinstance(self.rule, HeadRule) else (2, "(T, C)")
        if len(shape) != wanted:
            given = ", ".join(f"{name} {tensor.shape}" for name, tensor in operands.items())
            raise ShapeError(
                f"{self.name} takes {' '.join(operands)} that broadcast to {letters}; given {given} "
                f"(built at {caller()})"
            )
        rows = self.rule.rows if isinstance(self.rule, ScanRule) else shape[-1]
        width = 1
        for size in shape[1:]:
            assert isinstance(size, int), "only axis 0 may be symbolic"
            width *= size
        if self.state.shape[1:] != (rows, width):
            raise ShapeError(
                f"{self.name}'s state is (B, {rows}, {width}); given {self.state} (built at {caller()})"
            )
        return shape
