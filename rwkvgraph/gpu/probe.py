"""What an open device can do, as the compiler's `Target`.

Asks the device once, at its creation; the caches and the queue are in `context.py`.
"""

import os
from dataclasses import replace
from typing import Literal

import wgpu
from wgpu.classes import GPUDevice, GPUError

from rwkvgraph.compiler.target import Limits, Target
from rwkvgraph.compiler.tuning_file import kernels_from_environment
from rwkvgraph.gpu.adapter import AdapterInfo
from rwkvgraph.gpu.library import MATRICES
from rwkvgraph_codegen.dialect import NAGA, TINT, Dialect

RELAY_WORKGROUPS = 128
"""Workgroups of a relay, a power of two: at least one runs on each processor of a large GPU, with nothing to
spare for it to wait for. Those of a smaller GPU hold several each, or fail the trial that each kernel has to
pass."""

MOST_RESIDENT = 1024

PROBE = """
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) lane: u32) { y[lane] = subgroupAdd(y[lane]); }
"""


def measure_target(device: GPUDevice, info: AdapterInfo) -> Target:
    """What programs for this device may use. Raises LoadError for a file RWKVGRAPH_TUNING that is none."""
    given = device.limits
    limits = Limits(
        max_storage_buffers=given["max-storage-buffers-per-shader-stage"],
        max_storage_binding=given["max-storage-buffer-binding-size"],
        max_buffer=given["max-buffer-size"],
        max_workgroups_per_dimension=given["max-compute-workgroups-per-dimension"],
        max_workgroup_invocations=given["max-compute-invocations-per-workgroup"],
        max_workgroup_size_x=given["max-compute-workgroup-size-x"],
        max_workgroup_storage=given["max-compute-workgroup-storage-size"],
        uniform_alignment=given["min-uniform-buffer-offset-alignment"],
        storage_alignment=given["min-storage-buffer-offset-alignment"],
    )
    allowed = os.environ.get("RWKVGRAPH_SUBGROUPS") != "0" and SUBGROUPS & set(device.features)
    dialect = probe_dialect(device) if allowed else None
    kind: Literal["cpu", "gpu"] = "cpu" if info.kind == "software" else "gpu"
    lanes = 32 if is_known(info) else 0
    if dialect and kind == "cpu":
        lanes = measure_lanes(device, dialect)
    # Tint asks for proof that all threads of a workgroup reach a barrier: relays go by what is in memory.
    resident = _resident(info) if dialect is NAGA else 0
    pairs = os.environ.get("RWKVGRAPH_PAIRS") != "0"
    target = Target(
        limits, dialect or NAGA, dialect is not None, kind, lanes, resident, pairs, is_known(info)
    )
    target = replace(target, coherent=resident > 0 and COHERENT in device.features)
    has_matrices = dialect is TINT and MATRICES in device.features
    target = replace(target, matrices="native" if has_matrices else "none")
    return replace(target, matmul=kernels_from_environment(info.name, target))


def _resident(info: AdapterInfo) -> int:
    """How many workgroups to try relays with: 0 where nobody has measured that they see what others write.

    NVIDIA's GPUs write through to the cache that all share, and keep in a processor's own only what was read
    since the dispatch began, and nothing of what is `@coherent`.

    RWKVGRAPH_RELAYS says otherwise: 0 for none, or a power of two. Raises ValueError for anything else.
    """
    given = os.environ.get("RWKVGRAPH_RELAYS", "")
    if given and not (given.isdecimal() and int(given).bit_count() <= 1 and int(given) <= MOST_RESIDENT):
        raise ValueError(f"RWKVGRAPH_RELAYS is {given!r}; it is 0, or a power of two up to {MOST_RESIDENT}")
    return int(given) if given else RELAY_WORKGROUPS if is_known(info) else 0


def is_known(info: AdapterInfo) -> bool:
    """Whether it is a GPU of NVIDIA's through Vulkan: subgroups have 32 threads, though none says so."""
    return info.backend == "Vulkan" and info.kind == "discrete" and info.name.upper().startswith("NVIDIA")


SUBGROUPS = {"subgroup", "subgroups"}
"""The feature of devices whose kernels may call subgroup functions: wgpu-native's name, and WebGPU's."""

COHERENT = "memory-decoration-coherent"
"""The feature of devices whose bindings may be `@coherent`."""

LANES = """
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(32)
fn main(@builtin(subgroup_size) size: u32) { y[0] = size; }
"""


def measure_lanes(device: GPUDevice, dialect: Dialect) -> int:
    """The subgroup size that a kernel really gets: llvmpipe does not tell the adapter's."""
    module = device.create_shader_module(label="lanes", code=dialect.subgroup_header + LANES)
    pipeline = device.create_compute_pipeline(
        layout="auto", compute={"module": module, "entry_point": "main"}
    )
    usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC
    result = device.create_buffer(label="lanes", size=16, usage=usage)
    entries = [{"binding": 0, "resource": {"buffer": result, "offset": 0, "size": 16}}]
    group = device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
    encoder = device.create_command_encoder()
    run = encoder.begin_compute_pass()
    run.set_pipeline(pipeline)
    run.set_bind_group(0, group)
    run.dispatch_workgroups(1)
    run.end()
    device.queue.submit([encoder.finish()])
    return int.from_bytes(device.queue.read_buffer(result, 0, 4), "little")


def probe_dialect(device: GPUDevice) -> Dialect | None:
    """How this front end wants subgroup calls, found by trying; None if it takes neither way.

    Only the parser runs: the refusal is raised by the call, and nothing reaches stderr (wgpu-native 29).
    """
    for dialect in (TINT, NAGA):
        try:
            device.create_shader_module(label="probe", code=dialect.subgroup_header + PROBE)
        except GPUError:
            continue
        return dialect
    return None
