"""Hooks: named sites in a model's tape, the frame of values that stand there, and what users register."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from rwkvgraph.errors import HookError, ShapeError
from rwkvgraph.op import (
    Buffer,
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

    def __post_init__(self) -> None:
        """Raise HookError for what is no layer."""
        if type(self.layer) is not int or self.layer < 0:
            raise HookError(
                f"{type(self).__name__} takes a layer, an integer from 0 up; given {self.layer!r}"
            )

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

    `state` holds the buffers of the hook's layer's state, `weights` its weights; at sites outside of the
    layers `state` is None and `weights` are those of the model. Both may be read, and written in place:
    `rg.blit(value, frame.state.ffn_x)`.
    """

    slots: ClassVar[dict[str, Slot]]

    def __init_subclass__(cls) -> None:
        cls.slots = {name: slot for base in reversed(cls.__mro__) for name, slot in vars(base).items()
                     if isinstance(slot, Slot)}  # fmt: skip

    def __init__(self, sizes: Mapping[str, Size], state: Any = None, weights: Any = None) -> None:
        self._sizes = sizes
        self._values: dict[str, Tensor] = {}
        self._later: dict[str, Hook] = {}
        self._hook: Hook | None = None
        self.state = state
        self.weights = weights

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

    def set(self, name: str, value: Tensor | Buffer) -> None:
        """Replace a slot. Raises ShapeError unless the value has the slot's shape."""
        value = value.tensor if isinstance(value, Buffer) else value
        if not isinstance(value, Tensor):
            raise ShapeError(
                f"frame.{name} takes a Tensor, not {type(value).__name__} (assigned at {caller()})"
            )
        wanted = self.shape_of(name)
        if value.shape != wanted:
            raise ShapeError(
                f"frame.{name} is {format_shape(wanted)}; it was assigned a tensor of "
                f"{format_shape(value.shape)} (built at {value.where}, assigned at {caller()}). "
                "A slot keeps its shape; to store a part of it, blit into a buffer."
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
        if name.startswith("_") or name in type(self).slots or name in ("state", "weights"):
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
    weights: Any = None

    def __repr__(self) -> str:
        return f"Site({self.hook!r}: {', '.join(self.slots)})"


def site(hook: Hook, frame: Frame) -> None:
    """Mark this place on the tape. It has no edges: where nothing hooks it, it leaves nothing behind."""
    record(Site(hook, frame, frame.values(), frame.state, frame.weights))
