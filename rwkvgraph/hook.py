"""Hooks: named sites in a model's tape, the frame of values that stand there, and splicing users' ops in."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from rwkvgraph.errors import HookError, ShapeError
from rwkvgraph.graph import Graph
from rwkvgraph.op import (
    Buffer,
    Tensor,
    TensorOp,
    caller,
    format_shape,
    in_layer,
    record,
    replace_operands,
    tape,
)
from rwkvgraph.view import Shape, Size


@dataclass(frozen=True)
class Hook:
    """A place in a model where hooks may add operations. Subclasses name the places; instances are keys."""

    def __repr__(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, repr=False)
class LayerHook(Hook):
    """A place that every layer has. `PostFfn(3)` is that of layer 3, counted from 0."""

    layer: int

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layer})"


class Slot:
    """A named value of a frame. Reading gives the current tensor; assigning replaces it from there on.

    axes: the shape, of symbols (`T`, `O`) and of size names that the frame resolves ("C", "H", …).
    """

    def __init__(self, *axes: str, note: str = "") -> None:
        self.axes = axes
        self.note = note
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, frame: Frame | None, owner: type | None = None) -> Tensor:
        if frame is None:
            return cast(Tensor, self)  # on the class the slot itself, for documentation tools
        return frame.get(self.name)

    def __set__(self, frame: Frame, value: Tensor) -> None:
        frame.set(self.name, value)


class Frame:
    """The values a hook may read and replace at its site, as attributes. One subclass a model version.

    `state` holds the state's tensors of the hook's layer where the model has some.
    """

    slots: ClassVar[dict[str, Slot]]

    def __init_subclass__(cls) -> None:
        cls.slots = {name: slot for base in reversed(cls.__mro__) for name, slot in vars(base).items()
                     if isinstance(slot, Slot)}  # fmt: skip

    def __init__(self, sizes: Mapping[str, Size], state: Any = None) -> None:
        self._sizes = sizes
        self._values: dict[str, Tensor] = {}
        self._later: dict[str, Hook] = {}
        self._hook: Hook | None = None
        self.state = state

    def get(self, name: str) -> Tensor:
        """The current value of a slot. Raises HookError where it is not set yet, naming the first site after it is."""
        if name in self._values:
            return self._values[name]
        where = f" at {self._hook!r}" if self._hook else ""
        later = self._later.get(name)
        hint = f"the first site where it exists is {later!r}" if later else "no later site has it"
        raise HookError(f"frame.{name} has no value{where}; {hint} (read at {caller()})")

    def set(self, name: str, value: Tensor) -> None:
        """Replace a slot. Raises ShapeError unless the value has the slot's shape."""
        if not isinstance(value, Tensor):
            raise ShapeError(
                f"frame.{name} takes a Tensor, not {type(value).__name__} (assigned at {caller()})"
            )
        wanted = self.shape_of(name)
        if value.shape != wanted:
            raise ShapeError(
                f"frame.{name} is {format_shape(wanted)}; it was assigned a tensor of {format_shape(value.shape)} "
                f"(built at {value.where}). A slot keeps its shape; to store a part of it, blit into a buffer."
            )
        self._values[name] = value

    def shape_of(self, name: str) -> Shape:
        """A slot's shape in this model."""
        return tuple(self._sizes[axis] for axis in type(self).slots[name].axes)

    def forget(self, *keep: str) -> None:
        """Unset every slot but those named: what one layer leaves to the next."""
        self._values = {name: value for name, value in self._values.items() if name in keep}

    def values(self) -> dict[str, Tensor]:
        """The slots that are set, by name."""
        return dict(self._values)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in type(self).slots or name == "state":
            object.__setattr__(self, name, value)
            return
        near = difflib.get_close_matches(name, type(self).slots, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"slots: {', '.join(type(self).slots)}"
        raise HookError(f"a frame has no slot {name!r}; {hint} (assigned at {caller()})")

    def __getattr__(self, name: str) -> Any:
        near = difflib.get_close_matches(name, type(self).slots, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"slots: {', '.join(type(self).slots)}"
        raise AttributeError(f"a frame has no slot {name!r}; {hint}")

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}({self._hook!r})" if self._hook else type(self).__name__]
        lines += [f"  {name}: {format_shape(tensor.shape)}" for name, tensor in self._values.items()]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Site:
    """A hook site on a tape, with the values that stand there."""

    hook: Hook
    frame: Frame
    slots: Mapping[str, Tensor]


def site(hook: Hook, frame: Frame) -> None:
    """Mark this place on the tape. It has no edges: where nothing hooks it, it leaves nothing behind."""
    record(Site(hook, frame, frame.values()))


HookFunction = Callable[..., Any]


class Hooks:
    """Functions to call at hook sites, in order of registration. `print` lists them."""

    def __init__(self, functions: Mapping[Hook | type[Hook], HookFunction] | None = None) -> None:
        self._entries: list[tuple[Hook | type[Hook], HookFunction]] = list((functions or {}).items())

    def on(self, *where: Hook | type[Hook]) -> Callable[[HookFunction], HookFunction]:
        """Decorator: call the function at these sites; a class such as `v7.PostFfn` means every layer.

        The function is given the frame, and the layer if it takes a second argument. It may assign slots, build
        operations, or return a TensorOp. It runs when the model is compiled, not when it runs.
        """

        def add(function: HookFunction) -> HookFunction:
            self._entries += [(place, function) for place in where]
            return function

        return add

    def add(self, where: Hook | type[Hook], function: HookFunction) -> None:
        """Call `function` at a site: `on` for functions that are at hand."""
        self._entries.append((where, function))

    def remove(self, function: HookFunction) -> None:
        """Take a function away from every site."""
        self._entries = [entry for entry in self._entries if entry[1] is not function]

    def at(self, hook: Hook) -> list[HookFunction]:
        """The functions for one site."""
        return [function for place, function in self._entries if place == hook or place is type(hook)]

    def places(self) -> list[Hook | type[Hook]]:
        """Where functions are registered, in order."""
        return [place for place, _ in self._entries]

    def key(self) -> tuple[tuple[Any, int], ...]:
        """Equal for two registrations of the same functions at the same sites: what a compiled program is kept by."""
        return tuple((place, id(function)) for place, function in self._entries)

    def copy(self) -> Hooks:
        """The same registrations, apart from later changes."""
        other = Hooks()
        other._entries = list(self._entries)
        return other

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[Hook | type[Hook], HookFunction]]:
        return iter(self._entries)

    def __repr__(self) -> str:
        lines = [
            f"  {place.__name__ if isinstance(place, type) else place!r}: {function.__qualname__}"
            for place, function in self._entries
        ]
        return "\n".join([f"Hooks({len(lines)})", *lines])


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
    return code.co_argcount - bound - len(getattr(function, "__defaults__", None) or ()) >= 2


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
