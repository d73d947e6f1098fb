"""The text of every stage for a small model, and that `RWKVGRAPH_DUMP` writes them all in time."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rwkvgraph import Hooks, ops, v7
from rwkvgraph.compiler import Dump, Target, compile
from rwkvgraph.errors import CompileError
from rwkvgraph.gpu import Context, Signature
from rwkvgraph.gpu.context import dump_folder
from rwkvgraph.model import Model
from rwkvgraph.op import Buffer
from tests.rwkvgraph.models.synthetic import synthetic_v7

STAGES = ["00-build", "10-splice", "20-simplify", "30-fuse", "40-plan", "60-program"]


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dump of a model of two layers with a hook, compiled for browsers."""
    folder = tmp_path_factory.mktemp("dump")
    tensors = synthetic_v7(2, 8, head_size=4, hidden=12, vocab=16, low_rank=(4, 4, 4, 4))
    hooks, seen = Hooks(), Buffer("seen", (8,))

    @hooks.on(v7.PostFfn(1))
    def tap(frame: v7.Frame) -> None:
        ops.blit(frame.x[-1], seen.tensor)

    compile(Model.load(tensors, device="cpu").graph, hooks, Target.browser(), Dump(folder))
    return folder


def test_compiling_writes_a_text_for_every_stage(dumps: Path) -> None:
    assert sorted(path.name for path in dumps.iterdir()) == [f"{stage}.txt" for stage in STAGES]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_prints_as_it_did(dumps: Path, golden: Callable[[str, str], None], stage: str) -> None:
    golden(f"stages/{stage}.txt", (dumps / f"{stage}.txt").read_text(encoding="utf-8"))


RUN = """
import sys
from rwkvgraph.model import Model
from tests.rwkvgraph.models.synthetic import synthetic_v7

model = Model.load(synthetic_v7(1, 8, head_size=4, hidden=12, vocab=16, low_rank=(4, 4, 4, 4)))
model.run([[1, 2, 3]], model.state())
print(len(model.engine.context.kernels))
"""


def test_a_run_leaves_every_stage_and_every_shader_in_the_folder(gpu: Context, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "RWKVGRAPH_DUMP": str(tmp_path / "dump"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, timeout=120, check=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert sorted(path.stem for path in (tmp_path / "dump").glob("*.txt")) == STAGES
    shaders = list((tmp_path / "dump" / "50-kernels").glob("*.wgsl"))
    assert len(shaders) == int(done.stdout)
    assert any(path.name.startswith("matmul") for path in shaders)
    assert not list((tmp_path / "dump").rglob(".*")), "unfinished files were left"


def test_a_shader_is_in_the_folder_before_the_driver_refuses_it(gpu: Context, tmp_path: Path) -> None:
    context = Context.create(gpu.info.index, dump_folder(tmp_path))
    bad = "@compute @workgroup_size(1) fn main() { nonsense(); }"
    with pytest.raises(CompileError, match="nonsense"):
        context.kernel(bad, Signature(()), "layer_norm+lerp×6")
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("layer_norm+lerp_6-")
    assert path.read_text() == bad


def test_nothing_is_written_where_nobody_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RWKVGRAPH_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    tensors = synthetic_v7(1, 8, head_size=4, hidden=8, vocab=4, low_rank=(4, 4, 4, 4))
    compile(Model.load(tensors, device="cpu").graph, None, Target.browser())
    assert list(tmp_path.iterdir()) == []
