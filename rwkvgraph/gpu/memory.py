"""Where a buffer's contents live on a device.

In a GPU buffer, or in a texture where those are read faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import wgpu
from wgpu.classes import GPUBuffer

from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.context import LINE, Context
from rwkvgraph.gpu.faults import faults
from rwkvgraph.gpu.transfer import PIECE, download, upload, upload_parts
from rwkvgraph.op import Array, Buffer, DType, Home
from rwkvgraph.view import Sizes, resolve, row_width, split_rows
from rwkvgraph_codegen import TEXTURE_WIDTH

TEXEL = 16
"""Bytes of a texel: four u32, eight f16."""


class DeviceMemory:
    """One buffer's contents on a device.

    home: the GPU buffer that has those of several, and the byte where these begin; by default one of its own.
    """

    def __init__(
        self, context: Context, buffer: Buffer, sizes: Sizes, home: tuple[GPUBuffer, int] | None = None
    ) -> None:
        rows, inner = split_rows(buffer.shape)
        self.rows = resolve(rows, sizes)
        self.width = row_width(buffer.shape)
        self.owner = context
        self.used = prod(inner)
        self._buffer = buffer
        self.nbytes = self.rows * self.width * buffer.dtype.bytes
        self.is_shared = home is not None
        self.gpu, self.start = home or (context.buffer(self.nbytes, buffer.name), 0)

    @property
    def resource(self) -> Any:
        """What a bind group binds."""
        if self.is_shared:
            return {"buffer": self.gpu, "offset": self.start, "size": self.nbytes}
        return whole(self.gpu)

    @property
    def is_alive(self) -> bool:
        """Whether the device is still there."""
        return self.owner.is_alive

    def fill(self, start: int, values: Array) -> None:
        """Write elements as they lie in memory, from element `start` on."""
        first = self.start + start * self._buffer.dtype.bytes
        upload(self.owner, self.gpu, first, np.ascontiguousarray(values))

    def read(self) -> Array:
        """The contents, in the buffer's shape."""
        return self.read_rows(0, self.rows).reshape(self._shape(self.rows))

    def write(self, array: Array) -> None:
        """Replace the contents."""
        self.write_rows(0, np.asarray(array).reshape(self.rows, -1))

    def read_rows(self, start: int, stop: int) -> Array:
        """Rows of the leading axis, each flat: (stop - start, elements of a row)."""
        dtype = self._buffer.dtype
        at, count = start * self.width * dtype.bytes, (stop - start) * self.width * dtype.bytes
        flat = download(self.owner, self.gpu, self.start + at, count).view(dtype.numpy)
        return flat.reshape(stop - start, self.width)[:, : self.used]

    def write_rows(self, start: int, rows: Array) -> None:
        """Replace rows of the leading axis."""
        dtype = self._buffer.dtype
        padded = np.zeros((len(rows), self.width), dtype.numpy)
        padded[:, : rows.shape[1]] = rows
        upload(self.owner, self.gpu, self.start + start * self.width * dtype.bytes, padded)

    def fill_rows(self, row: Array) -> None:
        """Replace every row of the leading axis by one, flat."""
        dtype = self._buffer.dtype
        padded = np.zeros((1, self.width), dtype.numpy)
        padded[0, : self.used] = row
        many = max(1, PIECE // padded.nbytes)
        counts = [many] * (self.rows // many) + [self.rows % many]
        piece = np.repeat(padded, min(many, self.rows), axis=0)
        upload_parts(self.owner, self.gpu, self.start, (piece[:count] for count in counts))

    def span(self, row: int) -> tuple[int, int]:
        """First byte and number of bytes of a row without its padding; of f32 both are multiples of 4."""
        size = self._buffer.dtype.bytes
        return self.start + row * self.width * size, self.used * size

    def _shape(self, rows: int) -> tuple[int, ...]:
        shape = tuple(size for size in self._buffer.shape if isinstance(size, int))
        return shape if len(shape) == len(self._buffer.shape) else (rows, *shape)


class TextureMemory:
    """Weights in a texture of 16-byte texels (8 f16, or 4 f32).

    `TEXTURE_WIDTH` texels a row, in the order of a buffer.
    """

    def __init__(self, context: Context, buffer: Buffer) -> None:
        rows, _ = split_rows(buffer.shape)
        self.owner = context
        self._buffer = buffer
        texels = -(-resolve(rows, {}) * row_width(buffer.shape) * buffer.dtype.bytes // TEXEL)
        self.height = -(-texels // TEXTURE_WIDTH)
        limit = context.device.limits["max-texture-dimension-2d"]
        if self.height > limit or limit < TEXTURE_WIDTH:
            raise DeviceError(
                f"{buffer.name} needs a texture {self.height} high; {context.info.name} allows {limit}"
            )
        with faults(f"making a texture for {buffer.name}"):
            self.gpu = context.device.create_texture(
                label=buffer.name,
                size=(TEXTURE_WIDTH, self.height, 1),
                format="rgba32float" if buffer.dtype is DType.F32 else "rgba32uint",
                usage=wgpu.TextureUsage.TEXTURE_BINDING
                | wgpu.TextureUsage.COPY_DST
                | wgpu.TextureUsage.COPY_SRC,
            )
        context.count(self.gpu, self.height * TEXTURE_WIDTH * TEXEL)

    @property
    def resource(self) -> Any:
        """What a bind group binds."""
        return self.gpu.create_view()

    @property
    def is_alive(self) -> bool:
        """Whether the device is still there."""
        return self.owner.is_alive

    def fill(self, start: int, values: Array) -> None:
        """Write elements as they lie in memory, from element `start`, the first of a texel, on."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        data = np.pad(data, (0, -data.size % TEXEL)) if data.size % TEXEL else data
        texels = data.reshape(-1, TEXEL)
        at, done = start * self._buffer.dtype.bytes // TEXEL, 0
        while done < len(texels):
            column = (at + done) % TEXTURE_WIDTH
            count = len(texels) - done
            count = min(count, TEXTURE_WIDTH - column) if column or count < TEXTURE_WIDTH else count
            count = count // TEXTURE_WIDTH * TEXTURE_WIDTH or count
            self._write(at + done, texels[done : done + count])
            done += count
        self.owner.submit([])  # so that the copies wgpu keeps of what is written can go

    def _write(self, at: int, texels: Array) -> None:
        width = min(len(texels), TEXTURE_WIDTH)
        with faults(f"writing {self._buffer.name}"):
            self.owner.queue.write_texture(
                {"texture": self.gpu, "origin": (at % TEXTURE_WIDTH, at // TEXTURE_WIDTH, 0)},
                texels,
                {"bytes_per_row": width * TEXEL, "rows_per_image": -(-len(texels) // width)},
                (width, -(-len(texels) // width), 1),
            )

    def as_buffer(self) -> DeviceMemory:
        """The same contents in a buffer, which kernels can write."""
        context, size = self.owner, (TEXTURE_WIDTH, self.height, 1)
        memory = DeviceMemory(context, self._buffer, {})
        whole_rows = context.buffer(self.height * TEXTURE_WIDTH * TEXEL, "texels", largest_binding=TEXEL)
        with context.lock, faults(f"moving {self._buffer.name} from a texture into a buffer"):
            encoder = context.device.create_command_encoder()
            layout = {
                "buffer": whole_rows,
                "bytes_per_row": TEXTURE_WIDTH * TEXEL,
                "rows_per_image": self.height,
            }
            encoder.copy_texture_to_buffer({"texture": self.gpu}, layout, size)
            encoder.copy_buffer_to_buffer(whole_rows, 0, memory.gpu, 0, memory.gpu.size)
            context.submit([encoder.finish()])
        return memory

    def read(self) -> Array:
        """The contents."""
        return self.as_buffer().read()

    def write(self, array: Array) -> None:
        """Replace the contents."""
        self.fill(0, array)


AnyMemory = DeviceMemory | TextureMemory
Memories = Mapping[Buffer, AnyMemory]


def memories_for(context: Context, buffers: Sequence[Buffer], sizes: Sizes) -> dict[Buffer, DeviceMemory]:
    """Memory for buffers of a state, zeroed; those of a home one behind the other, where a device binds that.

    Every one begins where a binding may: rows that are no multiple of that have memory of their own.
    """
    target, homes = context.target, dict[Home, GPUBuffer]()
    found: dict[Buffer, DeviceMemory] = {}
    for buffer in buffers:
        home, row_bytes = buffer.home, row_width(buffer.shape) * buffer.dtype.bytes
        nbytes = resolve(buffer.shape[0], sizes) * row_bytes
        place, can_share = None, target.coherent and row_bytes % LINE == 0
        if can_share and home and nbytes * home.count <= target.limits.most_bytes:
            if home not in homes:
                homes[home] = context.buffer(nbytes * home.count, home.name)
            place = homes[home], nbytes * buffer.place
        found[buffer] = DeviceMemory(context, buffer, sizes, place)
    return found


def memory_for(context: Context, buffer: Buffer) -> AnyMemory:
    """Memory for a buffer of known shape, of the kind it asks for."""
    return TextureMemory(context, buffer) if buffer.is_texture else DeviceMemory(context, buffer, {})


def whole(buffer: GPUBuffer) -> dict[str, object]:
    """All of a GPU buffer, as a bind group names it."""
    return {"buffer": buffer, "offset": 0, "size": buffer.size}
