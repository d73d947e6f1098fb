"""A machine for the pickles that `torch.save` writes, which builds values and calls nothing.

Python's own unpickler is not used: it runs what a file asks for, and takes the memory a file asks for. Here a
global is a name in a table or refused, what it builds is ours, and numbers, texts and steps are limited.
Operations: Python's Lib/pickletools.py, those of protocol 2 and up that plain containers need.
"""

from __future__ import annotations

import struct
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rwkvgraph.errors import LoadError
from rwkvgraph.load.mapped import shown

MOST_BYTES = 8 << 20
MOST_STEPS = 300_000
"""Operations; a quarter of a second's worth. A model of 61 layers takes 100,000."""
MOST_COPIED = 500_000
"""Values in the lists that calls are given."""
MOST_INTEGER = 16
"""Bytes of an integer; torch's magic number has 10."""

STOP = ord(".")
PROTOCOL = 0x80
"""With this every pickle of protocol 2 and up begins."""
OLD_PROTOCOL = "saved with pickle protocol 0 or 1; save it anew with torch.save's default"


@dataclass(frozen=True)
class Builder:
    """A global that a pickle may name.

    build: the value of a call with `fewest` to `most` arguments; None for a global that cannot be called. It
    gets any values, and raises LoadError or ValueError for those that do not fit.
    """

    name: str
    fewest: int = 0
    most: int = 0
    build: Callable[..., object] | None = None


