"""The pass that draws the next tokens: a workgroup a row of logits."""

from __future__ import annotations

from rwkvgraph.compiler.domain import Domain, Strides
from rwkvgraph.compiler.group import Group
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.compiler.variant import Amount, Grid
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.op import Tensor
from rwkvgraph.ops.sample import Sample
from rwkvgraph.view import LANES
from rwkvgraph_codegen import Parts, Source, assemble, fill, prelude

BINS = 1024
"""Of the shader's histograms: a thread has as many as the others, and at least one."""


def lower_sample(group: Group, plan: Plan, target: Target) -> tuple[Writer, Source, Grid, Domain]:
    """(the writer with buffers and table, the shader, the grid, the domain) of a group that draws."""
    (op,) = group.ops
    assert isinstance(op, Sample), "no rule puts a sample into a pass with others"
    rows, width = op.logits.shape
    assert isinstance(width, int), "only axis 0 may be symbolic"
    domain = Domain(rows, 1, width, LANES)
    writer = Writer(group, plan.places, domain)
    threads = _threads(target)
    holes: dict[str, object] = {"threads": threads, "each": BINS // threads, "keep": _keep(writer, op, plan)}
    for name, tensor in op.operands().items():
        holes |= _place(writer, op, name, tensor)
    text = fill(prelude("sample.wgsl"), **holes)
    parts = Parts(writer.bindings(), (), (), len(writer.table), LANES)
    grid = Grid(Amount.of(rows))
    return writer, assemble(group.label, parts, text, threads, target.dialect), grid, domain


def _threads(target: Target) -> int:
    """As many as are quickest, where a workgroup may have them and the memory that they share."""
    threads, limits = tuning_for(target).sample_threads, target.limits
    has_room = limits.max_workgroup_storage >= 2 * 16384 and limits.max_workgroup_size_x >= threads
    return threads if has_room and limits.max_workgroup_invocations >= threads else min(threads, 256)


def _place(writer: Writer, op: Sample, name: str, tensor: Tensor) -> dict[str, object]:
    """The name of an operand's buffer, and the row of the table with its offset, step and size of a row."""
    view = tensor.view
    size = view.shape[-1]
    step = 0 if name == "bias" else view.strides[0]
    middle = size if name == "history" and isinstance(size, int) else 0
    steps = Strides(view.offset, step, middle, 1)
    binding, amounts = writer.locate(tensor, steps)
    return {name: binding.name, f"{name}_at": f"{writer.row_of(name, *amounts)}u"}


def _keep(writer: Writer, op: Sample, plan: Plan) -> str:
    """The line that stores the result, where another pass reads it."""
    if op not in plan.places:
        return ""
    place = plan.places[op]
    row = writer.row_of("result", Amount(place.column), Amount(place.stride), Amount(), Amount())
    at = f"(here.at[{row}].x + row * here.at[{row}].y) / 4u"
    return f"    {writer.binding(place.slot).name}[{at}] = vec4<f32>(select(-1.0, f32(id), is_drawn));"
