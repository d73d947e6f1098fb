"""The calls for which wgpu-py is too slow or too coarse: submit, wait, read, and what the adapter knows.

`Direct` goes to the C library behind wgpu-py, `Plain` uses the public API alone; `driver()` picks. Nothing
else in the library touches the backend.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import ModuleType, TracebackType
from typing import Any, Protocol, cast

import numpy as np
import wgpu
from numpy.typing import NDArray
from wgpu.classes import (
    GPUAdapter,
    GPUBindGroup,
    GPUBuffer,
    GPUCommandBuffer,
    GPUComputePassEncoder,
    GPUComputePipeline,
    GPUDevice,
    GPUError,
    GPUShaderModule,
)

from rwkvgraph.errors import DeviceError

Bytes = NDArray[np.uint8]

BOUNDS_CHECKS = 1
"""WGPUShaderRuntimeChecks_BoundsChecks of wgpu-native 29."""

# Checked before the library is trusted: header and binary ship together, but a later wgpu-py may move them.
NEEDED = (
    "wgpuComputePassEncoderSetPipeline",
    "wgpuComputePassEncoderSetBindGroup",
    "wgpuComputePassEncoderDispatchWorkgroups",
    "wgpuQueueSubmitForIndex",
    "wgpuDevicePoll",
    "wgpuBufferMapAsync",
    "wgpuBufferGetConstMappedRange",
    "wgpuDeviceCreateShaderModuleTrusted",
)


def backend() -> ModuleType | None:
    """wgpu-py's module around wgpu-native, or None if it is another backend or RWKVGRAPH_NATIVE=0."""
    if os.environ.get("RWKVGRAPH_NATIVE") == "0":
        return None
    try:
        from wgpu.backends.wgpu_native import _api  # not at the top: there are builds of wgpu without it
    except ImportError:
        return None
    return _api if all(hasattr(_api.libf, name) for name in NEEDED) else None


@dataclass(frozen=True)
class Step:
    """One dispatch, or two.

    A pipeline, what it binds at group 0 with one dynamic offset (bytes), workgroups in x, y, z. after: what
    goes on with what it leaves.
    """

    pipeline: GPUComputePipeline
    group: GPUBindGroup
    offset: int
    grid: tuple[int, int, int]
    after: Step | None = None

    @property
    def dispatches(self) -> tuple[Step, ...]:
        """It, and what comes after it."""
        return (self,) if self.after is None else (self, self.after)


class Driver(Protocol):
    """How to hand work to one device and get bytes back."""

    def shader(self, text: str, label: str) -> GPUShaderModule:
        """A module whose loops all end, as they do in what the compiler writes. Raises wgpu's GPUError."""

    def prepare(self, steps: Sequence[Step]) -> Any:
        """The dispatches in the form that `record` takes; to be made once, and recorded again and again."""

    def record(self, encoder: GPUComputePassEncoder, prepared: Any, start: int, stop: int) -> None:
        """Record prepared dispatches `start` to `stop` into an open compute pass."""

    def check_alive(self) -> None:
        """Raise wgpu's GPUError if the device is known to be lost."""

    def submit(self, commands: Sequence[GPUCommandBuffer]) -> int:
        """Queue command buffers; returns a ticket for `wait` and `read`.

        Any error in here aborts the process (wgpu-native 29 has no other way to report it): a lost device, a
        buffer that was destroyed or is mapped, commands submitted twice. Call `check_alive` first.
        """

    def wait(self, ticket: int) -> None:
        """Return once that submission has run."""

    def read(self, staging: GPUBuffer, nbytes: int, ticket: int) -> Bytes:
        """The first `nbytes` (a multiple of 4) of a mappable buffer, copied out after that submission."""

    def nanoseconds_of_a_tick(self) -> float:
        """How long a tick of the device's timestamps is."""


class Plain:
    """The public API of wgpu-py: waits for all submitted work, whatever the ticket."""

    def __init__(self, device: GPUDevice) -> None:
        self.device = device
        usage = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
        self.fence = device.create_buffer(label="fence", size=8, usage=usage)

    def shader(self, text: str, label: str) -> GPUShaderModule:
        return self.device.create_shader_module(label=label, code=text)

    def prepare(self, steps: Sequence[Step]) -> Any:
        return list(steps)

    def record(self, encoder: GPUComputePassEncoder, prepared: Any, start: int, stop: int) -> None:
        for step in (one for each in prepared[start:stop] for one in each.dispatches):
            encoder.set_pipeline(step.pipeline)
            encoder.set_bind_group(0, step.group, [step.offset])
            encoder.dispatch_workgroups(*step.grid)

    def check_alive(self) -> None:
        self.device.create_bind_group_layout(entries=[])  # see Direct

    def submit(self, commands: Sequence[GPUCommandBuffer]) -> int:
        self.device.queue.submit(list(commands))
        return 0

    def wait(self, ticket: int) -> None:
        # queue.on_submitted_work_done_sync is broken in wgpu-py 0.32: its callback has an argument too few.
        encoder = self.device.create_command_encoder()
        encoder.clear_buffer(self.fence)
        self.device.queue.submit([encoder.finish()])
        self.read(self.fence, 8, ticket)

    def read(self, staging: GPUBuffer, nbytes: int, ticket: int) -> Bytes:
        staging.map_sync(wgpu.MapMode.READ, 0, nbytes)
        try:
            return np.frombuffer(staging.read_mapped(0, nbytes), np.uint8)
        finally:
            staging.unmap()

    def nanoseconds_of_a_tick(self) -> float:
        return 1.0  # what the specification says of timestamps


