"""Bytes to and from the device.

Uploads hold a bounded amount of staging memory whatever their size; downloads go through one buffer that
stays.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wgpu.classes import GPUBuffer, GPUCommandEncoder

from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.faults import faults
from rwkvgraph.gpu.native import Bytes

PIECE = 8 << 20
"""Bytes copied at once. llvmpipe, 2 cores, 512 MiB in pieces of 4, 8, 16 MiB: 10.4, 9.4, 9.5 GB/s."""

AnyArray = NDArray[Any]


def upload(context: Context, buffer: GPUBuffer, offset: int, array: AnyArray) -> None:
    """Write an array's bytes, row-major, into a buffer from `offset` (bytes, a multiple of 4).

    Up to 3 bytes after a size that is no multiple of 4 become 0. Takes effect before what is submitted next.
    """
    upload_parts(context, buffer, offset, [array])


def upload_parts(context: Context, buffer: GPUBuffer, offset: int, parts: Iterable[AnyArray]) -> None:
    """Write arrays one after another, as `upload` would their concatenation.

    Reads each part once and in pieces, so a memory-mapped tensor or a generator of converted rows is never
    whole in memory; at most 2 × PIECE wait in staging.
    """
    ticket: int | None = None
    pending = 0
    for piece in aligned(piece for part in parts for piece in pieces(part)):
        check_range(buffer, offset, piece.nbytes)
        with faults(f"writing {piece.nbytes} bytes to {buffer.label or 'a buffer'}"):
            context.queue.write_buffer(buffer, offset, piece)
        offset += piece.nbytes
        pending += piece.nbytes
        if pending >= PIECE:
            # wgpu keeps a staging copy of every write until a submission that follows it has run. Waiting for
            # the one before overlaps its copy with ours: 9.4 GB/s, 6.5 when waiting for the same one, and
            # 1.4 with all 512 MiB pending (llvmpipe; mapped staging rings reached 5.4).
            ticket, pending = flush(context, ticket), 0


def flush(context: Context, before: int | None) -> int:
    """Submit what was written, wait for the submission `before`; returns the ticket of this one."""
    ticket = context.submit([])
    if before is not None:
        context.wait(before)
    return ticket


def pieces(array: AnyArray) -> Iterator[Bytes]:
    """An array's bytes in row-major order, at most PIECE at a time; copies only what is not contiguous."""
    if array.flags.c_contiguous:
        whole = array.reshape(-1).view(np.uint8)
        yield from (whole[at : at + PIECE] for at in range(0, whole.nbytes, PIECE))
    elif array.nbytes <= PIECE or not array.ndim:
        yield from pieces(np.ascontiguousarray(array))
    else:
        half = len(array) // 2
        yield from pieces(array[:half] if half else array[0])
        yield from pieces(array[half:] if half else array[1:])


def aligned(parts: Iterable[Bytes]) -> Iterator[Bytes]:
    """The same bytes cut at multiples of 4, as WebGPU copies them, with zeros at the end if need be."""
    left = np.empty(0, np.uint8)
    for part in parts:
        joined = np.concatenate([left, part]) if left.size else part
        whole = joined.nbytes // 4 * 4
        left = joined[whole:]
        if whole:
            yield joined[:whole]
    if left.size:
        yield np.concatenate([left, np.zeros(4 - left.size, np.uint8)])


def check_range(buffer: GPUBuffer, offset: int, nbytes: int) -> None:
    """Raise ValueError unless the range lies in the buffer and starts at a multiple of 4."""
    if offset % 4:
        raise ValueError(f"Offset {offset} is no multiple of 4; WebGPU copies whole words.")
    if offset < 0 or offset + nbytes > buffer.size:
        raise ValueError(
            f"Bytes {offset} to {offset + nbytes} are not all within {buffer.label or 'the buffer'} "
            f"of {buffer.size} bytes."
        )


def download(context: Context, buffer: GPUBuffer, offset: int, nbytes: int) -> Bytes:
    """Bytes of a buffer once all submitted work has run, in a new array. `offset` is a multiple of 4.

    Goes through the context's staging buffer PIECE by PIECE, so a large range is never twice on the device.
    """
    check_range(buffer, offset, nbytes)
    result = np.empty(nbytes, np.uint8)
    for at in range(0, nbytes, PIECE):
        size = min(PIECE, nbytes - at)
        copied = -(-size // 4) * 4  # buffers are multiples of 16, so this stays inside
        with context.lock, faults(f"reading {size} bytes of {buffer.label or 'a buffer'}"):
            staging = context.staging(copied)
            encoder = context.device.create_command_encoder()
            encoder.copy_buffer_to_buffer(buffer, offset + at, staging, 0, copied)
            ticket = context.submit([encoder.finish()])
            result[at : at + size] = context.driver.read(staging, copied, ticket)[:size]
    return result


class Readback:
    """A mappable buffer of its own for a result that is read every run.

    Record, submit with `Context.submit`, then read with its ticket. Recording is needed each run; several of
    these let the next run be encoded while the device is at this one.
    """

    def __init__(self, context: Context, nbytes: int, label: str = "readback") -> None:
        self.context = context
        self.nbytes = nbytes
        self.staging = context.buffer(nbytes, label, "staging")

    def record(
        self, encoder: GPUCommandEncoder, source: GPUBuffer, offset: int, nbytes: int, at: int = 0
    ) -> None:
        """Copy bytes of `source` to byte `at` of this. All three numbers are multiples of 4."""
        if at + nbytes > self.nbytes:
            raise ValueError(f"{nbytes} bytes at {at} do not fit a readback of {self.nbytes} bytes.")
        encoder.copy_buffer_to_buffer(source, offset, self.staging, at, nbytes)

    def read(self, ticket: int, nbytes: int | None = None) -> Bytes:
        """The first `nbytes` (default: all) in a new array, once the submission of that ticket has run.

        Must follow the submission: what is read before it would be the run before. Waits for nothing
        submitted later. Raises DeviceError if the device was lost.
        """
        with faults("reading a result back"):
            return self.context.driver.read(self.staging, self.nbytes if nbytes is None else nbytes, ticket)
