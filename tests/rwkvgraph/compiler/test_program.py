"""Programs: what is in the text of shaders, what is not, and how many there are."""

import re
from dataclasses import replace

import pytest

from rwkvgraph.compiler import NAGA, TINT, Limits, Program, Target, compile, tuning
from rwkvgraph.errors import CompileError
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.view import B, E, N, O, T
from tests.rwkvgraph.models.synthetic import synthetic_v7

TARGETS = [
    Target(Limits.webgpu_default(), dialect, subgroups, kind)
    for dialect in (NAGA, TINT)
    for subgroups in (False, True)
    for kind in ("cpu", "gpu")
]  # fmt: skip
MOST_SHADERS = 60  # each compiled when a run first needs it: up to eight kernels a product, by tokens


def model(layers: int, width: int, head_size: int = 16, vocab: int = 40) -> Model:
    return Model.load(
        synthetic_v7(layers, width, head_size, vocab=vocab, low_rank=(8, 8, 8, 16)), device="cpu"
    )


def texts(program: Program) -> list[str]:
    return sorted(source.text for source in program.sources())


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_sites_that_nothing_hooks_leave_every_shader_as_it_is(target: Target) -> None:
    graph = model(2, 32).graph
    bare = compile(Graph(graph.ops), None, target)
    with_sites = compile(graph, Hooks(), target)
    assert graph.sites()
    assert [step.label for step in with_sites.passes] == [step.label for step in bare.passes]
    for a, b in zip(with_sites.passes, bare.passes, strict=True):
        assert [variant.source.text for variant in a.variants] == [
            variant.source.text for variant in b.variants
        ]


def test_a_token_in_each_slot_has_a_kernel_that_takes_no_second() -> None:
    target = Target(Limits.webgpu_default(), NAGA, True, "gpu")
    program = compile(model(2, 32).graph, None, target)
    item = next(item for item in program.passes if item.group.kind == "wkv")
    one, each, many = item.variants
    sizes = {T: 4, O: 1, N: 4, B: 9, E: 1}
    assert (one.max_rows, each.is_one_each, many.is_one_each) == (1, True, False)
    assert item.variant(sizes | {T: 1, N: 1}) is one
    assert item.variant(sizes) is each
    assert item.variant(sizes | {T: 5}) is item.variant(sizes | {N: 1}) is many
    assert each.grid.at(sizes, 65535) == (2, 1, 4), "a workgroup a head and slot"


@pytest.mark.parametrize("target", TARGETS[:4], ids=str)  # the other dialect differs by a line
def test_models_of_any_depth_share_their_shaders(target: Target) -> None:
    two, three, twelve = (texts(compile(model(layers, 32).graph, None, target)) for layers in (2, 3, 12))
    assert two == three == twelve
    assert len(two) <= MOST_SHADERS


@pytest.mark.parametrize("target", TARGETS[:4], ids=str)  # the other dialect differs by a line
def test_no_width_is_in_a_shaders_text(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    always = [shape for shape in tuning.GPU.matmul if not shape.min_groups]  # others are for some widths
    monkeypatch.setattr(tuning, "GPU", replace(tuning.GPU, matmul=tuple(always)))
    narrow, wide = (texts(compile(model(2, width).graph, None, target)) for width in (256, 512))
    assert narrow == wide


def test_no_size_but_the_heads_is_in_a_shaders_text() -> None:
    sizes = {
        "layers": 2,
        "width": 336,
        "head_size": 16,
        "hidden": 1128,
        "vocab": 7016,
        "low_rank": (520, 616, 712, 808),
    }
    graph = Model.load(synthetic_v7(**sizes), device="cpu").graph  # type: ignore[arg-type]  # sizes, as named
    program = compile(graph, None, Target.browser())
    numbers = {int(n) for text in texts(program) for n in re.findall(r"(?<![\w.])(\d+)u?\b", text)}
    assert not numbers & {336, 1128, 7016, 520, 616, 712, 808}


def test_one_program_serves_every_number_of_tokens() -> None:
    program = compile(model(2, 32).graph, None, Target.browser())
    shapes = {}
    for tokens in (1, 2, 33, 4096):
        sizes = {T: tokens, O: 1, N: 1, B: 1}
        shapes[tokens] = [step.variant(sizes).grid.at(sizes, 65535) for step in program.passes]
        assert all(0 not in grid for grid in shapes[tokens])
    assert shapes[1] != shapes[4096]


def test_a_grid_too_long_for_one_dimension_goes_on_in_the_next() -> None:
    program = compile(model(1, 32).graph, None, Target.browser())
    for limit in (1, 7, 65535):
        for step in program.passes:
            sizes = {T: 100, O: 3, N: 2, B: 2}
            grid = step.variant(sizes).grid
            x, y, z = grid.at(sizes, limit)
            x, y = (y, z) if grid.deep_first else (x, y)
            count = -(-grid.items.at(sizes) // grid.per_group)
            assert x * y >= count
            assert x <= limit or limit < y


def test_no_pass_binds_more_than_a_browser_allows() -> None:
    program = compile(model(3, 32).graph, None, Target.browser())
    assert max(len(step.buffers) for step in program.passes) <= 8
    for step in program.passes:
        assert len(set(step.buffers)) == len(step.buffers)


def test_a_pass_that_must_bind_more_than_there_is_says_which() -> None:
    target = Target.browser()
    few = replace(target, limits=replace(target.limits, max_storage_buffers=2))
    with pytest.raises(
        CompileError, match=r"pass .* binds \d+ buffers; the device binds 2 \(first built at "
    ):
        compile(model(1, 32).graph, None, few)


def test_a_program_prints_its_passes_with_equal_layers_folded() -> None:
    program = compile(model(6, 32).graph, None, Target.browser())
    assert re.search(r"… layers? 2.*: as layer 1 \(\d ×\)", str(program))
    assert re.fullmatch(
        r"Program\(\d+ passes, at most \d+ a layer, \d+ pairs for one token, "
        r"\d+ shaders, \d+ scratch slots\)",
        repr(program),
    )
