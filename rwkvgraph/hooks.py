"""What users register: functions for hook sites, by site, kind of site, layers or a rule of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from rwkvgraph.errors import HookError
from rwkvgraph.hook import Hook, LayerHook

HookFunction = Callable[..., Any]
Predicate = Callable[[Hook], bool]
Where = Hook | type[Hook] | Predicate
"""A site, a kind of site in every layer, or a function that says of a site whether it is meant."""


class Same:
    """A function as a key: equal to itself alone, a method to that of the same object.

    It keeps the function, so that no other takes its place in memory.
    """

    def __init__(self, function: HookFunction) -> None:
        self._function = function
        self._id = id(getattr(function, "__self__", None)), id(getattr(function, "__func__", function))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)


@dataclass(frozen=True)
class Place:
    """Where a function is called: `where`, and of that only some layers where `layers` is given."""

    where: Where
    layers: tuple[int, ...] | None = None

    def __contains__(self, hook: Hook) -> bool:
        """Whether a site is meant."""
        if self.layers is not None and getattr(hook, "layer", None) not in self.layers:
            return False
        if isinstance(self.where, Hook):
            return self.where == hook
        if isinstance(self.where, type):
            return self.where is type(hook)
        with telling(f"in the rule {name_of(self.where)}, asked for {hook!r}"):
            return bool(self.where(hook))

    def key(self) -> tuple[Any, ...]:
        """What tells it from other places."""
        is_rule = not isinstance(self.where, (Hook, type))
        return (Same(cast(Predicate, self.where)) if is_rule else self.where, self.layers)

    def __repr__(self) -> str:
        """`PostFfn`, `PostFfn(3)`, `PostFfn in layers 0 to 11`, the name of a rule."""
        if isinstance(self.where, type):
            name = self.where.__name__
        else:
            name = repr(self.where) if isinstance(self.where, Hook) else name_of(self.where)
        if self.layers is None:
            return name
        first, last = min(self.layers), max(self.layers)
        is_range = len(self.layers) > 2 and self.layers == tuple(range(first, last + 1))
        which = f"{first} to {last}" if is_range else ", ".join(map(str, self.layers))
        return f"{name} in layers {which}"


@dataclass(frozen=True)
class Entry:
    """A function, and where it is called."""

    place: Place
    function: HookFunction


class Hooks:
    """Functions to call at hook sites, in order of registration. `print` lists them."""

    def __init__(self, functions: Mapping[Hook | type[Hook], HookFunction] | None = None) -> None:
        self._entries: list[Entry] = []
        for where, function in (functions or {}).items():
            self.add(where, function)

    def on(
        self, *where: Where, layers: Iterable[int] | int | None = None
    ) -> Callable[[HookFunction], HookFunction]:
        """Decorator: call the function at these sites; a class such as `v7.PostFfn` means every layer.

        where: sites, classes, or functions that are given a site and say whether it is meant. layers: of
        those only these, such as range(12). The function is given the frame, and the layer if it takes a
        second argument. It may assign slots, build operations, or return a TensorOp or a list of them. It
        runs when the model is compiled, not when it runs.
        """
        if not where:
            raise HookError("hooks.on takes at least one site: @hooks.on(v7.PostFfn)")
        for item in where:
            _check_rule(item)

        def add(function: HookFunction) -> HookFunction:
            for item in where:
                self.add(item, function, layers)
            return function

        return add

    def add(self, where: Where, function: HookFunction, layers: Iterable[int] | int | None = None) -> None:
        """Call `function` at a site: `on` for functions that are at hand. Raises HookError for others."""
        self._entries.append(_entry(where, function, layers))

    def remove(self, function: HookFunction) -> None:
        """Take a function away from every site. Raises HookError where it is at none."""
        kept = [entry for entry in self._entries if Same(entry.function) != Same(function)]
        if len(kept) == len(self._entries):
            raise HookError(
                f"{name_of(function)} is not among these hooks: {self._names() or 'there are none'}"
            )
        self._entries = kept

    @contextmanager
    def added(
        self, where: Where, function: HookFunction, layers: Iterable[int] | int | None = None
    ) -> Iterator[Hooks]:
        """Call `function` at a site until the end of the `with` block."""
        entry = _entry(where, function, layers)
        self._entries.append(entry)
        try:
            yield self
        finally:
            self._entries = [other for other in self._entries if other is not entry]

    def at(self, hook: Hook) -> list[HookFunction]:
        """The functions for one site."""
        return [entry.function for entry in self._entries if hook in entry.place]

    def places(self) -> list[Place]:
        """Where functions are registered, in order."""
        return [entry.place for entry in self._entries]

    def key(self) -> tuple[tuple[Any, Same], ...]:
        """What a compiled program is kept by.

        Equal for two registrations of the same functions at the same sites.
        """
        return tuple((entry.place.key(), Same(entry.function)) for entry in self._entries)

    def copy(self) -> Hooks:
        """The same registrations, apart from later changes."""
        return self + Hooks()

    def __add__(self, other: Hooks) -> Hooks:
        """Both: those of the first are called first where they share a site."""
        both = Hooks()
        both._entries = [*self._entries, *other._entries]
        return both

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return "\n".join([f"Hooks({len(self)})", *(f"  {line}" for line in self._lines())])

    def _lines(self) -> list[str]:
        return [f"{entry.place!r}: {name_of(entry.function)}" for entry in self._entries]

    def _names(self) -> str:
        return ", ".join(dict.fromkeys(name_of(entry.function) for entry in self._entries))


def as_hooks(hooks: Hooks | Mapping[Any, Any] | None) -> Hooks:
    """What a run was given as its hooks; none for None. Raises HookError for other things."""
    if isinstance(hooks, Hooks):
        return hooks
    if hooks is None or isinstance(hooks, Mapping):
        return Hooks(hooks)
    raise HookError(f"hooks are an rg.Hooks, or a dict of functions by site; given a {type(hooks).__name__}")


@contextmanager
def telling(where: str) -> Iterator[None]:
    """Add to an error that leaves the block where it comes from."""
    try:
        yield
    except Exception as error:
        error.add_note(where)
        raise


def _entry(where: Where, function: Any, layers: Iterable[int] | int | None) -> Entry:
    """A registration. Raises HookError for what is no function or no place."""
    place = _place(where, layers)
    if not callable(function) or isinstance(function, type):
        raise HookError(f"at {place!r} a function of a frame is called; given {function!r:.60}")
    return Entry(place, function)


def _check_rule(where: Any) -> None:
    """Raise HookError for a function of a frame where one of a site is meant: `@hooks.on` without a site."""
    code = getattr(where, "__code__", None)
    if code is not None and code.co_varnames[:1] == ("frame",):
        raise HookError(
            f"hooks.on was given {name_of(where)}, a function of a frame, instead of a site; write "
            "@hooks.on(v7.PostFfn)"
        )


def name_of(function: HookFunction) -> str:
    """A function as lists and errors name it."""
    return getattr(function, "__qualname__", None) or repr(function)


def _place(where: Where, layers: Iterable[int] | int | None) -> Place:
    """Raises HookError for what is no site, and for layers of a site that is in none."""
    is_kind = isinstance(where, type) and issubclass(where, Hook)
    is_rule = callable(where) and not isinstance(where, type | Hook)
    if not (isinstance(where, Hook) or is_kind or is_rule):
        raise HookError(
            f"a hook is registered at a site, a class of sites such as v7.PostFfn, or a function of a site; "
            f"not at {where!r:.60}"
        )
    if layers is None:
        return Place(where)
    if isinstance(where, Hook) or (is_kind and not issubclass(cast(type, where), LayerHook)):
        raise HookError(f"{Place(where)!r} is one site; layers are for classes of sites such as v7.PostFfn")
    wanted = tuple(layers) if isinstance(layers, Iterable) else (layers,)
    wrong = next((item for item in wanted if type(item) is not int or item < 0), None)
    if wrong is not None or not wanted:
        raise HookError(f"layers are integers from 0 up, at least one; given {layers!r}")
    return Place(where, wanted)
