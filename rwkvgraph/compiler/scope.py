"""Statements of a kernel in a straight line: each value of a group is loaded or computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.variant import Amount
from rwkvgraph.compiler.writer import ABOVE, HERE, Want, Writer
from rwkvgraph.op import BEFORE, Buffer, DType, Map, Row, Tensor, TensorOp
from rwkvgraph_codegen import Binding, Call, Load, Mode, Statement, Store


class Scope:
    """Statements in order; each value is computed once."""

    def __init__(
        self,
        writer: Writer,
        lane: str = "i2",
        statements: list[Statement] | None = None,
        domain: Domain | None = None,
    ) -> None:
        self.statements: list[Statement] = [] if statements is None else statements
        self.lane = lane
        self._writer = writer
        self._domain = domain or writer.domain
        self._known: dict[object, str] = {}

    def give(self, op: TensorOp, name: str) -> None:
        """Let the value of an op be a variable that the kernel's own text sets."""
        self._known[Want(op, HERE)] = name

    def value(self, op: TensorOp, row: str = HERE) -> str:
        """The variable with an operation's value; loads and calls are added as needed."""
        want = Want(op, row)
        name = self._known.get(want)
        if name is None:
            assert isinstance(op, Map), "only maps and rows have an expression"
            name = self._call(op, row)
            self._known[want] = name
        return name

    def reduction(self, op: Row, index: int, row: str = HERE) -> str:
        """The variable with the expression of a row operation's reduction."""
        reduction = op.reduce[index]
        parameters, arguments = self._arguments(op, row)
        earlier = [item.name for item in op.reduce[:index]]
        parameters += [(name, "f32") for name in (*earlier, "n")]
        arguments += [self._writer.sum_name(op, row, name) for name in earlier] + ["n"]
        name = self._writer.function(f"op_{op.name}_{reduction.name}", parameters, "V", reduction.wgsl)
        return self._emit(name, arguments)

    def store(self, op: TensorOp, domain: Domain | None = None) -> None:
        """Write what an operation leaves behind: its result, where others read it, and what it updates.

        domain: of the scope from here on, where it is not the kernel's: a pass may hold matmuls of several
        widths.
        """
        self._domain = domain or self._domain
        if op in self._writer.stored:
            binding, at, _ = self._writer.place(op.result, op, "", self._domain)
            self.statements.append(Store(binding, at, self.value(op), lane=self.lane))
        if not isinstance(op, Map):
            return
        for name, tensor in op.updates().items():
            binding, at, _ = self._writer.place(tensor, op, name, self._domain)
            value = self.value(op)
            row = self._row(op, "row", op.row, HERE) if op.row != "i0" else HERE
            guard = self._row(op, "guard", op.guard, HERE, "bool") if op.guard else ""
            self.statements.append(Store(binding, at, value, row, guard, self.lane))

    def guard_stores(self, first: int, condition: str) -> None:
        """Let the stores from statement `first` on happen only where `condition` holds."""
        for index, item in enumerate(self.statements[first:], first):
            if isinstance(item, Store):
                guard = f"{condition} && {item.guard}" if item.guard else condition
                self.statements[index] = replace(item, guard=guard)

    def operand(self, op: TensorOp, name: str, tensor: Tensor, row: str = HERE) -> str:
        """The variable with an operand's value."""
        writer = self._writer
        producer = writer.inside(tensor)
        expression = op.rows().get(name, "") if isinstance(op, Map) else ""
        if expression == BEFORE:
            row = writer.above
        if producer is not None:
            return self.value(producer, row)
        if tensor.dtype is DType.U32:
            return self._word(tensor, row)
        if expression and expression != BEFORE:
            row = self._row(op, name, expression, row)
        binding, at, splat = writer.place(tensor, op, name, self._domain)
        return self._load(binding, "splat" if splat else "lane", at, row)

    def _call(self, op: Map, row: str) -> str:
        parameters, arguments = self._arguments(op, row)
        if isinstance(op, Row):
            parameters += [(item.name, "f32") for item in op.reduce] + [("n", "f32")]
            arguments += [self._writer.sum_name(op, row, item.name) for item in op.reduce] + ["n"]
        name = self._writer.function(f"op_{op.name}", parameters, "V", op.wgsl)
        return self._emit(name, arguments)

    def _arguments(self, op: Map, row: str) -> tuple[list[tuple[str, str]], list[str]]:
        parameters, arguments = self._words(op, row)
        for name, tensor in op.operands().items():
            if tensor.dtype is not DType.U32 and name not in op.updates():
                parameters.append((name, "V"))
                arguments.append(self.operand(op, name, tensor, row))
        parameters += [(name, "f32") for name in op.parameters()]
        arguments += self._writer.numbers(op)
        return parameters, arguments

    def _words(self, op: TensorOp, row: str) -> tuple[list[tuple[str, str]], list[str]]:
        """i0 and the u32 operands, for an op that has some."""
        words = {name: tensor for name, tensor in op.operands().items() if tensor.dtype is DType.U32}
        if not words:
            return [], []
        parameters = [("i0", "u32")] + [(name, _word_type(tensor)) for name, tensor in words.items()]
        return parameters, [row, *(self._word(tensor, row) for tensor in words.values())]

    def _word(self, tensor: Tensor, row: str) -> str:
        assert isinstance(tensor.source, Buffer), "operations make f32"
        binding = self._writer.binding(tensor.source)
        step = tensor.view.strides[0] if tensor.view.strides else 0
        at = self._writer.row_of(tensor.view, Amount(tensor.view.offset), Amount(step), Amount(), Amount())
        mode: Mode = "words" if _word_type(tensor) != "u32" else "word"
        return self._load(binding, mode, self._writer.spot(at), row)

    def _row(self, op: TensorOp, name: str, expression: str, row: str, returns: str = "u32") -> str:
        """A variable with a row expression's (or guard's) value.

        The expression is over i0, the u32 operands and the parameters.
        """
        parameters, arguments = self._words(op, row)
        if not parameters:
            parameters, arguments = [("i0", "u32")], [row]
        parameters += [(key, "f32") for key in op.parameters()]
        arguments = [*arguments, *self._writer.numbers(op)]
        function = self._writer.function(f"op_{op.name}_{name}_row", parameters, returns, expression)
        return self._emit(function, arguments)

    def _load(self, binding: Binding, mode: Mode, at: str, row: str) -> str:
        key = ("load", binding, mode, at, row)
        if key not in self._known:
            name = self._writer.fresh()
            self.statements.append(Load(name, binding, mode, at, row, self.lane))
            self._known[key] = name
        return self._known[key]

    def _emit(self, function: str, arguments: Iterable[str]) -> str:
        key = ("call", function, tuple(arguments))
        if key not in self._known:
            name = self._writer.fresh()
            self.statements.append(Call(name, function, key[2]))
            self._known[key] = name
        return self._known[key]


def wanted(group: Sequence[TensorOp], roots: Iterable[TensorOp], above: str = ABOVE) -> list[Want]:
    """The values of a group that its roots need, in the rows they need them in, producers first.

    above: where the row before is.
    """
    inside = set(group)
    order: dict[Want, None] = {}

    def visit(op: TensorOp, row: str) -> None:
        if Want(op, row) in order:
            return
        rows = op.rows() if isinstance(op, Map) else {}
        for name, tensor in op.operands().items():
            if isinstance(tensor.source, TensorOp) and tensor.source in inside:
                visit(tensor.source, above if rows.get(name) == BEFORE else row)
        order[Want(op, row)] = None

    for root in roots:
        visit(root, HERE)
    return list(order)


def _word_type(tensor: Tensor) -> str:
    return "vec4<u32>" if tensor.shape[-1:] == (4,) and len(tensor.shape) == 2 else "u32"
