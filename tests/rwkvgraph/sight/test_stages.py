"""Stages side by side: models without weights, where sites stand later on, bytes, packing."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rwkvgraph.compiler import Target
from rwkvgraph.errors import HookError, LoadError
from rwkvgraph.load.reader import open_model
from rwkvgraph.sight.hooks_file import read_hooks, telling_where
from rwkvgraph.sight.kinds import kind_of
from rwkvgraph.sight.packing import pack, unpack
from rwkvgraph.sight.shapes import VERSIONS, ShapeReader, shapes_of
from rwkvgraph.sight.stages import Stages, look, position, sites_by_op, subject_of
from rwkvgraph.sight.traffic import sizes_of, traffic_of
from tests.rwkvgraph.models.synthetic import plan
from tests.rwkvgraph.sight.conftest import compiled

HALF, SINGLE = 2, 4


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("width", [128, 2048])
def test_shapes_are_those_of_the_synthetic_models(version: str, width: int) -> None:
    tensors = plan(3, width, vocab=256, version=version, block0_value_residual=False)
    ours = shapes_of(version, 3, width, 256)
    assert {name: [size for size in shape if size > 1] for name, shape in ours.items()} == {
        name: [size for size in tensor.shape if size > 1] for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_compiles_without_weights(version: str) -> None:
    stages = compiled(version, 2)
    assert stages.subject.info.version == version[:2].upper()
    assert len(stages.program.passes) == len(stages.lowered)


def test_looking_at_a_large_model_takes_no_memory_for_its_weights() -> None:
    target = Target.browser()
    tracemalloc.start()
    try:
        subject = subject_of(ShapeReader(shapes_of("v7", 3, 8192, 65536), "large"), target)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert subject.info.num_emb == 8192
    assert most < 8 << 20  # a single matrix would be 128 MiB


def test_rows_of_shapes_are_noise_and_not_zeros() -> None:
    rows = ShapeReader({"w": (5, 70_000)}, "made up").rows("w", 1, 3)
    assert rows.shape == (2, 70_000)
    assert rows.dtype == np.float16
    assert 0.01 < rows.astype(np.float32).std() < 0.03


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shapes_of("v8", 1, 64, 8), "no version 'v8'"),
        (lambda: shapes_of("v7", 0, 64, 8), "--layers is 0"),
        (lambda: shapes_of("v7", 1, 100, 8), "heads of 64"),
    ],
)
def test_sizes_that_no_model_has_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_tensor_that_is_not_there_is_named() -> None:
    with pytest.raises(LoadError, match="no tensor emb"):
        ShapeReader({}, "made up").shape("emb.weight")


def test_every_site_stands_somewhere_in_every_later_stage(stages: Stages) -> None:
    for ops in (stages.build.ops, stages.simplified.graph.ops, stages.fused.ops()):
        beside = sites_by_op(ops, stages.build)
        found = [site for before, after in beside.values() for site in before + after]
        assert sorted(map(id, found)) == sorted(map(id, stages.build.sites()))


def test_a_site_stands_between_what_it_stood_between(stages: Stages) -> None:
    ops = stages.simplified.graph.ops
    beside = sites_by_op(ops, stages.build)
    place = {id(site): at for at, site in enumerate(stages.build.items)}
    at = {position(item): at for at, item in enumerate(stages.build.items) if position(item) is not None}
    for op in ops:
        before, after = beside.get(id(op), ([], []))
        assert all(place[id(site)] < at[position(op)] for site in before)
        assert all(place[id(site)] > at[position(op)] for site in after)


def test_weights_have_the_names_of_the_file(stages: Stages) -> None:
    names = set(stages.subject.tensors.values())
    assert {"emb.weight", "blocks.3.att.receptance.weight", "ln_out.bias"} <= names


def test_slots_have_the_names_of_the_frame(stages: Stages) -> None:
    names = {name for found in stages.slot_names.values() for name in found}
    assert {"x", "att_r", "att_kk", "ffn_k", "head_o"} <= names


def test_bytes_of_a_matmul_are_those_of_its_matrix_and_vectors() -> None:
    stages = compiled("v4", 2)
    (step,) = [step for step in stages.lowered if step.item.label == "matmul+blit"]
    for tokens in (1, 7):
        moved = traffic_of(step, stages.plan, sizes_of(tokens))  # the head has one row whatever T is
        assert moved.read == 300 * 128 * HALF + 128 * SINGLE
        assert moved.written == 300 * SINGLE


def test_bytes_of_a_gather_are_those_of_the_rows_it_picks() -> None:
    stages = compiled("v4", 2)
    step = stages.lowered[0]
    table = next(buffer for buffer in step.item.buffers if buffer.name == "emb")
    for tokens in (1, 9):
        assert traffic_of(step, stages.plan, sizes_of(tokens)).reads[table] == tokens * 128 * HALF


def test_a_recurrence_reads_and_writes_its_state(stages: Stages) -> None:
    step = next(step for step in stages.lowered if step.group.kind == "wkv")
    moved = traffic_of(step, stages.plan, sizes_of(1))
    state = next(buffer for buffer in step.item.buffers if buffer.name.endswith(".wkv"))
    assert moved.reads[state] == moved.writes[state] == 64 * 128 * SINGLE


def test_what_one_of_two_kernels_leaves_for_the_other_is_written_and_read(known: Stages) -> None:
    step = next(step for step in known.lowered if step.group.kind == "wkv")
    slot = known.plan.between[step.group]
    long, short = (traffic_of(step, known.plan, sizes_of(tokens)) for tokens in (100, 1))
    assert long.reads[slot] == long.writes[slot] == 100 * 128 * SINGLE
    assert slot not in short.reads
    assert slot not in short.writes


def test_every_weight_is_read_about_once(stages: Stages) -> None:
    tensors = shapes_of("v7", 5, 128, 300)
    matrices = [np.prod(shape) for name, shape in tensors.items() if len(shape) == 2 and name != "emb.weight"]
    read = sum(traffic_of(step, stages.plan, sizes_of(1)).read for step in stages.lowered)
    assert HALF * sum(matrices) < read < 1.5 * HALF * sum(matrices)


def test_packed_values_unpack_to_themselves() -> None:
    values = [
        {"a": 1, "b": [1, "x", None]},
        {"a": 2, "b": [1, "y", None]},
        {"a": 2, "b": [1]},
        {"a": 3, "b": [False]},
        {"b": [], "a": 1.5},
    ]
    packed = pack(values)
    assert unpack(packed) == values
    assert packed[1] == {"as": 0, "set": [0, 2, 2, "y"]}
    assert [list(item) for item in packed] == [["whole"], ["as", "set"], ["whole"], ["as", "set"], ["whole"]]


def test_kinds_say_what_operations_mean(stages: Stages) -> None:
    kinds = {op.name: kind_of(type(op)) for op in stages.build.ops}
    assert kinds["add"].wgsl == (("result", "a + b"),)
    assert kinds["add"].where.startswith("rwkvgraph/ops/elementwise.py:")
    assert dict(kinds["keep_last"].wgsl)["row written"] == "cursors.x"
    assert kinds["wkv7"].wgsl[0][0] == "t.x"
    assert all(kind.numpy.startswith("def numpy") for kind in kinds.values())
    assert all(kind.meaning and kind.wgsl for kind in kinds.values())


def test_a_real_model_has_its_own_sizes() -> None:
    path = Path(__file__).parents[3] / "assets/models/rwkv7-tiny.st"
    stages = look(subject_of(open_model(path), Target.browser()), None, Target.browser())
    assert (stages.subject.info.num_layer, stages.subject.info.num_emb) == (6, 256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import rwkvgraph\n\nhooks = undefined_name\n",
            r"bad_hooks\.py:3: NameError: name 'undefined_name'",
        ),
        ("x = (\n", r"bad_hooks\.py:1: SyntaxError"),
        ("hooks = 3\n", "`hooks` is a int; it is to be an rg.Hooks"),
        ("print\n", "`hooks` is not set"),
        ("import no_such_module_at_all\n", r"bad_hooks\.py:1: ModuleNotFoundError"),
    ],
)
def test_a_hooks_file_that_fails_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad_hooks.py"
    path.write_text(text)
    with pytest.raises(HookError, match=message):
        read_hooks(path)


def test_a_hooks_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(HookError, match="there is no such Python file"):
        read_hooks(tmp_path / "none.py")


def test_a_hooks_file_may_import_its_neighbours_and_hold_a_dict(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_hooks.py").write_text("from rwkvgraph import v7\nWHERE = v7.PostFfn(0)\n")
    path = tmp_path / "dict_hooks.py"
    path.write_text(
        "from neighbour_of_hooks import WHERE\n\ndef nothing(frame):\n    pass\n\nhooks = {WHERE: nothing}\n"
    )
    assert len(read_hooks(path)) == 1


def test_a_hooks_file_may_define_an_operation(tmp_path: Path) -> None:
    path = tmp_path / "own_op.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport rwkvgraph as rg\n"
        "from rwkvgraph import v7\n\n\n@dataclass(frozen=True, eq=False, repr=False)\nclass Halve(rg.Map):\n"
        '    """x / 2."""\n\n    x: rg.Tensor\n    wgsl = "x * 0.5"\n\n'
        "    def numpy(self, *arrays):\n        return arrays[0] / 2\n\n\n"
        "def halve(frame):\n    frame.x = Halve(frame.x).result\n\n\n"
        "hooks = rg.Hooks({v7.PostFfn(0): halve})\n"
    )
    stages = compiled("v7", 2, path)
    kind = next(kind_of(type(op)) for op in stages.fused.ops() if op.name == "halve")
    assert kind.numpy == "def numpy(self, *arrays):\n    return arrays[0] / 2"
    assert kind.where == "own_op.py:7"


def test_a_hook_that_fails_says_where(tmp_path: Path) -> None:
    path = tmp_path / "failing.py"
    path.write_text(
        "import rwkvgraph as rg\nfrom rwkvgraph import v7\n\nhooks = rg.Hooks()\n\n"
        "@hooks.on(v7.PostFfn)\ndef wrong(frame):\n    frame.x = frame.x + [1][2]\n"
    )
    with pytest.raises(HookError, match=r"failing\.py:8: IndexError"), telling_where(path.resolve()):
        compiled("v7", 2, path)
