"""The straight-line part of a kernel: loads, calls and stores at one place (i0, i1, i2) of its domain."""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph_codegen.binding import Binding, Mode


@dataclass(frozen=True)
class Function:
    """A WGSL function of one expression: an operation's meaning, over its operands' names.

    parameters: (name, type) pairs; `returns`: a type, `V` for the lane type.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    returns: str
    expression: str

    def text(self) -> str:
        """The declaration."""
        parameters = ", ".join(f"{name}: {kind}" for name, kind in self.parameters)
        return f"fn {self.name}({parameters}) -> {self.returns} {{\n    return {self.expression};\n}}"


@dataclass(frozen=True)
class Load:
    """`let name = …`: a value read from a binding.

    It is read at place `at` (a u32 expression) of the uniform, in row `row`.
    """

    name: str
    binding: Binding
    mode: Mode
    at: str
    row: str = "i0"
    lane: str = "i2"

    def value(self, row: str = "") -> str:
        """The expression; row: another than its own."""
        place = f"here.at[{self.at}], {row or self.row}"
        if self.mode in ("lane", "splat"):
            place += f", i1, {self.lane}"
        return f"load_{self.binding.name}_{self.mode}({place})"

    def text(self) -> str:
        """The line of WGSL."""
        return f"let {self.name} = {self.value()};"


@dataclass(frozen=True)
class Call:
    """`let name = function(arguments);`."""

    name: str
    function: str
    arguments: tuple[str, ...]

    def text(self) -> str:
        """The line of WGSL."""
        return f"let {self.name} = {self.function}({', '.join(self.arguments)});"


@dataclass(frozen=True)
class Store:
    """Writes a value to a binding, in row `row`, where `guard` (a bool expression, or nothing) holds."""

    binding: Binding
    at: str
    value: str
    row: str = "i0"
    guard: str = ""
    lane: str = "i2"

    def text(self) -> str:
        """The line of WGSL."""
        line = f"store_{self.binding.name}(here.at[{self.at}], {self.row}, i1, {self.lane}, {self.value});"
        return f"if {self.guard} {{ {line} }}" if self.guard else line


Statement = Load | Call | Store


def number(at: str, part: int) -> str:
    """The f32 stored in a part (0 to 3) of row `at` of the uniform's table.

    This is how a parameter reaches a shader.
    """
    return f"bitcast<f32>(here.at[{at}].{'xyzw'[part]})"


def block(statements: list[Statement], depth: int) -> str:
    """Statements as indented lines."""
    return "\n".join("    " * depth + statement.text() for statement in statements)
