"""Two kernels side by side: a pair, of which the second does again, for itself, what the first does."""

from __future__ import annotations

from functools import lru_cache

from rwkvgraph_codegen.binding import Binding
from rwkvgraph_codegen.link import BUILTINS, Leg, arguments, entry, linked, renamed, shared_memory
from rwkvgraph_codegen.source import Source, fill, prelude

_SUBGROUP_INPUTS = """, @builtin(subgroup_size) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32"""


@lru_cache(maxsize=256)
def pair(label: str, legs: tuple[Leg, Leg], bindings: tuple[Binding, ...]) -> Source:
    """Two kernels that do not depend on each other: of the first one workgroup, then all of the second.

    They have as many threads. The second is a matrix product, with its workgroups in y and z.
    """
    shared, threads = shared_memory(legs), legs[1].source.threads
    builtins = {builtin for leg in legs for builtin, _, _ in entry(leg.source.text)}
    one = {**BUILTINS, "workgroup_id": "vec3<u32>(0u)", "num_workgroups": "vec3<u32>(1u)"}
    others = {**BUILTINS, "workgroup_id": "vec3<u32>(0u, index - 1u, 0u)", "num_workgroups": "groups"}
    main = fill(
        prelude("pair.wgsl"),
        threads=threads,
        subgroup_inputs=_SUBGROUP_INPUTS if any(name.startswith("subgroup") for name in builtins) else "",
        first=arguments(legs[0], one),
        second=arguments(legs[1], others),
    )
    texts = [
        renamed(
            leg, index, bindings, shared, f"relay.leg{index}.size", f"relay.leg{index}.at[", has_struct=True
        )
        for index, leg in enumerate(legs)
    ]
    return linked(label, legs, bindings, texts, [main], threads)
