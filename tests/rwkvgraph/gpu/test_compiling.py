"""Several shaders at once: what comes out, what is refused, and what is not compiled twice."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rwkvgraph.errors import CompileError
from rwkvgraph.gpu import Context, Kernel, Signature, dump_folder
from rwkvgraph.gpu.compiling import Shader
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model
from rwkvgraph.view import B, E, N, O, T
from tests.rwkvgraph.models.oracle_v7 import Array

pytestmark = pytest.mark.gpu

SIGNATURE = Signature(("write",))


def shader(number: int, value: str | None = None) -> Shader:
    """One that writes a number."""
    text = (
        "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n"
        f"@compute @workgroup_size(1) fn main() {{ y[0] = {value or f'{number}u'}; }}\n"
    )
    return Shader(text, SIGNATURE, f"write {number}")


@pytest.fixture
def context(gpu: Context) -> Iterator[Context]:
    """One with nothing compiled yet."""
    context = Context.create(gpu.info.index)
    yield context
    context.destroy()


def kernel(context: Context, item: Shader) -> Kernel:
    return context.kernel(item.text, item.signature, item.label)


def test_kernels_made_together_are_those_made_one_by_one_in_order(context: Context) -> None:
    shaders = [shader(number) for number in range(20)]
    context.compile(shaders)
    made = context.kernels
    assert [(item.text, item.signature, item.label) for item in made] == [
        (item.text, item.signature, item.label) for item in shaders
    ]
    assert tuple(kernel(context, item) for item in shaders) == made
    assert context.compile_seconds > 0


def test_a_text_that_is_asked_for_often_is_compiled_once(context: Context) -> None:
    first = kernel(context, shader(1))
    context.compile([shader(number % 3) for number in range(12)])
    assert [item.label for item in context.kernels] == ["write 1", "write 0", "write 2"]
    assert context.kernels[0] is first


def test_several_threads_get_the_same_kernels(context: Context) -> None:
    shaders = [shader(number) for number in range(8)]
    found: list[tuple[Kernel, ...]] = []

    def ask() -> None:
        context.compile(shaders)
        found.append(tuple(kernel(context, item) for item in shaders))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found == [context.kernels] * 4


def test_of_several_refused_shaders_the_first_is_named(context: Context) -> None:
    shaders = [shader(number, f"unknown_{number}" if number in (3, 5) else None) for number in range(8)]
    with pytest.raises(CompileError, match=r"The shader write 3 was refused[\s\S]*unknown_3") as caught:
        context.compile(shaders)
    assert "unknown_5" not in str(caught.value)
    assert kernel(context, shader(4)).label == "write 4"


def test_with_a_dump_the_last_file_is_the_refused_shader(gpu: Context, tmp_path: Path) -> None:
    context = Context.create(gpu.info.index, dump_folder(tmp_path))
    with pytest.raises(CompileError, match="write 2"):
        context.compile([shader(number, "unknown" if number == 2 else None) for number in range(8)])
    assert sorted(path.name[:7] for path in tmp_path.iterdir()) == ["write_0", "write_1", "write_2"]
    context.destroy()


@pytest.mark.parametrize("tokens", [1, 40])
def test_a_run_needs_what_was_made_for_its_sizes(
    context: Context, small_tensors: dict[str, Array], tokens: int
) -> None:
    model = Model.load(small_tensors, context)
    program = model.program()
    assert isinstance(program, Runner)
    sizes = {T: tokens, O: 1, N: 1, B: 1, E: 1}
    program.compile(sizes)
    made = context.kernels
    assert made
    model.run([[1] * tokens], model.state())
    assert context.kernels == made
