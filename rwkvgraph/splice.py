"""Splicing: replaying a model's tape with the operations that hooks add, and without its sites."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from rwkvgraph.errors import HookError
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Hook, LayerHook, Site
from rwkvgraph.hooks import HookFunction, Hooks, Place
from rwkvgraph.op import Buffer, Tensor, TensorOp, in_layer, record, replace_operands, tape


def splice(graph: Graph, hooks: Hooks | None = None) -> Graph:
    """Replay the tape with the hooks' operations in it and without sites.

    Where nothing is hooked the operations are the same objects. Raises HookError for a site that the graph
    lacks and for what a hook does wrong, ShapeError for a slot that changes shape.
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
        self._there: list[TensorOp] = []
        self._known: set[int] = set()
        self._first = _first_sites(graph)

    def op(self, op: TensorOp) -> None:
        new = replace_operands(op, self._current)
        self._there.append(new)
        self._known.add(id(new))
        if new is not op:
            self._now[id(op)] = new.result

    def site(self, site: Site, functions: list[HookFunction]) -> None:
        for function in functions:
            self._call(site, function)

    def _current(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor.source, TensorOp) or id(tensor.source) not in self._now:
            return tensor
        return Tensor(self._now[id(tensor.source)].source, tensor.view, tensor.dtype)

    def _check_known(self, op: TensorOp, hook: Hook) -> None:
        for name, tensor in op.operands().items():
            if isinstance(tensor.source, TensorOp) and id(tensor.source) not in self._known:
                raise HookError(
                    f"the hook at {hook!r} built {op.name} at {op.where} from {name}, a tensor of "
                    f"{tensor.where} that does not exist there: it was built outside of the hook, or kept "
                    "from a later site or an earlier compilation. Hooks run again at each compilation; "
                    "build what they use inside them"
                )

    def _call(self, site: Site, function: HookFunction) -> None:
        frame = type(site.frame)(site.frame._sizes, site.state, site.weights)
        frame._hook, frame._later = site.hook, self._first
        before = {name: self._current(tensor) for name, tensor in site.slots.items()}
        frame._values = dict(before)
        layer = getattr(site.hook, "layer", None)
        with in_layer(layer), tape() as built:
            returned = function(frame, layer) if _takes_layer(function) else function(frame)
            assigned = {
                name: value for name, value in frame.values().items() if value is not before.get(name)
            }
            replaced = {name: _rebindable(name, site) for name in assigned}
            changed = {name: _own(value, built) for name, value in assigned.items()}
        built += _returned(returned, site.hook, [*built, *self._there])
        for op in built:
            self._check_known(op, site.hook)
            record(op)
            self.spliced.add(id(op))
            self._there.append(op)
            self._known.add(id(op))
        for name, value in changed.items():
            self._now[id(replaced[name].source)] = value


def _rebindable(name: str, site: Site) -> Tensor:
    """The slot's tensor at a site. Raises HookError where assigning it would change nothing."""
    if name not in site.slots:
        raise HookError(
            f"frame.{name} was assigned at {site.hook!r}, where it is not set: the model sets it later "
            "and would not see the value. Hook a site after that"
        )
    if isinstance(site.slots[name].source, Buffer):
        raise HookError(
            f"frame.{name} was assigned at {site.hook!r}; it is an input of the run and stays as it is"
        )
    return site.slots[name]


def _own(value: Tensor, built: list[Any]) -> Tensor:
    """The value as the whole result of an operation of its own.

    So that rebinding one slot leaves others alone.
    """
    from rwkvgraph.ops.elementwise import identity  # hook -> ops -> op; ops does not know hooks

    fresh = value.is_whole and any(value.source is op for op in built)
    return value if fresh else identity(value)


def _takes_layer(function: HookFunction) -> bool:
    """Whether a callable has a second argument that must be given.

    A function, method, partial function or callable object.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins may not say what they take
        return False
    wanted = (item for item in parameters if item.default is item.empty)
    return sum(item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD) for item in wanted) >= 2


def _returned(returned: Any, hook: Hook, there: list[TensorOp]) -> list[TensorOp]:
    """The operations that a hook returned and that are not on the tape yet: built before, or elsewhere."""
    results = returned if isinstance(returned, (list, tuple)) else [returned]
    sources = [value.source if isinstance(value, Tensor) else value for value in results]
    for value, source in zip(results, sources, strict=True):
        if source is not None and not isinstance(source, (TensorOp, Buffer)):
            raise HookError(
                f"the hook at {hook!r} returned a {type(value).__name__}; "
                "return a TensorOp, a list of them, or None"
            )
    known = {id(op) for op in there}
    return [source for source in sources if isinstance(source, TensorOp) and id(source) not in known]


def _check_places(graph: Graph, hooks: Hooks) -> None:
    """Raise HookError for a place that means no site of the graph."""
    sites = [site.hook for site in graph.sites()]
    for place in hooks.places():
        if any(hook in place for hook in sites):
            continue
        kinds = {type(hook).__name__ for hook in sites}
        if isinstance(place.where, Hook | type):
            near = difflib.get_close_matches(repr(Place(place.where)), kinds | set(map(repr, sites)), 3, 0.0)
            hint = f"nearest: {', '.join(near)}"
            if place.layers is not None and place.where in {type(hook) for hook in sites}:
                last = max(hook.layer for hook in sites if isinstance(hook, LayerHook))
                hint = f"its layers are 0 to {last}"
        else:
            hint = f"the function says no to all {len(sites)}: {', '.join(sorted(kinds))}"
        raise HookError(f"the model has no hook site {place!r}; {hint}")


def _first_sites(graph: Graph) -> dict[str, Hook]:
    first: dict[str, Hook] = {}
    for item in graph.sites():
        for name in item.slots:
            first.setdefault(name, item.hook)
    return first
