"""Assembling a shader module: header, uniform, bindings, functions, entry point."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template

from rwkvgraph_codegen.binding import Binding
from rwkvgraph_codegen.dialect import Dialect
from rwkvgraph_codegen.statement import Function, Load, Statement, Store

LOWEST = "-0x1.fffffep+127f"
"""The smallest f32, as both front ends take it: where a maximum starts."""


@dataclass(frozen=True)
class Source:
    """A compute shader: text, the bindings in order (binding 0 is the uniform), threads a workgroup.

    engine: the end of the text, where that is the same for many kernels and what differs is in functions
    before it; in a relay it is there once for all of them. is_tabled: whether binding 0 is read-only storage
    instead. looks_ahead: whether it has a use for the row, in the third word of `size`, where the tables of
    the kernels after it begin.
    """

    text: str
    bindings: tuple[Binding, ...]
    threads: int
    label: str
    engine: str = ""
    is_tabled: bool = False
    looks_ahead: bool = False


@dataclass(frozen=True)
class Parts:
    """What a kernel is made of besides its entry point.

    places: rows of the uniform's table. lanes: 4 for wide kernels, 1 otherwise. subgroups: whether the kernel
    uses subgroup operations. header: what such a module begins with, if not the dialect's line for them.
    """

    bindings: tuple[Binding, ...]
    functions: tuple[Function, ...]
    statements: tuple[Statement, ...]
    places: int
    lanes: int
    subgroups: bool = False
    header: str = ""


def assemble(label: str, parts: Parts, main: str, threads: int, dialect: Dialect) -> Source:
    """The whole module around an entry point."""
    first = parts.header or (dialect.subgroup_header if parts.subgroups else "")
    header = [first] if first else []
    lane = "vec4<f32>" if parts.lanes == 4 else "f32"
    sections = [
        *header,
        f"// {label}",
        f"alias V = {lane};",
        f"struct Here {{\n    size: vec4<u32>,\n    at: array<vec4<u32>, {parts.places}>,\n}}",
        "@group(0) @binding(0) var<uniform> here: Here;",
        *(binding.declaration() for binding in parts.bindings),
        *_accessors(parts),
        *(function.text() for function in _distinct(parts.functions)),
        main,
    ]
    return Source("\n".join(sections).rstrip() + "\n", parts.bindings, threads, label)


@cache
def prelude(name: str) -> str:
    """A shared piece of WGSL."""
    return resources.files("rwkvgraph_codegen").joinpath("prelude", name).read_text("utf-8").strip("\n")


def fill(template: str, **holes: object) -> str:
    """A WGSL template with its `$holes` filled. Raises KeyError for a hole without a value."""
    return Template(template).substitute({name: str(value) for name, value in holes.items()})


def _accessors(parts: Parts) -> list[str]:
    loads = {(item.binding, item.mode) for item in parts.statements if isinstance(item, Load)}
    stores = {item.binding for item in parts.statements if isinstance(item, Store)}
    ordered = sorted(loads, key=lambda item: (item[0].index, item[1]))
    texts = [binding.load(mode) for binding, mode in ordered]
    return texts + [binding.store() for binding in sorted(stores, key=lambda item: item.index)]


def _distinct(functions: Iterable[Function]) -> list[Function]:
    return sorted(set(functions), key=lambda function: function.name)
