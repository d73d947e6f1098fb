"""Storage bindings: how a kernel declares its buffers and reaches their elements.

Places are data: an accessor takes `at`, a `vec4<u32>` of (offset, row stride, middle stride, inner stride) in
elements, and the coordinates i0 (row), i1 (middle), i2 (lane: an element, or four of them in a wide kernel).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Element = Literal["f32", "f16", "u32"]
Mode = Literal["lane", "splat", "word", "words"]
"""How a row is read.

lane: the value of a lane. splat: one element for all lanes of a row. word, words: one u32, four u32, of a
row.
"""

TEXTURE_WIDTH = 4096
"""Texels of a texture's row. WebGPU allows 8192 each way, so a texture holds 512 MiB."""

_STORED = {
    ("f32", True): "vec4<f32>",
    ("f32", False): "f32",
    ("f16", True): "vec4<u32>",
    ("f16", False): "u32",
    ("u32", True): "u32",
    ("u32", False): "u32",
}

_LOADS: dict[tuple[Element, bool, Mode], str] = {
    ("f32", True, "lane"): "return {b}[(at.x + i0 * at.y + i1 * at.z) / 4u + i2];",
    ("f32", True, "splat"): "let e = at.x + i0 * at.y + i1 * at.z;\n    return V({b}[e / 4u][e % 4u]);",
    ("f32", False, "lane"): "return {b}[at.x + i0 * at.y + i1 * at.z + i2 * at.w];",
    ("f32", False, "splat"): "return {b}[at.x + i0 * at.y + i1 * at.z];",
    ("f16", True, "lane"): (
        "let e = at.x + i0 * at.y + i1 * at.z + i2 * 4u;\n"
        "    let eight = {b}[e / 8u];\n"
        "    let four = select(eight.xy, eight.zw, e % 8u == 4u);\n"
        "    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));"
    ),
    ("f16", True, "splat"): (
        "let e = at.x + i0 * at.y + i1 * at.z;\n"
        "    return V(unpack2x16float({b}[e / 8u][e / 2u % 4u])[e % 2u]);"
    ),
    ("f16", False, "lane"): (
        "let e = at.x + i0 * at.y + i1 * at.z + i2 * at.w;\n    return unpack2x16float({b}[e / 2u])[e % 2u];"
    ),
    ("f16", False, "splat"): (
        "let e = at.x + i0 * at.y + i1 * at.z;\n    return unpack2x16float({b}[e / 2u])[e % 2u];"
    ),
}
for _wide in (True, False):
    _LOADS["u32", _wide, "word"] = "return {b}[at.x + i0 * at.y];"
    _LOADS["u32", _wide, "words"] = (
        "let e = at.x + i0 * at.y;\n    return vec4<u32>({b}[e], {b}[e + 1u], {b}[e + 2u], {b}[e + 3u]);"
    )

# f16 that a wide kernel writes: four a `vec2`, so that no two threads write into one `vec4`.
_WRITTEN: dict[Mode, str] = {
    "lane": (
        "let four = {b}[(at.x + i0 * at.y + i1 * at.z) / 4u + i2];\n"
        "    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));"
    ),
    "splat": (
        "let e = at.x + i0 * at.y + i1 * at.z;\n"
        "    return V(unpack2x16float({b}[e / 4u][e / 2u % 2u])[e % 2u]);"
    ),
}

_RESULTS: dict[Mode, str] = {"lane": "V", "splat": "V", "word": "u32", "words": "vec4<u32>"}


@dataclass(frozen=True)
class Binding:
    """One storage buffer of a kernel. `wide` kernels see rows as `vec4`s, others as single elements.

    A texture holds 16 bytes a texel, row after row of `TEXTURE_WIDTH` texels; of f16 textures only `block`
    reads. is_atomic: of u32, only counted with. is_coherent: what others of the dispatch have written is seen
    after meeting them, whatever was read before.
    """

    index: int
    element: Element
    writable: bool
    wide: bool
    is_texture: bool = False
    is_atomic: bool = False
    is_coherent: bool = False

    @property
    def name(self) -> str:
        """The buffer's name in WGSL."""
        return f"b{self.index}"

    def declaration(self) -> str:
        """`@group(0) @binding(1) var<storage, read> b1: array<vec4<f32>>;` - binding 0 is the uniform."""
        if self.is_texture:
            texel = "f32" if self.element == "f32" else "u32"
            return f"@group(0) @binding({self.index}) var {self.name}: texture_2d<{texel}>;"
        access = "read_write" if self.writable else "read"
        stored = "atomic<u32>" if self.is_atomic else self.stored
        coherent = "@coherent " if self.is_coherent else ""
        place = f"{coherent}@group(0) @binding({self.index})"
        return f"{place} var<storage, {access}> {self.name}: array<{stored}>;"

    @property
    def stored(self) -> str:
        """The type of what the buffer is an array of."""
        return "vec2<u32>" if self._is_written_f16 else _STORED[self.element, self.wide]

    @property
    def _is_written_f16(self) -> bool:
        return self.element == "f16" and self.wide and self.writable

    def block(self, index: str) -> str:
        """The expression for 16 bytes as `vec4<u32>`, by their number."""
        if self.is_texture:
            spot = f"vec2<u32>({index} % {TEXTURE_WIDTH}u, {index} / {TEXTURE_WIDTH}u)"
            return f"textureLoad({self.name}, {spot}, 0)"
        if self._is_written_f16:
            return f"vec4<u32>({self.name}[2u * ({index})], {self.name}[2u * ({index}) + 1u])"
        return f"{self.name}[{index}]"

    def load(self, mode: Mode) -> str:
        """The function that reads a value."""
        if self.is_texture:
            body = self._texture_load(mode)
        else:
            body = _WRITTEN[mode] if self._is_written_f16 else _LOADS[self.element, self.wide, mode]
        body = body.format(b=self.name)
        if mode in ("word", "words"):
            head = f"fn load_{self.name}_{mode}(at: vec4<u32>, i0: u32) -> {_RESULTS[mode]}"
        else:
            head = f"fn load_{self.name}_{mode}(at: vec4<u32>, i0: u32, i1: u32, i2: u32) -> {_RESULTS[mode]}"
        return f"{head} {{\n    {body}\n}}"

    def _texture_load(self, mode: Mode) -> str:
        if self.element != "f32":
            raise ValueError("only matmuls read f16 textures, block by block")
        place = "at.x + i0 * at.y + i1 * at.z"
        if self.wide and mode == "lane":
            return f"let e = ({place}) / 4u + i2;\n    return {self.block('e')};"
        element = f"{place} + i2 * at.w" if mode == "lane" else place
        return f"let e = {element};\n    let four = {self.block('(e / 4u)')};\n    return V(four[e % 4u]);"

    def store(self) -> str:
        """The function that writes a lane: f32, or f16 where lanes are wide, as two halves share a word.

        Raises ValueError for other buffers.
        """
        if not self._is_written_f16 and self.element != "f32":
            raise ValueError(f"kernels write f32, and whole lanes of f16, not {self.element}")
        place = "at.x + i0 * at.y + i1 * at.z"
        index = f"({place}) / 4u + i2" if self.wide else f"{place} + i2 * at.w"
        head = f"fn store_{self.name}(at: vec4<u32>, i0: u32, i1: u32, i2: u32, value: V)"
        packed = "vec2<u32>(pack2x16float(value.xy), pack2x16float(value.zw))"
        value = packed if self._is_written_f16 else "value"
        return f"{head} {{\n    {self.name}[{index}] = {value};\n}}"
