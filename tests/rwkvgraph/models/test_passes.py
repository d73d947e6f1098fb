"""What every version compiles to: how many passes a layer, what they bind, and what is not in their text."""

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from rwkvgraph.compiler import NAGA, TINT, Limits, Program, Target, compile
from rwkvgraph.graph import Graph
from rwkvgraph.model import Model
from tests.rwkvgraph.models.synthetic import VERSIONS, synthetic

TARGETS = [
    Target(Limits.webgpu_default(), dialect, subgroups, kind)
    for dialect in (NAGA, TINT)
    for subgroups in (False, True)
    for kind in ("cpu", "gpu")
]  # fmt: skip
assert Target.browser() in TARGETS
ROOMY = Target(replace(Limits.webgpu_default(), max_storage_buffers=64), NAGA, True, "gpu")
"""A device on which no pass is cut for its bindings."""

PASSES = {"v4": 7, "v5.0": 7, "v5.1": 7, "v5.2": 7, "v6": 10, "v7": 8}
"""A layer's. The last has one more: its feed-forward state is kept by no following layer's first pass."""
AROUND = 2
"""Passes of no layer: the rows that are wanted with their norm, and the head."""
MOST_SHADERS = 70
"""Each compiled when a run first needs it: a matrix product has up to eight kernels, by tokens."""

RANKS = {"v6": (8, 12), "v7": (8, 8, 8, 16)}


def graph(version: str, layers: int, width: int = 32, **options: Any) -> Graph:
    """A model with heads of 16 and ranks of whole blocks, unless told otherwise."""
    options = {"low_rank": RANKS.get(version), "vocab": 40, "head_size": 16} | options
    return Model.load(synthetic(version, layers, width, **options), device="cpu").graph


@cache
def program(version: str, target: Target, layers: int = 3) -> Program:
    return compile(graph(version, layers), None, target)


def texts(compiled: Program) -> list[str]:
    return sorted(source.text for source in compiled.sources())


@pytest.mark.parametrize("target", [*TARGETS, ROOMY], ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_layer_takes_so_many_passes(version: str, target: Target) -> None:
    each = PASSES[version]
    compiled = program(version, target)
    assert [len(compiled.passes_of(layer)) for layer in (0, 1, 2, None)] == [each, each, each + 1, AROUND]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_layer_alone_takes_as_many_as_the_last(version: str) -> None:
    compiled = program(version, Target.browser(), layers=1)
    assert [len(compiled.passes_of(layer)) for layer in (0, None)] == [PASSES[version] + 1, AROUND]


@pytest.mark.parametrize("size", [5, 8, 20, 64])
@pytest.mark.parametrize("version", VERSIONS)
def test_widths_and_heads_of_any_size_take_no_more(version: str, size: int) -> None:
    compiled = compile(graph(version, 2, 3 * size, head_size=size, hidden=41), None, Target.browser())
    assert [len(compiled.passes_of(layer)) for layer in (0, 1)] == [PASSES[version], PASSES[version] + 1]


@pytest.mark.parametrize(("rank", "copies"), [(4, 0), (32, 0), (6, 2), (5, 3), (1, 3)])
def test_a_rank_of_no_whole_blocks_takes_a_copy_of_each_part_that_starts_within_one(
    rank: int, copies: int
) -> None:
    compiled = compile(graph("v6", 2, low_rank=(rank, 6)), None, Target.browser())
    assert sum(part * rank % 4 != 0 for part in range(5)) == copies
    assert [len(compiled.passes_of(layer)) for layer in (0, 1)] == [10 + copies, 11 + copies]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_no_pass_binds_more_than_the_target_allows(version: str, target: Target) -> None:
    for step in program(version, target).passes:
        assert len(step.buffers) <= target.limits.max_storage_buffers == 8, step.label
        assert len(set(step.buffers)) == len(step.buffers), step.label


@pytest.mark.parametrize("target", TARGETS[:4], ids=str)  # the other dialect differs by a line
@pytest.mark.parametrize("version", ["v4", "v5.0", "v5.2", "v6"])  # of V7: compiler/test_program.py
def test_models_of_any_depth_share_their_shaders(version: str, target: Target) -> None:
    two, three, five = (texts(program(version, target, layers)) for layers in (2, 3, 5))
    assert two == three == five
    assert len(two) <= MOST_SHADERS


@pytest.mark.parametrize("target", TARGETS[:4], ids=str)  # the other dialect differs by a line
@pytest.mark.parametrize("version", ["v4", "v5.2", "v6"])  # of V7: compiler/test_program.py
def test_no_width_is_in_a_shaders_text(version: str, target: Target) -> None:
    narrow, wide = (texts(compile(graph(version, 2, width), None, target)) for width in (64, 512))
    assert narrow == wide


SIZES = {"width": 336, "hidden": 1128, "vocab": 7016}
ODD = {"width": 339, "hidden": 1129, "vocab": 7019}


@pytest.mark.parametrize("sizes", [SIZES, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("version", ["v4", "v5.0", "v5.2", "v6"])
def test_no_size_but_the_heads_is_in_a_shaders_text(version: str, sizes: dict[str, int]) -> None:
    ranks = (104, 616) if sizes is SIZES else (103, 619)
    ranked: dict[str, Any] = {"low_rank": ranks} if version == "v6" else {}
    heads = {"head_size": 16 if sizes is SIZES else 3}
    compiled = compile(graph(version, 2, **sizes, **heads, **ranked), None, Target.browser())
    numbers = {int(n) for text in texts(compiled) for n in re.findall(r"(?<![\w.])(\d+)u?\b", text)}
    assert not numbers & {*sizes.values(), *ranks, 5 * ranks[0]}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_program_prints_its_passes_with_equal_layers_folded(version: str) -> None:
    compiled = program(version, Target.browser(), 5)
    assert re.search(r"… layers? \d.*: as layer 1 \(\d ×\)", str(compiled))
    assert f"at most {PASSES[version] + 1} a layer" in repr(compiled)