class Pickle:
    """A pickle that starts at byte `at` of data; `load` gives its value, and `at` is then the byte after it.

    known: what it may name, by "module name". persistent: the value for a persistent id; raises LoadError.
    steps: the most operations; `load` leaves there what remains of them.
    """

    def __init__(
        self,
        path: str,
        data: bytes,
        at: int = 0,
        known: Mapping[str, Builder] | None = None,
        persistent: Callable[[object], object] | None = None,
        steps: int = MOST_STEPS,
    ) -> None:
        self.path = path
        self.at = at
        self.steps = steps
        self._data = data
        self._known = known or {}
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def load(self) -> object:
        """The value. Raises LoadError, naming the byte, for what is damaged or refused."""
        start = self.at
        try:
            while self.steps:
                self.steps -= 1
                code = self._data[self.at]
                self.at += 1
                if code == STOP:
                    return self._stack.pop()
                if code not in STEPS:
                    raise self._unknown(code, start)
                STEPS[code](self)
        except (IndexError, KeyError, struct.error, ValueError) as error:
            raise LoadError(f"{self.path}: its pickle is damaged or cut off at byte {self.at}") from error
        raise self.refusal(f"{MOST_STEPS} operations from byte {start} on, and no end")

    def refusal(self, what: str) -> LoadError:
        """The error for what a pickle asked and does not get."""
        return LoadError(f"{self.path}: its pickle is refused at byte {self.at}: {what}")

    def _unknown(self, code: int, start: int) -> LoadError:
        if self._data[start] != PROTOCOL:
            return LoadError(f"{self.path} was {OLD_PROTOCOL}")
        return self.refusal(f"operation {code:#04x} is none that torch.save writes")

    def number(self, layout: str) -> Any:
        """The next number, by its `struct` layout."""
        (value,) = struct.unpack_from(layout, self._data, self.at)
        self.at += struct.calcsize(layout)
        return value

    def piece(self, layout: str) -> bytes:
        """The next bytes, as many as the number before them says."""
        count = self.number(layout)
        if not 0 <= count <= len(self._data) - self.at:
            raise IndexError
        self.at += count
        return self._data[self.at - count : self.at]

    def skip(self, count: int) -> None:
        """Leave out bytes."""
        self.at += count

    def line(self) -> str:
        """The text up to the next line end."""
        end = self._data.index(b"\n", self.at, self.at + 1024)
        text = self._data[self.at : end].decode()
        self.at = end + 1
        return text

    def push(self, value: object) -> None:
        """Put a value onto the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value off the stack."""
        return self._stack.pop()

    def mark(self) -> None:
        """Remember where the values of a container begin."""
        self._marks.append(len(self._stack))

    def marked(self) -> list[Any]:
        """Take all values after the last mark off the stack."""
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def last(self, count: int) -> list[Any]:
        """Take `count` values off the stack."""
        if count > len(self._stack):
            raise IndexError
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def remember(self, key: int | None = None) -> None:
        """Keep the last value under a number, by default the next one."""
        self._memo[len(self._memo) if key is None else key] = self._stack[-1]

    def recall(self, key: int) -> None:
        """Push what was kept under a number."""
        self._stack.append(self._memo[key])

    def integer(self, layout: str) -> None:
        """Push a long integer."""
        digits = self.piece(layout)
        if len(digits) > MOST_INTEGER:
            raise self.refusal(f"an integer of {len(digits)} bytes")
        self.push(int.from_bytes(digits, "little", signed=True))

    def extend(self, values: list[Any]) -> None:
        """Append values to the list before them."""
        target = self._stack[-1]
        if type(target) is not list:
            raise self.refusal(f"appending to {shown(target)}")
        target.extend(values)

    def fill(self, values: list[Any]) -> None:
        """Set keys and values in the dict before them.

        Keys are texts and small integers: a tuple may be too deep to hash, large integers may all collide.
        """
        target = self._stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise self.refusal(f"setting items of {shown(target)}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not str and not (type(key) is int and abs(key) < 1 << 31):
                raise self.refusal(f"{shown(key)} as the key of an item")
            target[key] = value

    def name(self, module: object, name: object) -> None:
        """Push a global, if it is known."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.refusal("a global whose name is no text")
        found = self._known.get(f"{module} {name}")
        if found is None:
            given = shown(f"{IMPORT_MAPPING.get(module, module)}.{name}")  # Python 3's name for it
            raise LoadError(
                f"{self.path}: refused, and nothing was run: its pickle names {given}, which no dict of "
                "tensors needs; an ordinary checkpoint with more than tensors in it, or a whole module? "
                'Save its state_dict alone: torch.save(checkpoint["model"], …) or '
                "torch.save(module.state_dict(), …)"
            )
        self.push(found)

    def call(self) -> None:
        """Push what a known global builds from its arguments."""
        function, arguments = self.last(2)
        if not isinstance(function, Builder) or function.build is None or type(arguments) is not tuple:
            raise self.refusal(f"a call of {getattr(function, 'name', None) or shown(function)}")
        if not function.fewest <= len(arguments) <= function.most:
            raise self.refusal(f"{function.name} with {len(arguments)} arguments")
        # A list is copied in a single step, and may be recalled for ever.
        self._copied += sum(len(item) for item in arguments if isinstance(item, list | tuple))
        if self._copied > MOST_COPIED:
            raise self.refusal(f"calls with more than {MOST_COPIED} values in their lists")
        self.push(function.build(*arguments))

    def set_state(self) -> None:
        """Drop the attributes of a dict: torch keeps `_metadata` there, of which nothing is needed."""
        target, _ = self.last(2)
        if type(target) is not dict:
            raise self.refusal(f"attributes of {shown(target)}")
        self.push(target)

    def persist(self) -> None:
        """Push the value for a persistent id."""
        if self._persistent is None:
            raise self.refusal("a persistent id where there is no data")
        self.push(self._persistent(self.pop()))


def text(self: Pickle, layout: str) -> None:
    """Push a text."""
    self.push(self.piece(layout).decode())


def check_protocol(self: Pickle) -> None:
    """Skip the protocol's number. Raises LoadError for one that is still to be invented."""
    if self.number("<B") > 5:
        raise self.refusal("a protocol above 5")


STEPS: dict[int, Callable[[Pickle], None]] = {
    ord("N"): lambda p: p.push(None),
    0x88: lambda p: p.push(True),
    0x89: lambda p: p.push(False),
    ord("}"): lambda p: p.push({}),
    ord("]"): lambda p: p.push([]),
    ord(")"): lambda p: p.push(()),
    ord("K"): lambda p: p.push(p.number("<B")),
    ord("M"): lambda p: p.push(p.number("<H")),
    ord("J"): lambda p: p.push(p.number("<i")),
    ord("G"): lambda p: p.push(p.number(">d")),
    0x8A: lambda p: p.integer("<B"),
    0x8B: lambda p: p.integer("<i"),
    ord("X"): lambda p: text(p, "<I"),
    0x8C: lambda p: text(p, "<B"),
    0x8D: lambda p: text(p, "<Q"),
    ord("U"): lambda p: text(p, "<B"),
    ord("T"): lambda p: text(p, "<i"),
    ord("C"): lambda p: p.push(p.piece("<B")),
    ord("B"): lambda p: p.push(p.piece("<I")),
    ord("("): Pickle.mark,
    ord("t"): lambda p: p.push(tuple(p.marked())),
    0x85: lambda p: p.push(tuple(p.last(1))),
    0x86: lambda p: p.push(tuple(p.last(2))),
    0x87: lambda p: p.push(tuple(p.last(3))),
    ord("a"): lambda p: p.extend(p.last(1)),
    ord("e"): lambda p: p.extend(p.marked()),
    ord("s"): lambda p: p.fill(p.last(2)),
    ord("u"): lambda p: p.fill(p.marked()),
    ord("q"): lambda p: p.remember(p.number("<B")),
    ord("r"): lambda p: p.remember(p.number("<I")),
    0x94: Pickle.remember,
    ord("h"): lambda p: p.recall(p.number("<B")),
    ord("j"): lambda p: p.recall(p.number("<I")),
    ord("c"): lambda p: p.name(p.line(), p.line()),
    0x93: lambda p: p.name(*p.last(2)),
    ord("R"): Pickle.call,
    ord("b"): Pickle.set_state,
    ord("Q"): Pickle.persist,
    PROTOCOL: check_protocol,
    0x95: lambda p: p.skip(8),  # a frame's length: only of use to those who read piecemeal
}
"""What each operation does, by its code."""
