"""What a user meets prints as a useful line, or a screen: never an address, never a page of internals."""

from collections.abc import Callable

import pytest

import rwkvgraph as rg
from rwkvgraph import assets, v7
from rwkvgraph.compiler import Target, compile_stages
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model

SCREEN = 60
"""Lines."""

SEEN = rg.Buffer("seen", (256,))
HOOKS = rg.Hooks({v7.PostFfn(2): lambda frame: rg.blit(frame.x[-1], SEEN)})


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(assets.default_model(), "cpu")


def used(model: Model) -> rg.State:
    state = model.state(3)
    model.run([[1], [], [2]], state)
    return state


def stages(model: Model) -> object:
    return compile_stages(model.graph, HOOKS, Target.browser())


LINES: dict[str, tuple[Callable[[Model], object], str]] = {
    "model": (lambda m: m, "Model(RWKV-7, 6 layers of 256, 4 heads of 64, hidden 1024, vocabulary 4096"),
    "info": (lambda m: m.info, "ModelInfo(version='V7', num_layer=6"),
    "graph": (lambda m: m.graph, "Graph(316 ops, 179 sites)"),
    "op": (lambda m: m.graph.ops[4], "identity f32[T, 256]"),
    "tensor": (lambda m: m.graph.ops[4].result, "identity: f32[T, 256]"),
    "view": (lambda m: m.graph.ops[4].result[-1], "identity: f32[256]"),
    "buffer": (lambda m: SEEN, "seen: f32[256] user"),
    "site": (lambda m: m.graph.sites()[3], "Site(PostAttLayerNorm(0): cursors, x, att_x)"),
    "engine": (lambda m: m.engine, "HostEngine(numpy)"),
    "target": (lambda m: m.engine.target, "Target("),
    "state": (used, "State(3 slots of [6, 66, 256] f32, 2 in use, 1.2 MB, of RWKV-7)"),
    "program on numpy": (lambda m: m.program(HOOKS), "<Graph(297 ops, 0 sites) on numpy>"),
    "stages": (stages, "Compilation(Graph(316 ops, 179 sites) to Program(52 passes"),
    "simplified": (lambda m: stages(m).simplify, "Simplified(Graph(297 ops, 0 sites))"),  # type: ignore[attr-defined]
    "groups": (lambda m: stages(m).fuse, "Fused(52 groups, "),  # type: ignore[attr-defined]
    "group": (lambda m: stages(m).fuse.groups[2], "Group(matmul: matmul×6)"),  # type: ignore[attr-defined]
    "plan": (lambda m: stages(m).plan, "Plan(7 slots for "),  # type: ignore[attr-defined]
    "program": (lambda m: stages(m).program, "Program(52 passes, at most 9 a layer, "),  # type: ignore[attr-defined]
    "pass": (lambda m: stages(m).program.passes[2], "Pass(matmul×6, layer 0; 4 buffers, "),  # type: ignore[attr-defined]
    "shader": (lambda m: stages(m).program.passes[2].variants[0], "Variant("),  # type: ignore[attr-defined]
    "hooks": (lambda m: HOOKS, "Hooks(1)\n  PostFfn(2): <lambda>"),
    "sampler": (lambda m: rg.Sampler(), "Sampler(temperature=1.0"),
    "tokenizer": (lambda m: rg.Tokenizer.load(assets.default_vocab()), "Tokenizer(4096 ids below 4096)"),
}


@pytest.mark.parametrize("name", LINES)
def test_every_object_is_one_useful_line(name: str, model: Model) -> None:
    make, start = LINES[name]
    text = repr(make(model))
    assert text.startswith(start)
    assert " at 0x" not in text
    assert len(text) < 400
    assert text.count("\n") <= (1 if name == "hooks" else 0)


LONG = {"graph": 4, "program on numpy": 4, "simplified": 4, "groups": 7, "shader": 3}
"""Screens of what has a line an operation of two layers (equal layers are folded)."""


@pytest.mark.parametrize("name", LINES)
def test_printing_is_at_most_a_few_screens(name: str, model: Model) -> None:
    lines = str(LINES[name][0](model)).splitlines()
    assert 0 < len(lines) <= LONG.get(name, 1) * SCREEN
    assert not any(" at 0x" in line for line in lines)


def test_a_program_on_a_device_prints_its_passes_and_the_device(gpu: rg.Context) -> None:
    model = Model.load(assets.default_model(), gpu)
    program = model.program()
    assert isinstance(program, Runner)
    assert repr(program).startswith("<Program(51 passes, at most 9 a layer")
    assert "layers 2-4: as layer 1" in str(program)
    assert str(program).endswith(str(gpu))
    assert repr(model.engine).startswith("GpuEngine(")
    assert str(model).splitlines()[-1] == f"on {gpu}"
