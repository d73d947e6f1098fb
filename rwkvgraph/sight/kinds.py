"""What a kind of operation means: its docstring, its numpy and its WGSL, from the source of its class."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass

from rwkvgraph.op import Map, Row, TensorOp

BY_HAND = "a kernel of its own: see the shader of its pass"


@dataclass(frozen=True)
class Kind:
    """One class of operations. wgsl: labelled pieces. where: `file:line` of the class; "" if unknown."""

    name: str
    skeleton: str
    meaning: str
    numpy: str
    wgsl: tuple[tuple[str, str], ...]
    where: str

    def facts(self) -> dict[str, object]:
        """As plain values."""
        return {
            "skeleton": self.skeleton,
            "meaning": self.meaning,
            "numpy": self.numpy,
            "wgsl": [list(piece) for piece in self.wgsl],
            "where": self.where,
        }


def kind_of(cls: type[TensorOp]) -> Kind:
    """What there is to say of a class of operations."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    return Kind(name, cls.kind, inspect.getdoc(cls) or "", _numpy(cls), tuple(_wgsl(cls)), _where(cls))


def _numpy(cls: type[TensorOp]) -> str:
    """The source of `numpy`, without its docstring's indent; "" where Python has none."""
    try:
        return textwrap.dedent(inspect.getsource(cls.numpy)).rstrip()
    except (OSError, TypeError):
        return ""


def _where(cls: type[TensorOp]) -> str:
    try:
        _, start = inspect.getsourcelines(cls)
        path = inspect.getsourcefile(cls) or ""
    except (OSError, TypeError):
        return ""
    _, found, rest = path.rpartition("/rwkvgraph/")
    return f"rwkvgraph/{rest}:{start}" if found else f"{path.rpartition('/')[2]}:{start}"


def _wgsl(cls: type[TensorOp]) -> list[tuple[str, str]]:
    pieces: list[tuple[str, str]] = []
    rule = getattr(cls, "rule", None)
    if rule is not None:
        pieces += [
            (f"t.{axis}", text) for axis, text in zip("xyzw", getattr(rule, "numbers", ()), strict=False)
        ]
        look = getattr(rule, "look", "")
        pieces += [("seen = Σ s ×", look)] if look else []
        pieces.append(("each step", "\n".join(rule.step)))
    if not issubclass(cls, Map):
        return pieces or [("kernel", BY_HAND)]
    if issubclass(cls, Row):
        pieces += [
            (f"{item.name} = {'Σ' if item.combine == '+' else 'max'}", item.wgsl) for item in cls.reduce
        ]
    pieces.append(("result", cls.wgsl))
    pieces += [("written where", cls.guard)] if cls.guard else []
    pieces += [("row written", cls.row)] if cls.row != "i0" else []
    fields = getattr(cls, "__dataclass_fields__", {})
    pieces += [
        (f"row of {name}", item.metadata["row"]) for name, item in fields.items() if "row" in item.metadata
    ]
    return pieces
