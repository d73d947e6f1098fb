"""Every shader of the V7 model, and of hooked and users' graphs, before both WGSL front ends.

In processes of their own: naga aborts on some texts that it should refuse, and one device of Dawn is enough.
Dawn's null backend needs no driver, and has the limits of browsers.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkvgraph import Hooks, ops, v7
from rwkvgraph.compiler import NAGA, TINT, Limits, Target, compile, tuning
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.compiling import access_of
from rwkvgraph.graph import Graph
from rwkvgraph.model import Model
from rwkvgraph.op import Array, Buffer, Map, Reduction, Role, Row, Tensor, tape
from rwkvgraph.ops.sample import SETTINGS, Sample
from rwkvgraph.testing import buffers_of, holding, matrix
from rwkvgraph_codegen import Shape, Source
from tests.rwkvgraph.models.synthetic import synthetic_v7

BROWSER = Limits.webgpu_default()
ROOMY = replace(BROWSER, max_workgroup_storage=32768)
"""As on llvmpipe. Dawn's null backend makes no pipeline that needs more memory than browsers give."""
# (head size, width, hidden, vocabulary, low ranks): wide and narrow heads, whole blocks of weights and not
SHAPES = [
    (64, 128, 256, 48, (32, 32, 32, 32)),
    (5, 15, 7, 3, (3, 2, 5, 7)),
]
BAD = [
    ("a mistake of type", "@compute @workgroup_size(1) fn main() { let x = 1u + 1.0f; }"),
    ("no such function", "@compute @workgroup_size(1) fn main() { let x = frobnicate(1.0); }"),
]

TINT_CHECK = """
import json, sys
import wgpudawn as wgpu

from wgpudawn.backends.dawn import extras

extras.set_instance_extras(enable_toggles=["allow_unsafe_apis"])
features = ["subgroups", "shader-f16", "chromium-experimental-subgroup-matrix"]
device = wgpu.gpu.request_adapter_sync().request_device_sync(required_features=features)
refused = {}
for label, text, _ in json.load(open(sys.argv[1])):
    try:
        module = device.create_shader_module(label=label, code=text)
        device.create_compute_pipeline(layout="auto", compute={"module": module, "entry_point": "main"})
    except wgpu.GPUError as error:
        refused[label] = str(error)
json.dump(refused, open(sys.argv[2], "w"))
"""

NAGA_CHECK = """
import json, sys
from rwkvgraph.errors import CompileError
from rwkvgraph.gpu import Context, Signature

context = Context.create()
refused = {}
for label, text, accesses in json.load(open(sys.argv[1])):
    try:
        context.kernel(text, Signature(tuple(accesses)), label)
    except CompileError as error:
        refused[label] = str(error)
json.dump(refused, open(sys.argv[2], "w"))
"""

Shader = tuple[str, str, tuple[str, ...]]
"""Label, text, and how each binding is reached."""


@dataclass(frozen=True, eq=False, repr=False)
class Peak(Row):
    """A user's row: x over the largest |x|."""

    x: Tensor

    reduce = (Reduction("top", "abs(x)", "max"),)
    wgsl = "x / V(top)"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] / np.abs(arrays[0]).max(-1, keepdims=True))


@dataclass(frozen=True, eq=False, repr=False)
class Wave(Map):
    """A user's map: size * sin x."""

    x: Tensor
    size: float = 0.5

    wgsl = "size * sin(x)"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.float32(self.size) * np.sin(arrays[0]))


