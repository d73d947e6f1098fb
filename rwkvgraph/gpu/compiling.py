"""Compiling shaders for a device, those that a run needs side by side, and each text once.

The C library does the work without holding Python's lock, so that threads are enough. Which shaders a run
needs is said here too; what they bind and when they run is the runner's matter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import wgpu
from wgpu.classes import GPUBindGroupLayout, GPUComputePipeline, GPUDevice, GPUError

from rwkvgraph.compiler.program import Pass, Program, Relay
from rwkvgraph.compiler.variant import Variant
from rwkvgraph.gpu.faults import faults, shader_fault
from rwkvgraph.gpu.native import Driver
from rwkvgraph.view import Sizes
from rwkvgraph_codegen import Binding

Access = Literal["uniform", "table", "read", "write", "texels", "numbers"]
DumpShader = Callable[[str, str], None]
"""Called with a kernel's label and text before the driver sees the text."""

MOST_THREADS = 8
"""The longest shader of a model takes a quarter of all together: more threads would wait for it."""

SAMPLE_TYPES = {"texels": "uint", "numbers": "unfilterable-float"}

LAYOUTS: dict[Access, dict[str, object]] = {
    "uniform": {"type": "uniform", "has_dynamic_offset": True},
    "table": {"type": "read-only-storage", "has_dynamic_offset": True},
    "read": {"type": "read-only-storage"},
    "write": {"type": "storage"},
}


@dataclass(frozen=True)
class Signature:
    """What a kernel binds at @group(0), binding 0 upwards.

    A "uniform", or a "table" in read-only storage, takes one dynamic offset in every set_bind_group; "write"
    is read_write storage; "texels" and "numbers" are textures of u32 and of f32.
    """

    accesses: tuple[Access, ...]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled shader. `layout` is the explicit one of its signature, so unused bindings stay."""

    label: str
    text: str
    signature: Signature
    layout: GPUBindGroupLayout
    pipeline: GPUComputePipeline


@dataclass(frozen=True)
class Shader:
    """A text to compile, whose entry point is `main`. label: how errors and dumps name it."""

    text: str
    signature: Signature
    label: str

    @property
    def key(self) -> tuple[str, Signature]:
        """What makes it another kernel."""
        return self.text, self.signature


class Kernels:
    """The kernels of a device by their texts. Not for several threads at once: its context has a lock.

    seconds: spent compiling so far, as the caller waited.
    """

    def __init__(self, device: GPUDevice, driver: Driver, dump: DumpShader | None) -> None:
        self.seconds = 0.0
        self._device = device
        self._driver = driver
        self._dump = dump
        self._layouts: dict[Signature, GPUBindGroupLayout] = {}
        self._made: dict[tuple[str, Signature], Kernel] = {}

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self._made.values())

    def find(self, shader: Shader) -> Kernel | None:
        """The kernel of a shader, if it was compiled."""
        return self._made.get(shader.key)

    def make(self, shaders: Sequence[Shader]) -> None:
        """Compile those that are new, side by side. Raises the CompileError of the first that is refused."""
        new: dict[tuple[str, Signature], Shader] = {}
        for shader in shaders:
            if shader.key not in self._made:
                new.setdefault(shader.key, shader)
                self.layout(shader.signature)  # here, as workers would race for it
        # With a dump one after another, so that of a text which ends the process the file is the newest.
        make = self._make_in_turn if self._dump or len(new) < 2 else self._make_together
        start = perf_counter()
        try:
            make([*new.values()])
        finally:
            self.seconds += perf_counter() - start

    def _make_in_turn(self, shaders: Sequence[Shader]) -> None:
        for shader in shaders:
            if self._dump is not None:
                self._dump(shader.label, shader.text)
            self._made[shader.key] = self._compile(shader)

    def _make_together(self, shaders: Sequence[Shader]) -> None:
        pool = ThreadPoolExecutor(min(threads(), len(shaders)), "rwkvgraph-compile")
        try:
            # The longest first, as one that is begun last is waited for alone.
            begun = sorted(shaders, key=lambda item: -len(item.text))
            jobs = {item.key: pool.submit(self._compile, item) for item in begun}
            for shader in shaders:
                self._made[shader.key] = jobs[shader.key].result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _compile(self, shader: Shader) -> Kernel:
        layout = self._layouts[shader.signature]
        try:
            module = self._driver.shader(shader.text, shader.label)
            pipeline = self._device.create_compute_pipeline(
                label=shader.label,
                layout=self._device.create_pipeline_layout(bind_group_layouts=[layout]),
                compute={"module": module, "entry_point": "main"},
            )
        except GPUError as error:
            raise shader_fault(shader.text, shader.label, error) from error
        return Kernel(shader.label, shader.text, shader.signature, layout, pipeline)

    def layout(self, signature: Signature) -> GPUBindGroupLayout:
        """The bind group layout of a signature; one object for equal signatures."""
        if signature not in self._layouts:
            entries = [
                {"binding": index, "visibility": wgpu.ShaderStage.COMPUTE, **layout_entry(access)}
                for index, access in enumerate(signature.accesses)
            ]
            with faults(f"laying out {len(entries)} bindings"):
                self._layouts[signature] = self._device.create_bind_group_layout(entries=entries)
        return self._layouts[signature]

    def clear(self) -> None:
        """Let go of everything."""
        self._made.clear()
        self._layouts.clear()


def threads() -> int:
    """How many shaders are compiled at a time."""
    return min(MOST_THREADS, os.cpu_count() or 1)


def shader_of(item: Pass | Relay, variant: Variant) -> Shader:
    """One of the kernels of a pass, or a relay's, to be compiled."""
    accesses: list[Access] = ["table" if variant.source.is_tabled else "uniform"]
    accesses += [access_of(binding) for binding in variant.source.bindings]
    return Shader(variant.source.text, Signature(tuple(accesses)), item.label)


def shaders_of(program: Program, sizes: Sizes, relays: Collection[Relay]) -> Iterator[Shader]:
    """What a run of these sizes dispatches where these relays stand for their passes, in that order."""
    for _, item in program.dispatched(relays):
        if isinstance(item, Relay):
            yield shader_of(item, item.variant)
        elif item.runs(sizes):
            for variant in item.variant(sizes).kernels:
                yield shader_of(item, variant)


def access_of(binding: Binding) -> Access:
    """How a bind group layout declares a binding."""
    if binding.is_texture:
        return "numbers" if binding.element == "f32" else "texels"
    return "write" if binding.writable else "read"


def layout_entry(access: Access) -> dict[str, object]:
    """What a bind group layout says of one binding."""
    if access in SAMPLE_TYPES:
        return {
            "texture": {"sample_type": SAMPLE_TYPES[access], "view_dimension": "2d", "multisampled": False}
        }
    return {"buffer": LAYOUTS[access]}
