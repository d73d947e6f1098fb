"""Checks for operations, ours and users': the shape rule against numpy, a device against numpy.

Test data of an op class are its `example` class method's ops, built on buffers that hold their contents:

    @classmethod
    def example(cls, rng: np.random.Generator) -> list[TensorOp]:
        return [cls(holding(rng.normal(size=(5, 6)))), cls(holding(rng.normal(size=(3, 1))))]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rwkvgraph.agreement import GPU_TOLERANCE as GPU_TOLERANCE
from rwkvgraph.agreement import compare as compare
from rwkvgraph.compiler import Target, compile
from rwkvgraph.errors import CheckError as CheckError
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.memory import DeviceMemory, memory_for
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.graph import Graph
from rwkvgraph.interpret import Host, interpret
from rwkvgraph.op import Array, Buffer, DType, Map, Role, Tensor, TensorOp, record, replace_operands, tape
from rwkvgraph.ops import blit, tanh
from rwkvgraph.quant import matrix as matrix
from rwkvgraph.view import Dim, Sizes

Contents = Mapping[Buffer, Array]


def holding(values: Any, name: str = "x") -> Tensor:
    """All of a new user's buffer that holds these values. float16 and unsigned integers keep their type."""
    array = np.asarray(values)
    kinds = {"f": DType.F16 if array.dtype == np.float16 else DType.F32, "u": DType.U32}
    buffer = Buffer(name, array.shape, kinds.get(array.dtype.kind, DType.F32))
    buffer.write(array)
    return buffer.tensor


def check_op(
    what: type[TensorOp] | TensorOp | Iterable[TensorOp],
    context: Context | None = None,
    tolerance: float = GPU_TOLERANCE,
) -> None:
    """Check an op class by its `example()`, an op, or several: alone, and fused with a map before and after.

    Raises ShapeError where numpy's result is not of the inferred shape, CheckError where the device's differs
    from it, in the result or in what is updated, CompileError for WGSL that is refused. context: by default
    the best.
    """
    ops = _examples(what) if isinstance(what, type) else [what] if isinstance(what, TensorOp) else list(what)
    context = context or Context.create()
    for op in ops:
        for graph in (_alone(op), _between_maps(op)):
            check_graph(graph, context, tolerance=tolerance)


def check_graph(
    graph: Graph,
    context: Context,
    contents: Contents | None = None,
    sizes: Sizes | None = None,
    target: Target | None = None,
    tolerance: float = GPU_TOLERANCE,
) -> None:
    """Run a graph on numpy and on a device, and compare every buffer that it mentions. Raises CheckError."""
    want = run_on_numpy(graph, contents, sizes)
    got = run_on_device(graph, context, contents, sizes, target)
    for buffer, values in want.items():
        compare(got[buffer], values, f"{buffer!r} after\n{graph.text(full=True)}", tolerance)


def run_on_numpy(
    graph: Graph, contents: Contents | None = None, sizes: Sizes | None = None
) -> dict[Buffer, Array]:
    """Run a graph on numpy; gives what every buffer it mentions holds afterwards.

    contents: of the buffers with symbolic sizes, and of others that shall not start from what they hold. The
    buffers themselves stay as they are.
    """
    known = contents or {}
    host, memories = Host(), {}
    for buffer in buffers_of(graph):
        memories[buffer] = host.place(
            buffer, sizes or {}, known[buffer] if buffer in known else buffer.read()
        )
    interpret(graph.ops, host, sizes or {})
    return {buffer: memory.read() for buffer, memory in memories.items()}


def run_on_device(
    graph: Graph,
    context: Context,
    contents: Contents | None = None,
    sizes: Sizes | None = None,
    target: Target | None = None,
) -> dict[Buffer, Array]:
    """As `run_on_numpy`, compiled for `target` (by default the context's own) and run on a device.

    What lies between the rows of float32 buffers is NaN at the start: a kernel that lets it count will show.
    """
    known = contents or {}
    memories: dict[Buffer, Any] = {}
    for buffer in buffers_of(graph):
        if buffer.role in (Role.INPUT, Role.OUTPUT):
            raise ValueError(f"{buffer!r} is a model's; graphs to check use buffers of role STATE or USER")
        memories[buffer] = _place(
            context, buffer, known[buffer] if buffer in known else buffer.read(), sizes or {}
        )
    none = Dim("none")
    nothing = Buffer("nothing", (none, 1), DType.F32, Role.OUTPUT)
    program = compile(graph, None, target or context.target)
    runner = Runner(context, program, {}, nothing)
    runner.run({}, {none: 0, **(sizes or {})}, graph, memories)
    return {buffer: memory.read() for buffer, memory in memories.items()}


def buffers_of(graph: Graph) -> list[Buffer]:
    """Every buffer that the graph's ops read or write, in order of appearance."""
    tensors = (tensor for op in graph.ops for tensor in op.operands().values())
    return list(dict.fromkeys(tensor.source for tensor in tensors if isinstance(tensor.source, Buffer)))


def _place(context: Context, buffer: Buffer, values: Array, sizes: Sizes) -> Any:
    if buffer.is_texture:
        texture = memory_for(context, buffer)
        texture.write(values)
        return texture
    memory = DeviceMemory(context, buffer, sizes)
    rows = np.asarray(values, buffer.dtype.numpy).reshape(memory.rows, -1)
    spare = np.nan if buffer.dtype is DType.F32 else 0
    padded = np.full((memory.rows, memory.width), spare, buffer.dtype.numpy)
    padded[:, : rows.shape[1]] = rows
    memory.fill(0, padded)
    return memory


def _examples(kind: type[TensorOp]) -> list[TensorOp]:
    example = getattr(kind, "example", None)
    if example is None:
        raise TypeError(
            f"{kind.__name__} has no example(); give it a class method example(rng) that returns a list of "
            "ops built on rwkvgraph.testing.holding(array), or pass check_op such a list"
        )
    return list(example(np.random.default_rng(0)))


def _alone(op: TensorOp) -> Graph:
    with tape() as items:
        record(op)
        _keep(op.result)
    return Graph(tuple(items))


def _between_maps(op: TensorOp) -> Graph:
    """The op on tanh of its float32 operands, and tanh of its result: neighbours that can share its pass."""
    updated = {id(tensor) for tensor in op.updates().values()}
    tables = op.rows() if isinstance(op, Map) else {}
    fixed = updated | {id(getattr(op, name)) for name in tables}

    def squashed(tensor: Tensor) -> Tensor:
        return tensor if id(tensor) in fixed or tensor.dtype is not DType.F32 else tanh(tensor)

    with tape() as items:
        new = replace_operands(op, squashed)
        _keep(tanh(new.result))
    return Graph(tuple(items))


def _keep(result: Tensor) -> None:
    sizes = tuple(size for size in result.shape if isinstance(size, int))
    if len(sizes) != len(result.shape):
        raise ValueError(f"{result!r} has a symbolic size; examples have sizes that are known")
    blit(result, Buffer("result", sizes).tensor)
