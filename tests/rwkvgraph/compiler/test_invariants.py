"""RWKVGRAPH_CHECK=1: what every stage makes of the versions' models holds, and a planted fault is found."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from rwkvgraph import ops
from rwkvgraph.compiler import (
    Compilation,
    Limits,
    Plan,
    Program,
    Target,
    check_build,
    check_fuse,
    check_plan,
    check_program,
    check_simplify,
    check_splice,
    compile_stages,
    level_from_environment,
)
from rwkvgraph.compiler.plan import Place
from rwkvgraph.errors import CheckError
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks
from rwkvgraph.models import sites
from rwkvgraph.op import Buffer, TensorOp, tape
from rwkvgraph.sight.shapes import ShapeReader, shapes_of
from rwkvgraph.sight.stages import subject_of

TARGET = Target.browser()
VERSIONS = ("v4", "v5.0", "v5.1", "v5.2", "v6", "v7")


def graph_of(version: str, layers: int = 2) -> Graph:
    return subject_of(ShapeReader(shapes_of(version, layers, 64, 40, 16), "made up"), TARGET).graph


def hooks() -> Hooks:
    seen = Buffer("seen", (64,))
    return Hooks(
        {
            sites.PostAttOut: lambda frame: setattr(frame, "att_o", ops.tanh(frame.att_o)),
            sites.PostFfn: lambda frame: ops.blit(frame.x[-1], seen.tensor),
        }
    )


@pytest.fixture(scope="module")
def made() -> Compilation:
    return compile_stages(graph_of("v7"), hooks(), TARGET)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
def test_every_stage_keeps_its_rules(version: str, hooked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKVGRAPH_CHECK", "1")
    compile_stages(graph_of(version), hooks() if hooked else None, TARGET)


@pytest.mark.parametrize("given", ["3", "yes", "-1", " 1"])
def test_other_levels_are_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKVGRAPH_CHECK", given)
    with pytest.raises(ValueError, match="it is 0, 1"):
        level_from_environment()


@pytest.mark.parametrize(("given", "level"), [(None, 0), ("", 0), ("0", 0), ("1", 1), ("2", 2)])
def test_levels_are_numbers(given: str | None, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RWKVGRAPH_CHECK", raising=False)
    if given is not None:
        monkeypatch.setenv("RWKVGRAPH_CHECK", given)
    assert level_from_environment() == level


def without(items: Sequence[Any], at: int) -> tuple[Any, ...]:
    return (*items[:at], *items[at + 1 :])


def swapped(items: Sequence[Any], at: int) -> tuple[Any, ...]:
    return (*items[:at], items[at + 1], items[at], *items[at + 2 :])


def test_an_operand_that_is_made_later_is_found(made: Compilation) -> None:
    with pytest.raises(CheckError, match=r"after build: .* is made later"):
        check_build(Graph(swapped(made.build.items, 0)))


def test_a_site_before_its_values_is_found(made: Compilation) -> None:
    items = list(made.build.items)
    site = next(item for item in items if not isinstance(item, TensorOp))
    items.remove(site)
    with pytest.raises(CheckError, match=r"frame\.input at .* is made later"):
        check_build(Graph((site, *items)))


def test_a_site_that_is_left_is_found(made: Compilation) -> None:
    with pytest.raises(CheckError, match="after splice: the site PostEmbedLoaded is still there"):
        check_splice(made.build, made.build)


def test_an_operation_that_splicing_lost_is_found(made: Compilation) -> None:
    last = len(made.splice.items) - 1
    with pytest.raises(CheckError, match=r"after splice: \d+ operations of the model became \d+"):
        check_splice(made.build, Graph(without(made.splice.items, last), made.splice.spliced))


def test_a_write_that_simplifying_lost_is_found(made: Compilation) -> None:
    at = next(at for at, op in enumerate(made.simplify.graph.ops) if op.name == "blit")
    with pytest.raises(CheckError, match=r"after simplify: .* writes became"):
        check_simplify(made.splice, Graph(without(made.simplify.graph.ops, at)))


def test_an_operation_that_nothing_needs_is_found(made: Compilation) -> None:
    with tape() as dead:
        ops.tanh(Buffer("x", (4,)).tensor)
    with pytest.raises(CheckError, match="after simplify: nothing needs"):
        check_simplify(made.simplify.graph, Graph((*made.simplify.graph.ops, *dead)))


def test_groups_in_a_wrong_order_are_found(made: Compilation) -> None:
    with pytest.raises(CheckError, match=r"after fuse: .* comes before .*, which it needs"):
        check_fuse(made.simplify.graph, replace(made.fuse, groups=swapped(made.fuse.groups, 0)))


def test_a_lost_group_is_found(made: Compilation) -> None:
    with pytest.raises(CheckError, match=r"after fuse: \d+ operations became"):
        check_fuse(made.simplify.graph, replace(made.fuse, groups=without(made.fuse.groups, 3)))


def test_a_group_that_is_there_twice_is_found(made: Compilation) -> None:
    with pytest.raises(CheckError, match="is in groups 0 and"):
        check_fuse(made.simplify.graph, replace(made.fuse, groups=(*made.fuse.groups, made.fuse.groups[0])))


def planned_over(made: Compilation, one: TensorOp, other: TensorOp) -> Plan:
    """The plan, with one result in the place of another."""
    there = made.plan.places[other]
    return replace(made.plan, places={**made.plan.places, one: Place(there.slot, there.column, there.stride)})


def test_a_result_over_another_is_found(made: Compilation) -> None:
    group = next(group for group in made.fuse.groups if sum(op in made.plan.places for op in group.ops) > 1)
    one, other = [op for op in group.ops if op in made.plan.places][:2]
    with pytest.raises(CheckError, match=r"after plan: .* is written over"):
        check_plan(made.fuse.groups, planned_over(made, one, other))


def test_results_between_two_kernels_over_another_are_found(made: Compilation) -> None:
    plan, groups = made.plan, made.fuse.groups
    group = next(group for group in groups if group.kind == "wkv")
    read = next(op for op in plan.places if op not in group.ops and any(
        op is tensor.source for user in group.ops for tensor in user.operands().values()
    ))  # fmt: skip
    check_plan(groups, replace(plan, between={}))
    with pytest.raises(CheckError, match="writes over"):
        check_plan(groups, replace(plan, between={group: plan.places[read].slot}))


def test_a_group_that_writes_what_it_reads_is_found(made: Compilation) -> None:
    places, first, second = made.plan.places, *made.fuse.groups[:2]
    read = {tensor.source for op in second.ops for tensor in op.operands().values()}
    source = next(op for op in first.ops if op in read)
    result = next(op for op in second.ops if op in places)
    with pytest.raises(CheckError, match="reads and writes slot"):
        check_plan(made.fuse.groups, planned_over(made, result, source))


def test_a_result_without_a_place_is_found(made: Compilation) -> None:
    op = next(iter(made.plan.places))
    places = {other: place for other, place in made.plan.places.items() if other is not op}
    with pytest.raises(CheckError, match=r"after plan: .* has no place"):
        check_plan(made.fuse.groups, replace(made.plan, places=places))


def test_a_lost_pass_is_found(made: Compilation) -> None:
    program = Program(made.program.passes[1:], made.plan)
    with pytest.raises(CheckError, match=r"after lower: .* groups are run as"):
        check_program(made.fuse, program, TARGET.limits)


def test_a_pass_beyond_the_devices_bindings_is_found(made: Compilation) -> None:
    few = replace(Limits.webgpu_default(), max_storage_buffers=3)
    with pytest.raises(CheckError, match=r"after lower: .* binds \d buffers"):
        check_program(made.fuse, made.program, few)
