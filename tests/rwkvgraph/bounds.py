"""Kernels that note each index beyond an array, as some devices check none."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from rwkvgraph.compiler.program import Pass, Relay
from rwkvgraph.compiler.variant import Variant
from rwkvgraph.gpu import Context, compiling, download, runner
from rwkvgraph.gpu.bindings import Bindings
from rwkvgraph.gpu.compiling import Shader, Signature
from rwkvgraph.gpu.memory import whole

STORED = re.compile(r"var<storage, read(?:_write)?> (\w+):")
SHARED = re.compile(r"var<workgroup> (\w+): (array<[^;]*>);")
HEADER = re.compile(r"(?:(?:enable|diagnostic)[^\n]*\n|\n)*")
ARRAYS = 32
"""Arrays of a kernel, at most."""
KERNELS = 1024

NOTE = """\
@group(0) @binding({binding}) var<storage, read_write> beyond: array<atomic<u32>>;
fn within(which: u32, at: u32, count: u32) -> u32 {{
    if at >= count {{
        atomicMax(&beyond[{first}u + which], at - count + 1u);
    }}
    return at;
}}
"""


@dataclass
class Watch:
    """What kernels noted: label and array of each index that was beyond, and by how much."""

    context: Context
    shaders: dict[str, Shader] = field(default_factory=dict)
    names: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffer = self.context.buffer(4 * ARRAYS * KERNELS, "beyond")

    def wrapped(self, shader: Shader) -> Shader:
        """The shader with every index of its arrays watched."""
        if shader.text not in self.shaders:
            sizes = arrays_of(shader.text)
            names = list(sizes)
            assert len(names) <= ARRAYS
            note = NOTE.format(binding=len(shader.signature.accesses), first=len(self.names) * ARRAYS)
            header = HEADER.match(shader.text)
            assert header is not None, "it may be empty"
            body = watched(shader.text[header.end() :], sizes, names)
            signature = Signature((*shader.signature.accesses, "write"))
            self.names.append((shader.label, names))
            self.shaders[shader.text] = Shader(header[0] + note + body, signature, shader.label)
        return self.shaders[shader.text]

    def found(self) -> dict[str, int]:
        """How far beyond, by kernel and array."""
        words = download(self.context, self.buffer, 0, 4 * ARRAYS * KERNELS).view(np.uint32)
        rows = words.reshape(KERNELS, ARRAYS)
        return {
            f"{self.names[at][0]}: {self.names[at][1][array]}": int(rows[at, array])
            for at, array in np.argwhere(rows)
        }


def arrays_of(text: str) -> dict[str, list[str]]:
    """The arrays of a shader, and how long each of their axes is, from the outer one on."""
    found = {name: [f"arrayLength(&{name})"] for name in STORED.findall(text)}
    return found | {name: [f"{size}u" for size in axes(kind)] for name, kind in SHARED.findall(text)}


def axes(kind: str) -> list[str]:
    """`array<array<f32, 4>, 3>`: 3, 4. Sizes may be products."""
    found = []
    while kind.startswith("array<"):
        inner, size = kind.removeprefix("array<").removesuffix(">").rsplit(",", 1)
        found.append("u * ".join(part.strip() for part in size.split("*")))
        kind = inner.strip()
    return found


def watched(text: str, sizes: Mapping[str, Sequence[str]], names: Sequence[str]) -> str:
    """The text with `within(…)` around every index of these arrays."""
    indexed = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, names))})\[") if names else None
    out, start = "", 0
    while indexed is not None and (match := indexed.search(text, start)):
        out += text[start : match.end() - 1]
        start = match.end() - 1
        for size in sizes[match[1]]:
            if text[start : start + 1] != "[":
                break
            end = closing(text, start)
            index = watched(text[start + 1 : end], sizes, names)
            out += f"[within({names.index(match[1])}u, {index}, {size})]"
            start = end + 1
    return out + text[start:]


def closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"[": 1, "]": -1}.get(text[at], 0)
        if not depth:
            return at
    raise AssertionError("brackets match")


@contextmanager
def watching(context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Whatever runs on a device meanwhile is watched."""
    watch, plain, group_of = Watch(context), compiling.shader_of, Bindings.group

    def shader_of(item: Pass | Relay, variant: Variant) -> Shader:
        return watch.wrapped(plain(item, variant))

    def bind(self: Bindings, *given: Any) -> Any:
        device = self.context.device
        create = device.create_bind_group

        def with_notes(*, layout: Any, entries: list[Any]) -> Any:
            more = {"binding": len(entries), "resource": whole(watch.buffer)}
            return create(layout=layout, entries=[*entries, more])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(device, "create_bind_group", with_notes)
            return group_of(self, *given)

    monkeypatch.setattr(compiling, "shader_of", shader_of)
    monkeypatch.setattr(runner, "shader_of", shader_of)
    monkeypatch.setattr(Bindings, "group", bind)
    yield watch
