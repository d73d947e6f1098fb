"""Splicing: replaying a model's tape with the operations that hooks add, and without its sites."""

from __future__ import annotations

import difflib
from typing import Any

from rwkvgraph.errors import HookError
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Hook, HookFunction, Hooks, Site
from rwkvgraph.op import Buffer, Tensor, TensorOp, in_layer, record, replace_operands, tape


def splice(graph: Graph, hooks: Hooks | None = None) -> Graph:
    """Replay the tape with the hooks' operations in it and without sites.

    Where nothing is hooked the operations are the same objects. Raises HookError for a site that the graph lacks
    and for what a hook does wrong, ShapeError for a slot that changes shape.
    """
    hooks = hooks or Hooks()
    _check_places(graph, hooks)
    replay = _Replay(graph)
    with tape() as items:
        for item in graph.items:
            if isinstance(item, TensorOp):
                replay.op(item)
            else:
                replay.site(item, hooks.at(item.hook))
    return Graph(tuple(items), frozenset(replay.spliced))


class _Replay:
    """The state of a splice: what each old result has become."""

    def __init__(self, graph: Graph) -> None:
        self.spliced: set[int] = set()
        self._now: dict[int, Tensor] = {}
        self._known = {id(op) for op in graph.ops}
        self._first = _first_sites(graph)

    def op(self, op: TensorOp) -> None:
        new = replace_operands(op, self._current)
        if new is not op:
            self._now[id(op)] = new.result

    def site(self, site: Site, functions: list[HookFunction]) -> None:
        for function in functions:
            self._call(site, function)

    def _current(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor.source, TensorOp) or id(tensor.source) not in self._now:
            return tensor
        return Tensor(self._now[id(tensor.source)].source, tensor.view, tensor.dtype)

    def _call(self, site: Site, function: HookFunction) -> None:
        frame = type(site.frame)(site.frame._sizes, site.frame.state)
        frame._hook, frame._later = site.hook, self._first
        before = {name: self._current(tensor) for name, tensor in site.slots.items()}
        frame._values = dict(before)
        layer = getattr(site.hook, "layer", None)
        with in_layer(layer), tape() as built:
            returned = function(frame, layer) if _takes_layer(function) else function(frame)
            changed = {name: _own(value, built) for name, value in frame.values().items()
                       if value is not before.get(name)}  # fmt: skip
        _check_returned(returned, site.hook, built)
        for op in built:
            record(op)
            self.spliced.add(id(op))
        for name, value in changed.items():
            if name in site.slots:
                self._now[id(site.slots[name].source)] = value


def _own(value: Tensor, built: list[Any]) -> Tensor:
    """The value as the whole result of an operation of its own, so that rebinding one slot leaves others alone."""
    from rwkvgraph.ops.elementwise import identity  # hook -> ops -> op; ops does not know hooks

    fresh = value.is_whole and any(value.source is op for op in built)
    return value if fresh else identity(value)


def _takes_layer(function: HookFunction) -> bool:
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    bound = 1 if hasattr(function, "__self__") else 0
    required: int = code.co_argcount - bound - len(getattr(function, "__defaults__", None) or ())
    return required >= 2


def _check_returned(returned: Any, hook: Hook, built: list[Any]) -> None:
    results = returned if isinstance(returned, (list, tuple)) else [returned]
    for value in results:
        source = value.source if isinstance(value, Tensor) else value
        if isinstance(source, TensorOp):
            if all(source is not op for op in built):
                built.append(source)
        elif source is not None and not isinstance(source, Buffer):
            raise HookError(
                f"the hook at {hook!r} returned a {type(value).__name__}; return a TensorOp, a list of them, or None"
            )


def _check_places(graph: Graph, hooks: Hooks) -> None:
    there: set[Any] = {site.hook for site in graph.sites()}
    kinds = {type(hook) for hook in there}
    names = {repr(hook) for hook in there} | {kind.__name__ for kind in kinds}
    for place in hooks.places():
        if place in there or place in kinds:
            continue
        name = place.__name__ if isinstance(place, type) else repr(place)
        near = difflib.get_close_matches(name, names, 3) or sorted(kind.__name__ for kind in kinds)
        raise HookError(f"the model has no hook site {name}; nearest: {', '.join(near)}")


def _first_sites(graph: Graph) -> dict[str, Hook]:
    first: dict[str, Hook] = {}
    for item in graph.sites():
        for name in item.slots:
            first.setdefault(name, item.hook)
    return first
