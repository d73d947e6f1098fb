"""The entry point of a recurrence: a template with the statements of a token, state and cursors filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.variant import Amount
from rwkvgraph.compiler.writer import HERE, Writer, place_in
from rwkvgraph.op import Buffer, Tensor
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph_codegen import Load, Parts, Source, Statement, assemble, fill, prelude


@dataclass(frozen=True)
class Main:
    """The text of an entry point, and the statements in it."""

    text: str
    statements: tuple[Statement, ...]


def main_of(
    writer: Writer,
    op: Recurrence,
    statements: list[Statement],
    split: int,
    file: str,
    text: dict[str, object],
    ahead: Sequence[Load] = (),
    depth: int = 2,
    later: Sequence[Load] = (),
) -> Main:
    """A template filled, with the functions before it; statements from `split` on come after the step.

    ahead: loads whose values were asked for a token before. depth: of the template's holes for them. later:
    loads whose values were asked for before the step.
    """
    arrived: dict[Statement, str] = {item: f"let {item.name} = next_{item.name};" for item in ahead}
    arrived |= {item: f"let {item.name} = later_{item.name};" for item in later}
    here = [arrived.get(item) or item.text() for item in statements]
    holes = {**text, **_state(writer, op)}
    holes |= {"prologue": indented(depth, here[:split]), "epilogue": indented(depth, here[split:])}
    return Main("\n".join([*_readers(writer, op), fill(prelude(file), **holes)]), tuple(statements))


def indented(depth: int, lines: Sequence[str]) -> str:
    """Lines as the body of so many blocks."""
    return "\n".join("    " * depth + line for line in lines)


def fetched(statements: Sequence[Statement]) -> list[Load]:
    """The loads of a token's own rows: they can be under way while the token before is worked on.

    On a GPU, where the tokens of a head follow each other and nothing else hides how long memory takes.
    """
    return [item for item in statements if isinstance(item, Load) and item.row == HERE]


def _state(writer: Writer, op: Recurrence) -> dict[str, object]:
    """Where the state is: offset, elements from slot to slot and from row to row."""
    view = op.state.view
    steps = Amount(view.strides[0]), Amount(view.strides[1])
    assert isinstance(op.state.source, Buffer), "states are buffers"
    row = writer.row_of("state", place_in(op.state.source, view.offset), *steps, Amount())
    return {"state": row}


def _readers(writer: Writer, op: Recurrence) -> list[str]:
    """The functions that read a slot's first token and a token's cursor."""
    texts = []
    for name, tensor, kind in (("starts", op.starts, "u32"), ("cursor", op.cursors, "vec4<u32>")):
        step = Amount(tensor.view.strides[0])
        at = writer.row_of(tensor.view, Amount(tensor.view.offset), step, Amount(), Amount())
        texts.append(_reader(f"load_{name}", buffer_name(writer, tensor), at, kind))
    return texts


def _reader(name: str, buffer: str, at: int, kind: str) -> str:
    place = f"let e = here.at[{at}].x + i * here.at[{at}].y;"
    words = [f"{buffer}[e + {index}u]" for index in range(4)]
    value = f"{buffer}[e]" if kind == "u32" else f"{kind}({', '.join(words)})"
    return f"fn {name}(i: u32) -> {kind} {{\n    {place}\n    return {value};\n}}"


def buffer_name(writer: Writer, tensor: Tensor) -> str:
    """The name in WGSL of the buffer that a tensor is a view of."""
    assert isinstance(tensor.source, Buffer), "cursors come from the batch"
    return writer.binding(tensor.source).name


def assembled(
    writer: Writer,
    group: Group,
    main: Main,
    threads: int,
    target: Target,
    subgroups: bool,
    apart: bool = False,
) -> Source:
    """The kernel around an entry point.

    subgroups: whether it calls subgroup functions; apart: where only the threads of one are together.
    """
    header = target.dialect.subgroup_header + target.dialect.apart if apart else ""
    functions, places = tuple(writer.functions.values()), len(writer.table)
    parts = Parts(
        writer.bindings(), functions, main.statements, places, writer.domain.lanes, subgroups, header
    )
    return assemble(group.label, parts, main.text, threads, target.dialect)


def ask(loads: Sequence[Load], row: str, first: bool = False) -> list[str]:
    """The lines that ask for what loads give in another row. first: whether nothing was asked for before."""
    return [f"{'var ' if first else ''}next_{load.name} = {load.value(row)};" for load in loads]