def hooks(width: int, heads: int) -> Hooks:
    """Hooks that read, replace and capture, with maps and rows of users, around every kind of pass."""
    made, seen = Hooks(), Buffer("seen", (4, width))

    @made.on(v7.PreAttTimeMix)
    def around_the_recurrence(frame: v7.Frame) -> None:
        by_head = frame.att_r.reshape(frame.x.shape[0], heads, width // heads)
        frame.att_r = ops.identity(ops.softmax(by_head).reshape(*frame.x.shape))
        frame.att_v = Wave(Peak(frame.att_v).result).result

    @made.on(v7.PostAttTimeMix)
    def behind_it(frame: v7.Frame) -> None:
        frame.att_x = Peak(frame.att_x).result
        ops.blit(frame.att_x[-1], seen[0])

    @made.on(v7.PostFfn)
    def on_the_stream(frame: v7.Frame, layer: int) -> None:
        ops.blit(frame.x[-1], seen[1])
        frame.x = Wave(frame.x + holding(np.ones(width))).result

    made.add(v7.PostAttLinear(1), lambda frame: ops.blit(frame.att_k[-1], seen[2]))
    return made


def users_graph() -> Graph:
    """Ops of users and of ours over rows of odd lengths, with a matrix."""
    with tape() as items:
        for width in (1, 3, 30, 64):
            x = Wave(Peak(holding(np.ones((3, width)))).result).result
            ops.blit(ops.softmax(x) + ops.l2_norm(x), Buffer("out", (3, width)).tensor)
            ops.blit(ops.tanh(ops.matmul(matrix(np.ones((7, width))), x)), Buffer("product", (3, 7)).tensor)
            ops.blit(x.transpose(1, 0), Buffer("turned", (width, 3)).tensor)
    return Graph(tuple(items))


def drawing_graph() -> Graph:
    """A draw of two rows of tokens."""
    with tape() as items:
        rows, words = holding(np.ones((2, 30))), holding(np.zeros((2, 8), np.uint32))
        rules, ids = holding(np.zeros((2, SETTINGS), np.uint32)), holding(np.zeros(2, np.uint32))
        Sample(holding(np.zeros(30)), rows, holding(np.zeros((2, 30))), rules, ids, words)
    return Graph(tuple(items))


def two_products() -> Graph:
    """Products of two matrices side by side, of columns that are no whole blocks, each with a map."""
    with tape() as items:
        for at in range(2):
            x, out = holding(np.ones((3, 9))), Buffer(f"out {at}", (3, 64))
            ops.blit(ops.tanh(ops.matmul(matrix(np.ones((64, 9))), x)), out.tensor)
    return Graph(tuple(items))


def one_product() -> Graph:
    """A product with a map."""
    with tape() as items:
        product = ops.matmul(matrix(np.ones((64, 9))), holding(np.ones((3, 9))))
        ops.blit(ops.tanh(product), Buffer("out", (3, 64)).tensor)
    return Graph(tuple(items))


def products(dialect: str, limits: Limits) -> Iterator[Source]:
    """Every kernel of the matrix product in the table for GPUs that fits, also what no small matrix takes."""
    target = Target(limits, TINT if dialect == "tint" else NAGA, True, "gpu")
    for shape in dict.fromkeys(map(tuning.kernel_of, tuning.GPU.matmul)):
        if tuning.fits(shape, limits):
            table = replace(tuning.GPU, matmul=(shape, tuning.GPU.matmul[-1]))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tuning, "GPU", table)
                yield from compile(two_products(), None, target).sources()


MATRICES = (
    Shape("matrix", 128, 16, 16, wide=2, teams=2, depth=32),
    Shape("matrix", 128, 16, 32, wide=4, depth=32),
    Shape("matrix", 256, 16, 16, wide=2, teams=2, depth=32),
    Shape("matrix", 128, 16, 16, wide=2, teams=2, depth=32, splits=2, max_groups=64),
)
"""As small as Dawn's null backend takes them: in 16 KiB, and in whole subgroups of 128 threads."""


def products_of_matrices() -> Iterator[Source]:
    """Kernels whose subgroups multiply matrices."""
    for shape in MATRICES:
        table = (shape, tuning.GPU.matmul[-1])
        target = Target(BROWSER, TINT, True, "gpu", matrices="native", matmul=table)
        found = list(compile(one_product(), None, target).sources())
        assert "subgroupMatrixMultiplyAccumulate" in found[0].text
        yield from found


