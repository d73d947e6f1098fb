"""Moving one slot of a state: all its parts in one submission, whatever other slots are doing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from wgpu.classes import GPUBuffer

from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.faults import faults
from rwkvgraph.gpu.memory import DeviceMemory
from rwkvgraph.gpu.transfer import flush
from rwkvgraph.op import Array

Span = tuple[GPUBuffer, int, int, int]
"""A part of a slot: its buffer, its first byte there, its first byte in the slot, its bytes."""


def spans(memories: Sequence[DeviceMemory], slot: int) -> Iterator[Span]:
    """Where the parts of a slot lie, and where they would one after another."""
    at = 0
    for memory in memories:
        start, count = memory.span(slot)
        yield memory.gpu, start, at, count
        at += count


def read_slot(context: Context, memories: Sequence[DeviceMemory], slot: int) -> Array:
    """A slot in each of these f32 memories, one after another, flat: one submission, one wait."""
    parts = list(spans(memories, slot))
    nbytes = sum(count for *_, count in parts)
    with context.lock, faults(f"reading slot {slot} of a state"):
        staging = context.staging(nbytes)
        encoder = context.device.create_command_encoder()
        for buffer, start, at, count in parts:
            encoder.copy_buffer_to_buffer(buffer, start, staging, at, count)
        ticket = context.submit([encoder.finish()])
        return context.driver.read(staging, nbytes, ticket).view(np.float32)


def write_slot(context: Context, memories: Sequence[DeviceMemory], slot: int, values: Array) -> None:
    """Replace a slot in each of these f32 memories by its part of `values`, before what is submitted next."""
    flat = np.ascontiguousarray(values, np.float32).view(np.uint8)
    with context.lock, faults(f"writing slot {slot} of a state"):
        for buffer, start, at, count in spans(memories, slot):
            context.queue.write_buffer(buffer, start, flat[at : at + count])
        context.submit([])  # so that the copy that wgpu keeps of what is written can go


def fill_slots(context: Context, memories: Sequence[DeviceMemory], values: Array) -> None:
    """Replace every slot in each of these f32 memories by its part of `values`; zeros on the device alone."""
    at, ticket = 0, None
    with context.lock, faults("filling a state"):
        encoder = context.device.create_command_encoder()
        for memory in memories:
            part = values[at : at + memory.used]
            at += memory.used
            if part.any():
                memory.fill_rows(part)
                ticket = flush(context, ticket)  # so that the copies that wgpu keeps do not pile up
            else:
                encoder.clear_buffer(memory.gpu, memory.start, memory.nbytes)
        context.submit([encoder.finish()])


def copy_slot(
    context: Context,
    scratch: GPUBuffer,
    source: Sequence[DeviceMemory],
    slot: int,
    target: Sequence[DeviceMemory],
    slots: Sequence[int],
) -> None:
    """Copy a slot to slots of memories of the same shapes, on the device.

    By way of scratch memory, as WebGPU does not copy within a buffer, and a state's slots share theirs.
    """
    with context.lock, faults(f"copying slot {slot} of a state"):
        encoder = context.device.create_command_encoder()
        for buffer, start, at, count in spans(source, slot):
            encoder.copy_buffer_to_buffer(buffer, start, scratch, at, count)
        for other in slots:
            for buffer, start, at, count in spans(target, other):
                encoder.copy_buffer_to_buffer(scratch, at, buffer, start, count)
        context.submit([encoder.finish()])
