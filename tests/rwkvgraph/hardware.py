"""Whatever device there is, taken for a GPU: what is made for those runs on software as well."""

from dataclasses import replace
from typing import Any

import pytest

from rwkvgraph.compiler import TINT, Program, Target
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.probe import COHERENT
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model
from rwkvgraph.view import B, E, N, O, Sizes, T
from rwkvgraph_codegen import Units


def hardware(target: Target, **changes: Any) -> Target:
    """A target as one of a GPU that has no relays, with these fields. Lanes of software are unknown."""
    lanes = target.lanes if target.kind == "gpu" else 0
    return replace(target, **{"kind": "gpu", "lanes": lanes, "resident": 0, **changes})


def need_lanes(target: Target, lanes: int) -> None:
    """Skip where subgroups are smaller: llvmpipe's have 8 threads, or 16 if told so, SwiftShader's 4."""
    if target.lanes < lanes:
        pytest.skip(f"subgroups of {target.lanes} threads; `make test` runs it again where they have 16")


def units_of(target: Target) -> Units:
    """Who multiplies matrices in tests: a GPU's units where it has them, or else lanes by hand."""
    return "native" if target.matrices == "native" else "emulated"


def with_relays(target: Target, coherent: bool, **changes: Any) -> Target:
    """A target as one of a GPU that has relays; coherent: whose layers may be laps of one."""
    resident = target.resident or 1
    made = {"kind": "gpu", "lanes": 0, "resident": resident, "coherent": coherent, **changes}
    return replace(target, **made)


def relay_context(coherent: bool, **changes: Any) -> Context:
    """A device with relays; coherent: whose layers may be laps of one."""
    context = Context.create()
    if context.target.dialect is TINT:
        pytest.skip("relays are made for wgpu-native; Tint takes none of them")
    if coherent and COHERENT not in context.device.features:
        pytest.skip(f"{context.info.name} has no @coherent")
    context.target = with_relays(context.target, coherent, **changes)
    return context


def sizes_of(tokens: int, slots: int) -> Sizes:
    """The sizes of a run of so many tokens in so many slots, with the logits of one."""
    return {T: tokens, O: 1, N: slots, B: slots, E: 1}


def program_of(model: Model) -> Program:
    """What a model on a device was compiled to."""
    runner = model.program()
    assert isinstance(runner, Runner)
    return runner.program


def is_shared(program: Program, tokens: int, slots: int) -> bool:
    """Whether the heads of a run are; of all layers, or of none."""
    recurrences = [item for item in program.passes if item.group.kind == "wkv"]
    shared = {item.variant(sizes_of(tokens, slots)).after is not None for item in recurrences}
    assert len(shared) == 1
    return shared.pop()
