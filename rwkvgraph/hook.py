"""Hooks: named sites in a model's tape, the frame of values that stand there, and what users register."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from rwkvgraph.errors import HookError, ShapeError
from rwkvgraph.op import (
    Tensor,
    caller,
    format_shape,
    record,
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
        """The current value of a slot.

        Raises HookError where it is not set yet, naming the first site after it is.
        """
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
                f"frame.{name} is {format_shape(wanted)}; it was assigned a tensor of "
                f"{format_shape(value.shape)} (built at {value.where}). A slot keeps its shape; "
                "to store a part of it, blit into a buffer."
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
    state: Any = None


def site(hook: Hook, frame: Frame) -> None:
    """Mark this place on the tape. It has no edges: where nothing hooks it, it leaves nothing behind."""
    record(Site(hook, frame, frame.values(), frame.state))


HookFunction = Callable[..., Any]


class Same:
    """A function as a key: equal to itself alone.

    It keeps the function, so that no other takes its place in memory.
    """

    def __init__(self, function: HookFunction) -> None:
        self._function = function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other._function is self._function

    def __hash__(self) -> int:
        return id(self._function)


def place_name(place: Hook | type[Hook]) -> str:
    """`PostFfn` for all layers, `PostFfn(3)` for one."""
    return place.__name__ if isinstance(place, type) else repr(place)


class Hooks:
    """Functions to call at hook sites, in order of registration. `print` lists them."""

    def __init__(self, functions: Mapping[Hook | type[Hook], HookFunction] | None = None) -> None:
        self._entries: list[tuple[Hook | type[Hook], HookFunction]] = list((functions or {}).items())

    def on(self, *where: Hook | type[Hook]) -> Callable[[HookFunction], HookFunction]:
        """Decorator: call the function at these sites; a class such as `v7.PostFfn` means every layer.

        The function is given the frame, and the layer if it takes a second argument. It may assign slots,
        build operations, or return a TensorOp. It runs when the model is compiled, not when it runs.
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

    def key(self) -> tuple[tuple[Any, Same], ...]:
        """What a compiled program is kept by.

        Equal for two registrations of the same functions at the same sites.
        """
        return tuple((place, Same(function)) for place, function in self._entries)

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
            f"  {place_name(place)}: {getattr(function, '__qualname__', repr(function))}"
            for place, function in self._entries
        ]
        return "\n".join([f"Hooks({len(lines)})", *lines])