class Direct:
    """The C library: half the time of `Plain` for a small read, and waits for one submission, not for all.

    Submit and read back 4 bytes on llvmpipe, 2 cores: 75 µs; queue.read_buffer 156, map_sync 163. wgpu-py
    submits an extra command buffer, wakes its polling thread and allocates a promise for each map.
    """

    def __init__(self, device: GPUDevice, api: ModuleType) -> None:
        self.device: Any = device  # untyped: `_internal` is wgpu-py's name for the C handle
        self.lib, self.checked, self.ffi = api.lib, api.libf, api.ffi
        self.make_module = api.GPUShaderModule
        self.queue = self.device.queue._internal
        self.layout_descriptor = self.ffi.new("WGPUBindGroupLayoutDescriptor *")
        # Parsed here, not on first use: Ctrl-C while cffi 2.1 parses a type leaves its lock taken for good.
        self.list_type = self.ffi.typeof("WGPUCommandBuffer[]")
        self.offset_type = self.ffi.typeof("uint32_t[]")
        self.index_type = self.ffi.typeof("WGPUSubmissionIndex *")
        self.info_type = self.ffi.typeof("WGPUBufferMapCallbackInfo *")
        signature = "void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)"
        self.on_mapped = self.ffi.callback(signature, self._note_status, onerror=self._note_interrupted)
        self.interrupted: BaseException | None = None
        # A C buffer and the thread that maps it, with the handle of its statuses, which must outlive the map.
        self.mapping: dict[object, tuple[int, object]] = {}

    def shader(self, text: str, label: str) -> GPUShaderModule:
        """Bounds of buffers and arrays stay checked; what goes is the count of turns that naga adds to loops.

        An NVIDIA H200: matrix products of many tokens are 4 to 8 % faster, a token alone 5 %.
        """
        code, name = (self.ffi.new("char[]", words.encode()) for words in (text, label))
        source = self.ffi.new("WGPUShaderSourceWGSL *")
        source.chain.sType = self.lib.WGPUSType_ShaderSourceWGSL
        source.code.data, source.code.length = code, len(code) - 1
        descriptor = self.ffi.new("WGPUShaderModuleDescriptor *")
        descriptor.nextInChain = self.ffi.cast("WGPUChainedStruct *", source)
        descriptor.label.data, descriptor.label.length = name, len(name) - 1
        create = self.checked.wgpuDeviceCreateShaderModuleTrusted
        handle = create(self.device._internal, descriptor, BOUNDS_CHECKS)
        return cast(GPUShaderModule, self.make_module(label, handle, self.device))

    def prepare(self, steps: Sequence[Step]) -> Any:
        """C handles, and where each step's begin.

        The steps stay beside them, as the handles do not keep what they name.
        """
        handles: list[Any] = [one for step in steps for one in step.dispatches]
        starts = [0, *accumulate(len(step.dispatches) for step in steps)]
        rows = [
            (
                item.pipeline._internal,
                item.group._internal,
                self.ffi.new(self.offset_type, [item.offset]),
                *item.grid,
            )
            for item in handles
        ]
        return rows, starts, handles

    def record(self, encoder: GPUComputePassEncoder, prepared: Any, start: int, stop: int) -> None:
        """Errors of a call surface when the commands are finished (8 µs a pass through wgpu-py, 2 here)."""
        handle: Any = encoder
        handle = handle._internal
        set_pipeline = self.lib.wgpuComputePassEncoderSetPipeline
        set_group = self.lib.wgpuComputePassEncoderSetBindGroup
        dispatch = self.lib.wgpuComputePassEncoderDispatchWorkgroups
        rows, starts, _ = prepared
        for pipeline, group, offset, x, y, z in rows[starts[start] : starts[min(stop, len(starts) - 1)]]:
            set_pipeline(handle, pipeline)
            set_group(handle, 0, group, 1, offset)
            dispatch(handle, x, y, z)

    def _note_status(self, status: int, message: object, statuses: object, unused: object) -> None:
        self.ffi.from_handle(statuses).append(status)

    def _note_interrupted(self, kind: type, error: BaseException, traceback: TracebackType) -> None:
        # Ctrl-C during a wait lands in the callback, which cannot raise: note the status, let `wait` raise.
        given = traceback.tb_frame.f_locals
        self._note_status(given["status"], None, given["statuses"], None)
        self.interrupted = error

    def check_alive(self) -> None:
        # An empty layout, as a lost device refuses nothing cheaper. Not an encoder: wgpu-native 29 takes a
        # used command pool for each one and frees it if it is not submitted, and Mesa then leaks 93 KB.
        layout = self.checked.wgpuDeviceCreateBindGroupLayout(self.device._internal, self.layout_descriptor)
        self.lib.wgpuBindGroupLayoutRelease(layout)

    def submit(self, commands: Sequence[GPUCommandBuffer]) -> int:
        self._unmap_interrupted()
        handles = self.ffi.new(self.list_type, [c._internal for c in commands])
        return int(self.lib.wgpuQueueSubmitForIndex(self.queue, len(commands), handles))

    def _unmap_interrupted(self) -> None:
        # Ctrl-C can end `read` before its last line, and submitting what uses a mapped buffer is an abort.
        here = threading.get_ident()
        for buffer in [buffer for buffer, (thread, _) in self.mapping.items() if thread == here]:
            self._unmap(buffer)

    def _unmap(self, buffer: object) -> None:
        # Cancels a pending map too, whose callback runs in here; refused if not mapped after all.
        with contextlib.suppress(GPUError):
            self.checked.wgpuBufferUnmap(buffer)
        self.mapping.pop(buffer, None)

    def wait(self, ticket: int) -> None:
        self.lib.wgpuDevicePoll(self.device._internal, True, self.ffi.new(self.index_type, ticket))
        if self.interrupted is not None:
            error, self.interrupted = self.interrupted, None
            raise error

    def read(self, staging: GPUBuffer, nbytes: int, ticket: int) -> Bytes:
        buffer = staging._internal
        statuses: list[int] = []
        handle = self.ffi.new_handle(statuses)
        self.mapping[buffer] = threading.get_ident(), handle
        try:
            self._map(buffer, nbytes, handle)
            while not statuses:  # twice only if another thread's poll is about to deliver our callback
                self.wait(ticket)
            return self._copy(buffer, nbytes, statuses[0])
        finally:
            self._unmap(buffer)

    def _map(self, buffer: object, nbytes: int, handle: object) -> None:
        info = self.ffi.new(self.info_type)
        info.mode = self.lib.WGPUCallbackMode_AllowProcessEvents
        info.callback = self.on_mapped
        info.userdata1 = handle
        self.checked.wgpuBufferMapAsync(buffer, self.lib.WGPUMapMode_Read, 0, nbytes, info[0])

    def _copy(self, buffer: object, nbytes: int, status: int) -> Bytes:
        # The mapped range of a buffer that failed to map is a panic, not an error: look first.
        if status != self.lib.WGPUMapAsyncStatus_Success:
            raise DeviceError(
                f"A buffer could not be mapped for reading (status {status}). Make a new Context."
            )
        start = self.lib.wgpuBufferGetConstMappedRange(buffer, 0, nbytes)
        return np.frombuffer(self.ffi.buffer(start, nbytes), np.uint8).copy()

    def nanoseconds_of_a_tick(self) -> float:
        # wgpu-native 29 hands out the driver's ticks as they are; the specification wants nanoseconds.
        period = getattr(self.lib, "wgpuQueueGetTimestampPeriod", None)
        return float(period(self.queue)) if period is not None else 1.0


def driver(device: GPUDevice) -> Driver:
    """The fastest way to talk to this device."""
    api = backend()
    return Plain(device) if api is None else Direct(device, api)


def subgroup_sizes(adapter: GPUAdapter) -> tuple[int, int] | None:
    """Smallest and largest subgroup of an adapter; None where it does not say (Mesa 22.3 llvmpipe: 0 and 0).

    wgpu-py 0.32 spells the two keys of `adapter.info` stackgroup_* and fills in constants (4, 128).
    """
    api = backend()
    if api is None:
        return None
    info = api.ffi.new("WGPUAdapterInfo *")
    api.lib.wgpuAdapterGetInfo(adapter._internal, info)
    sizes = int(info.subgroupMinSize), int(info.subgroupMaxSize)
    api.lib.wgpuAdapterInfoFreeMembers(info[0])
    return sizes if all(sizes) else None
