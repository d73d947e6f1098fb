"""Adapters, kernels, buffers, and what faults become."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wgpu.classes import GPUBuffer, GPUValidationError

from rwkvgraph.compiler.target import MIB, Limits, Target
from rwkvgraph.errors import CompileError, DeviceError
from rwkvgraph.gpu import Context, Kernel, Signature, download, dump_folder, list_adapters, upload
from rwkvgraph.gpu.adapter import AdapterInfo, kind_of, matches, preference
from rwkvgraph.gpu.context import mebibytes
from rwkvgraph.gpu.faults import excerpt, faults, shader_fault

DOUBLE = """
@group(0) @binding(0) var<uniform> by: vec4<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&x) { y[id.x] = x[id.x] * by.x; }
}
"""
SIGNATURE = Signature(("uniform", "read", "write"))

SUM = """
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) lane: u32) { y[lane] = subgroupAdd(1.0); }
"""


def run(context: Context, kernel: Kernel, buffers: list[GPUBuffer], offsets: list[int]) -> None:
    """One dispatch of one workgroup; a uniform binding sees 16 bytes."""
    kinds = kernel.signature.accesses
    entries = [
        {"binding": i, "resource": {"buffer": buffer, **({"size": 16} if kinds[i] == "uniform" else {})}}
        for i, buffer in enumerate(buffers)
    ]
    group = context.device.create_bind_group(layout=kernel.layout, entries=entries)
    encoder = context.device.create_command_encoder()
    compute = encoder.begin_compute_pass()
    compute.set_pipeline(kernel.pipeline)
    compute.set_bind_group(0, group, offsets)
    compute.dispatch_workgroups(1)
    compute.end()
    context.submit([encoder.finish()])


def fake(kind: str, backend: str = "Vulkan", name: str = "GPU") -> AdapterInfo:
    return AdapterInfo(0, name, backend, kind, "")


def test_adapters_come_best_first() -> None:
    first_to_last = [
        fake("discrete"),
        fake("discrete", "D3D12"),
        fake("integrated"),
        fake("virtual"),
        fake("discrete", "OpenGL"),
        fake("software"),
    ]
    assert [preference(info) for info in first_to_last] == sorted(map(preference, first_to_last))
    assert len(set(map(preference, first_to_last))) == len(first_to_last)


def test_a_virtual_gpu_is_not_taken_for_software() -> None:
    assert kind_of("llvmpipe (LLVM 15.0.6, 256 bits)", "CPU") == "software"
    assert kind_of("SwiftShader Device (LLVM 16.0.0)", "CPU") == "software"
    assert kind_of("Virtio-GPU Venus (NVIDIA)", "CPU") == "virtual"


def test_an_adapter_answers_to_a_part_of_its_name_or_its_index() -> None:
    info = fake("discrete", name="NVIDIA H200")
    assert matches(info, None)
    assert matches(info, "h200")
    assert matches(info, 0)
    assert not matches(info, "amd")
    assert not matches(info, 1)


def test_an_adapter_prints_as_one_line() -> None:
    info = replace(fake("discrete", name="NVIDIA H200"), driver="570.1", subgroup_sizes=(32, 32))
    assert str(info) == "0: NVIDIA H200 (discrete, Vulkan, 570.1, subgroups of 32)"
    assert "subgroups of 8 to 32" in str(replace(info, subgroup_sizes=(8, 32)))


def test_the_context_is_on_the_first_adapter_and_prints_as_one_line(gpu: Context) -> None:
    assert gpu.info == list_adapters()[0]
    assert "\n" not in str(gpu)
    assert gpu.info.name in str(gpu)


def test_an_unknown_adapter_raises_with_what_there_is(gpu: Context) -> None:
    with pytest.raises(DeviceError, match="no such adapter") as caught:
        Context.create("no such adapter")
    assert str(gpu.info) in str(caught.value)
    assert "mesa-vulkan-drivers" in str(caught.value)


def test_any_device_has_the_limits_of_the_webgpu_default(gpu: Context) -> None:
    least, given = Limits.webgpu_default(), gpu.target.limits
    assert given.max_storage_buffers >= least.max_storage_buffers
    assert given.max_storage_binding >= least.max_storage_binding
    assert given.max_workgroup_storage >= least.max_workgroup_storage
    assert given.storage_alignment <= least.storage_alignment


def test_the_browser_target_asks_for_nothing_special() -> None:
    assert Target.browser().limits == Limits.webgpu_default()
    assert not Target.browser().subgroups
    assert Target.browser(subgroups=True).dialect.subgroup_header == "enable subgroups;\n"


def test_a_kernel_computes_with_an_offset_uniform(gpu: Context, rng: np.random.Generator) -> None:
    x = rng.standard_normal(50, np.float32)
    factors = np.zeros(128, np.float32)
    factors[[0, 64]] = 2.0, 3.0
    kernel = gpu.kernel(DOUBLE, SIGNATURE, "double")
    by, source, result = gpu.buffer(512, "by", "uniform"), gpu.buffer(200, "x"), gpu.buffer(200, "y")
    upload(gpu, by, 0, factors)
    upload(gpu, source, 0, x)

    run(gpu, kernel, [by, source, result], [256])

    np.testing.assert_array_equal(download(gpu, result, 0, 200).view(np.float32), x * np.float32(3))


def test_kernels_are_cached_by_text_and_signature(gpu: Context) -> None:
    kernel = gpu.kernel(DOUBLE, SIGNATURE, "one")
    assert gpu.kernel(DOUBLE, Signature(("uniform", "read", "write")), "two") is kernel
    assert gpu.kernel(DOUBLE + "// other\n", SIGNATURE, "three") is not kernel


def test_the_probed_dialect_compiles_subgroups(gpu: Context) -> None:
    if not gpu.target.subgroups:
        pytest.skip(f"{gpu.info.name} has no subgroups")
    kernel = gpu.kernel(gpu.target.dialect.subgroup_header + SUM, Signature(("write",)), "sum")
    sums = gpu.buffer(128, "sums")
    run(gpu, kernel, [sums], [])
    sizes = download(gpu, sums, 0, 128).view(np.float32)
    assert sizes.min() >= min(gpu.info.subgroup_sizes or (4,))


def test_subgroups_can_be_forced_off(gpu: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKVGRAPH_SUBGROUPS", "0")
    context = Context.create(gpu.info.index)
    assert not context.target.subgroups
    context.destroy()


def test_a_refused_shader_raises_with_its_line(gpu: Context) -> None:
    with pytest.raises(CompileError, match="unknown_name") as caught:
        gpu.kernel(DOUBLE.replace("by.x", "unknown_name"), SIGNATURE, "broken")
    assert ">    8 |     if id.x < arrayLength(&x) { y[id.x] = x[id.x] * unknown_name; }" in str(caught.value)
    assert "The shader broken was refused" in str(caught.value)


def test_a_kernel_that_disagrees_with_its_signature_raises(gpu: Context) -> None:
    with pytest.raises(CompileError, match="disagreeing"):
        gpu.kernel(DOUBLE, Signature(("uniform", "read", "read")), "disagreeing")


def test_a_line_is_shown_with_its_neighbours() -> None:
    assert excerpt("a\nb\nc\nd\ne", 1, 1, around=1) == ">    1 | a\n         ^\n     2 | b"


def test_tints_way_to_name_a_line_is_understood() -> None:
    error = GPUValidationError("Error while parsing WGSL:\n:2:5 error: unresolved value 'foo'")
    assert ">    2 | y = foo;" in str(shader_fault("// one\ny = foo;", "kernel", error))


def test_shaders_are_on_disk_before_they_are_compiled(gpu: Context, tmp_path: Path) -> None:
    context = Context.create(gpu.info.index, dump=dump_folder(tmp_path))
    with pytest.raises(CompileError):
        context.kernel("@compute fn main() { broken }", Signature(()), "mat/mul+add")
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("mat_mul+add-")
    assert path.suffix == ".wgsl"
    assert path.read_text() == "@compute fn main() { broken }"
    context.destroy()


def test_the_environment_names_the_dump_folder(
    gpu: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKVGRAPH_DUMP", str(tmp_path))
    context = Context.create(gpu.info.index)
    context.kernel(DOUBLE, SIGNATURE, "double")
    assert [path.read_text() for path in (tmp_path / "50-kernels").iterdir()] == [DOUBLE]
    context.destroy()


def test_a_buffer_over_the_limits_raises_before_it_is_made(gpu: Context) -> None:
    limits = gpu.target.limits
    with pytest.raises(DeviceError, match=r"head needs a buffer of .* allows .* fewer slots"):
        gpu.buffer(limits.max_buffer + 1, "head")
    if limits.max_storage_binding < limits.max_buffer:
        with pytest.raises(DeviceError, match="head needs a binding of"):
            gpu.buffer(limits.max_storage_binding + 4, "head")


def test_a_buffer_bound_in_parts_may_exceed_the_binding_limit(gpu: Context) -> None:
    size = gpu.target.limits.max_storage_binding + 16
    if size > min(gpu.target.limits.max_buffer, 1024 * MIB):
        pytest.skip("the binding limit is as large as a buffer, or too large to try")
    assert gpu.buffer(size, "head", largest_binding=size // 2).size >= size


def test_memory_in_use_is_counted_while_it_is_referenced(gpu: Context) -> None:
    before = gpu.allocated
    buffer = gpu.buffer(1000, "counted")
    assert buffer.size in (1008, 1024)
    assert gpu.allocated == before + buffer.size
    del buffer
    assert gpu.allocated == before


def test_a_destroyed_context_raises_and_says_so(gpu: Context) -> None:
    context = Context.create(gpu.info.index)
    buffer = context.buffer(64, "x")
    context.destroy()
    context.destroy()
    assert "destroyed" in str(context)
    for use in (
        lambda: context.buffer(64, "y"),
        lambda: context.kernel(DOUBLE, SIGNATURE, "double"),
        lambda: context.submit([]),
        lambda: download(context, buffer, 0, 64),
    ):
        with pytest.raises(DeviceError, match=r"destroyed|lost"):
            use()


def test_a_lost_device_raises_instead_of_aborting(gpu: Context) -> None:
    context = Context.create(gpu.info.index)
    commands = context.device.create_command_encoder().finish()
    context.device.destroy()  # what a driver reset looks like from here
    with pytest.raises(DeviceError, match="lost"):
        context.submit([commands])
    with pytest.raises(DeviceError, match="lost"):
        context.buffer(64, "x")
    with pytest.raises(DeviceError, match="lost"):
        context.kernel(DOUBLE, SIGNATURE, "double")


def test_faults_of_our_own_making_are_compile_errors(gpu: Context) -> None:
    encoder = gpu.device.create_command_encoder()
    buffer = gpu.buffer(256, "small")
    encoder.copy_buffer_to_buffer(buffer, 0, gpu.buffer(256, "other"), 0, 512)
    with (
        pytest.raises(CompileError, match=r"encoding a copy failed[\s\S]*overrun"),
        faults("encoding a copy"),
    ):
        encoder.finish()


FILL_MEMORY = """
import resource
from pathlib import Path
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu import Context

context = Context.create()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
kept = []
try:
    while len(kept) < 64:
        kept.append(context.buffer(64 << 20, f"weight {len(kept)}"))
except DeviceError as error:
    print(error)
kept.clear()
context.buffer(1 << 20, "after")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_out_of_memory_raises_and_leaves_the_device_usable(gpu: Context) -> None:
    if gpu.info.kind != "software":
        pytest.skip("only a software adapter takes its memory from the process")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FILL_MEMORY], capture_output=True, text=True, check=True, env=environment
    )
    assert "Out of memory: making weight" in done.stdout
    assert "fewer slots" in done.stdout


def test_sizes_are_written_for_people() -> None:
    assert mebibytes(64) == "64 B"
    assert mebibytes(3 * MIB // 2) == "1.5 MiB"