def graphs(in_textures: bool) -> Iterator[tuple[Graph, Hooks | None]]:
    for size, width, hidden, vocab, ranks in SHAPES:
        tensors = synthetic_v7(2, width, size, hidden, vocab, ranks)
        graph = Model.load(tensors, device="cpu").graph
        for buffer in buffers_of(graph):
            buffer.is_texture = in_textures and buffer.role is Role.WEIGHT and buffer.name != "emb"
        yield graph, None
        yield graph, hooks(width, width // size)
    yield users_graph(), None
    yield drawing_graph(), None


def targets(dialect: str) -> Iterator[Target]:
    """Every consistent target of a front end: GPUs, and software of known and unknown subgroup size."""
    front_end = TINT if dialect == "tint" else NAGA
    for subgroups in (False, True):
        yield Target(BROWSER, front_end, subgroups, "gpu")
        yield Target(BROWSER, front_end, subgroups, "cpu")
    yield Target(BROWSER, front_end, True, "gpu", looks=True)
    yield Target(BROWSER, front_end, True, "cpu", 8)


@cache
def shaders(dialect: str) -> tuple[Shader, ...]:
    """Every distinct shader for a front end."""
    found: dict[str, Shader] = {}
    for target in targets(dialect):
        for graph, added in graphs(in_textures=target.kind == "cpu"):
            for source in compile(graph, added, target).sources():
                note(found, source)
    for source in products(dialect, BROWSER):
        note(found, source)
    return tuple(found.values())


def note(found: dict[str, Shader], source: Source) -> None:
    """Add a shader to those found, unless it is there."""
    found.setdefault(source.text, (f"{len(found)} {source.label}", source.text, accesses_of(source)))


def accesses_of(source: Source) -> tuple[str, ...]:
    """How a kernel's bindings are declared, from the first on."""
    first = "table" if source.is_tabled else "uniform"
    return first, *(access_of(binding) for binding in source.bindings)


def refusals(script: str, texts: tuple[Shader, ...], folder: Path, **environment: str) -> dict[str, str]:
    """What a front end says about each text that it refuses, by label."""
    given, said = folder / "shaders.json", folder / "refused.json"
    given.write_text(json.dumps(texts))
    done = subprocess.run(
        [sys.executable, "-c", script, str(given), str(said)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(said.read_text())
    return result


BAD_SHADERS: tuple[Shader, ...] = tuple((label, text, ("uniform",)) for label, text in BAD)


NEEDS_TINT = pytest.mark.skipif(
    find_spec("wgpudawn") is None, reason="wgpudawn, which brings Tint, is not installed"
)


def check_tint(found: tuple[Shader, ...], folder: Path) -> None:
    """Fail unless Tint accepts these shaders, and refuses the bad ones."""
    check_refusals(refusals(TINT_CHECK, (*found, *BAD_SHADERS), folder, WGPU_BACKEND_TYPE="Null"))


def check_naga(found: tuple[Shader, ...], gpu: Context, folder: Path) -> None:
    """Fail unless naga accepts these shaders, of subgroups where there are such, and refuses the bad ones."""
    known = [shader for shader in found if gpu.target.subgroups or "subgroup" not in shader[1]]
    check_refusals(refusals(NAGA_CHECK, (*known, *BAD_SHADERS), folder))


def check_refusals(refused: dict[str, Any]) -> None:
    """Fail unless just the bad shaders were refused."""
    assert {label for label, _ in BAD} <= set(refused)
    assert {label: text[:2000] for label, text in refused.items() if label not in dict(BAD)} == {}


@NEEDS_TINT
def test_tint_accepts_every_shader_and_refuses_bad_ones(tmp_path: Path) -> None:
    check_tint(shaders("tint"), tmp_path)


@NEEDS_TINT
def test_tint_accepts_products_by_matrices_of_subgroups(tmp_path: Path) -> None:
    found: dict[str, Shader] = {}
    for source in products_of_matrices():
        note(found, source)
    check_tint(tuple(found.values()), tmp_path)


def test_naga_accepts_every_shader_and_refuses_bad_ones(gpu: Context, tmp_path: Path) -> None:
    check_naga(shaders("naga"), gpu, tmp_path)


def test_naga_accepts_the_products_for_much_workgroup_memory(gpu: Context, tmp_path: Path) -> None:
    found: dict[str, Shader] = {}
    for source in products("naga", ROOMY):
        note(found, source)
    check_naga(tuple(found.values()), gpu, tmp_path)


def test_no_swap_reaches_further_than_a_subgroup_can() -> None:
    """Which Tint refuses; its null backend has no room for the kernels that once did."""
    size, width, hidden, vocab, ranks = SHAPES[0]
    graph = Model.load(synthetic_v7(2, width, size, hidden, vocab, ranks), device="cpu").graph
    found = compile(graph, None, Target(ROOMY, TINT, True, "gpu", lanes=32)).sources()
    masks = {int(mask) for source in found for mask in re.findall(r"ShuffleXor\(\w+, (\d+)u\)", source.text)}
    assert max(masks) == 64


@pytest.mark.parametrize("dialect", ["naga", "tint"])
def test_the_subgroup_line_stands_where_the_front_end_wants_it(dialect: str) -> None:
    line = "enable subgroups;"
    for label, text, _ in shaders(dialect):
        wanted = dialect == "tint" and "subgroup" in text.replace(line, "")
        assert text.startswith(line) == wanted, label
        assert text.count(line) == wanted, label


def test_the_front_ends_see_the_same_text_but_for_that_line() -> None:
    naga, tint = ([text for _, text, _ in shaders(dialect)] for dialect in ("naga", "tint"))
    assert naga == [text.removeprefix("enable subgroups;\n").lstrip("\n") for text in tint]
