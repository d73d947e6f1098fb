"""Who may import whom, and the limits of size and silence that the house style sets.

Read from the sources' syntax trees: nothing is imported or run here. The row of `rwkvgraph/ops/matmul.py` in
the table is `ops.matmul` or, failing that, `ops`. A row may lack its file, no file its row.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = {"rwkvgraph": ROOT, "rwkvgraph_codegen": ROOT / "codegen"}

# What each module or folder may import of ours, bottom up; a folder may always import from itself.
MAY_IMPORT = {
    "codegen": "",
    "errors": "",
    "view": "errors",
    "tensor": "errors view",
    "op": "errors view tensor",
    "show": "errors view tensor op",
    "graph": "errors view tensor op show",
    "interpret": "errors view tensor op show graph",
    "agreement": "errors op",
    "quant": "errors view tensor op codegen",
    "draw": "",
    "ops": "errors view tensor op quant draw codegen",
    "hook": "errors view tensor op show graph ops",
    "hooks": "errors hook",
    "splice": "errors view tensor op graph hook hooks ops",
    # text, files and numbers: know no ops
    "batch": "errors view tensor op",  # of `op` only the name of numpy's array type
    "tokens": "errors op",
    "tokenizer": "errors",
    "sampler": "errors draw",
    "assets": "errors",
    "dump": "errors",
    "writing": "errors",
    "load": "errors view tensor op writing",
    # beside each other: models know no compiler, the compiler no models
    "models": "errors view tensor op graph hook quant ops load batch",
    "v4": "models",
    "v5": "models",
    "v6": "models",
    "v7": "models",
    "compiler": "errors view tensor op show graph hook hooks splice quant ops codegen dump",
    "engine": "errors view tensor op graph hook hooks splice interpret compiler",
    "gpu": "errors view tensor op show graph hook hooks interpret agreement quant codegen compiler dump "
    "engine",
    # on top
    "capture": "errors view op graph hook hooks ops batch",
    "fingerprint": "errors op load models",
    "state_forms": "errors op models",
    "state_file": "errors op load models state_forms writing",
    "state": "errors view tensor op models engine tokens state_forms state_file",
    "programs": "op graph hooks splice engine",
    "decoding": "errors view tensor op graph ops gpu batch state",
    "model": "errors view tensor op graph hook hooks quant ops load models compiler engine gpu batch capture "
    "tokens fingerprint state programs decoding",
    "runtime": "errors view op hooks ops gpu sampler state decoding model",
    "generate": "errors tokenizer sampler assets hook hooks state model runtime",
    "sight": "errors view tensor op show graph hook hooks splice quant ops load models compiler gpu model "
    "codegen",
    "sight.values": "op",
    "sight.drift": "op sight.values",
    "sight.reading": "errors op graph hook load models capture model sight.values sight.drift",
    "sight.tables": "sight.values sight.drift sight.reading",
    "sight.reports": "errors tokenizer sight.values sight.drift sight.reading sight.tables",
    "sight.values_file": "op writing sight.reading",
    "bench": "errors op view batch load models compiler gpu engine sampler state model runtime sight "
    "__init__",
    "bench.products": "op graph ops quant view compiler gpu codegen bench",
    "bench.tuner": "compiler gpu codegen sight load ops bench bench.products",
    "testing": "errors view tensor op graph interpret agreement quant ops codegen compiler gpu",
    "terminal": "",
    "commands": "*",
    "cli": "*",
    "__init__": "*",
    "__main__": "cli",
}

# Imports against the table: inside a function, with a comment that names the cycle, or under TYPE_CHECKING.
BREAKS_A_CYCLE = {
    ("tensor", "ops"),  # Tensor.__add__ and its kin build ops
    ("tensor", "op"),  # type of a source
    ("op", "quant"),  # type of an operand
    ("graph", "hook"),  # type of an item
}

# Packages of others, and who may import them. numpy is everywhere but in codegen.
MAY_USE = {
    "numpy": "*",
    "networkx": "graph hook compiler sight testing",
    "safetensors": "load state_file sight.values_file testing",
    "wgpu": "gpu",
    "rich": "terminal",
}

MOST_LINES = 400  # design: aim for 300
MOST_FUNCTION_LINES = 60  # without the docstring; design: aim for 25

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A source file: its dotted name, its row in the table and its syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def row(self) -> str:
        """The row it has in the table."""
        return row_of(self.name)

    @property
    def package(self) -> str:
        """What its relative imports start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name; `local` to a function, or `for_types` only."""

    target: str
    line: int
    local: bool
    for_types: bool


@cache
def modules() -> dict[str, Module]:
    """Every module of both packages, by dotted name."""
    found = {}
    for package, root in SOURCE_ROOTS.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            found[name] = Module(name, path, text, ast.parse(text))
    return found


def row_of(name: str) -> str:
    """The row of this module of ours, or of the nearest folder around it; its name where there is none."""
    package, _, rest = name.partition(".")
    key = "codegen" if package != "rwkvgraph" else rest or "__init__"
    around = [key[: dot.start()] for dot in re.finditer(r"\.|$", key)]
    return next((row for row in reversed(around) if row in MAY_IMPORT), key)


def allowed(row: str, words: str) -> bool:
    """Whether `row` is one of the words, or everything is allowed."""
    return words == "*" or row in words.split()


def targets(module: Module, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The modules that one import statement names; `from x import y` names x.y where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        around = module.package.split(".")
        base = ".".join(filter(None, [*around[: len(around) - node.level + 1], base]))
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield inner if inner in modules() else base


def is_type_checking(node: ast.AST) -> bool:
    """Whether the node is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module, wherever it stands."""

    def walk(node: ast.AST, local: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Import(name, node.lineno, local, for_types) for name in targets(module, node))
        local = local or isinstance(node, FunctionNode | ast.Lambda)
        for_types = for_types or is_type_checking(node)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, local, for_types)

    return walk(module.tree, local=False, for_types=False)


def is_ours(name: str) -> bool:
    """Whether a dotted name lies in one of the two packages."""
    return name.partition(".")[0] in SOURCE_ROOTS


def functions(module: Module) -> Iterator[tuple[str, FunctionNode, ast.ClassDef | None]]:
    """A module's functions and its classes' methods: dotted name, node, class around."""
    owners = [(None, module.tree.body), *((node, node.body) for node in classes(module))]
    for owner, body in owners:
        for node in body:
            if isinstance(node, FunctionNode):
                yield f"{owner.name}.{node.name}" if owner else node.name, node, owner


def classes(module: Module) -> list[ast.ClassDef]:
    """The classes at the top of a module."""
    return [node for node in module.tree.body if isinstance(node, ast.ClassDef)]


@cache
def classes_by_name() -> dict[str, list[ast.ClassDef]]:
    """Every class of ours, by its bare name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for module in modules().values():
        for node in classes(module):
            found.setdefault(node.name, []).append(node)
    return found


def documented(node: ast.ClassDef) -> set[str]:
    """The methods that a class of ours documents."""
    return {item.name for item in node.body if isinstance(item, FunctionNode) and ast.get_docstring(item)}


def bases(owner: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """The classes of ours above `owner`, and the protocols whose documented methods it has all of."""
    names = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in owner.bases}
    has = {item.name for item in owner.body if isinstance(item, FunctionNode)}
    for base in (node for nodes in classes_by_name().values() for node in nodes if node is not owner):
        is_protocol = any(ast.unparse(above).startswith("Protocol") for above in base.bases)
        if base.name in names:
            yield base
            yield from bases(base)
        elif is_protocol and documented(base) <= has:
            yield base


def length(node: FunctionNode) -> int:
    """Lines of a function from `def` to its end, without its docstring."""
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    end = node.end_lineno or node.lineno
    return end - node.lineno + 1 - ((docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0)


def at(module: Module, line: int) -> str:
    """A place as editors and terminals understand it."""
    return f"{module.path.relative_to(ROOT)}:{line}"


def import_time_edges(module: Module) -> set[str]:
    """What runs before this module can: its imports and the packages around them, less those around it."""
    wanted = set()
    for found in imports(module):
        if not found.local and not found.for_types and is_ours(found.target):
            parts = found.target.split(".")
            wanted |= {".".join(parts[: n + 1]) for n in range(len(parts))}
    around = {module.name[: dot.start()] for dot in re.finditer(r"\.|$", module.name)}
    return {name for name in wanted if name in modules()} - around


def test_every_module_has_a_row() -> None:
    homeless = [at(module, 1) for module in modules().values() if module.row not in MAY_IMPORT]
    assert not homeless, f"give these a row in MAY_IMPORT: {homeless}"


def test_the_table_itself_has_no_cycle() -> None:
    rows = {row: set(words.split()) - {"*"} for row, words in MAY_IMPORT.items()}
    assert {word for words in rows.values() for word in words} <= rows.keys()
    graphlib.TopologicalSorter(rows).prepare()


def goes_the_right_way(row: str, found: Import) -> bool:
    """Whether the table lets `row` import this module of ours."""
    target = row_of(found.target)
    if (row, target) in BREAKS_A_CYCLE:
        return found.local or found.for_types
    return target == row or allowed(target, MAY_IMPORT.get(row, ""))


def is_no_stranger(row: str, found: Import) -> bool:
    """Whether the table lets `row` import this module of somebody else."""
    package = found.target.partition(".")[0]
    return package in sys.stdlib_module_names or (row != "codegen" and allowed(row, MAY_USE.get(package, "")))


def test_imports_go_one_way() -> None:
    offences = [
        f"{at(module, found.line)}: {module.row} may not import {found.target}"
        for module in modules().values()
        for found in imports(module)
        if not (goes_the_right_way if is_ours(found.target) else is_no_stranger)(module.row, found)
    ]
    assert not offences, "\n".join(offences)


def test_a_local_import_says_why_it_is_local() -> None:
    silent = []
    for module in modules().values():
        lines = module.text.splitlines()
        for found in imports(module):
            above, own = lines[found.line - 2], lines[found.line - 1]
            if found.local and "#" not in own and not above.strip().startswith("#"):
                silent.append(at(module, found.line))
    assert not silent, f"say on the line or above it which cycle it breaks, or what it saves: {silent}"


def test_no_module_waits_for_itself() -> None:
    edges = {name: import_time_edges(module) for name, module in modules().items()}
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        pytest.fail("imported in a circle: " + " → ".join(reversed(error.args[1])))


def test_no_file_is_too_long() -> None:
    folders = ["rwkvgraph", "codegen", "tests", "examples"]
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    sizes = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in files}
    long = [f"{path}: {size}" for path, size in sizes.items() if size > MOST_LINES]
    assert not long, f"over {MOST_LINES} lines: {long}"


def test_no_function_is_too_long() -> None:
    long = [
        f"{at(module, node.lineno)}: {node.name} has {length(node)}"
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, FunctionNode) and length(node) > MOST_FUNCTION_LINES
    ]
    assert not long, f"over {MOST_FUNCTION_LINES} lines: {long}"


def test_public_names_have_a_docstring() -> None:
    silent = []
    for module in modules().values():
        if ast.get_docstring(module.tree) is None:
            silent.append(at(module, 1))
        silent += [at(module, node.lineno) for node in classes(module) if is_silent(node, None)]
        for name, node, owner in functions(module):
            if is_silent(node, owner):
                silent.append(f"{at(module, node.lineno)}: {name}")
    assert not silent, "\n".join(silent)


def is_silent(node: ast.ClassDef | FunctionNode, owner: ast.ClassDef | None) -> bool:
    """Whether a public name lacks a docstring; overrides, setters and overloads have theirs elsewhere."""
    if node.name.startswith("_") or (owner and owner.name.startswith("_")) or ast.get_docstring(node):
        return False
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
    inherited = owner is not None and any(node.name in documented(base) for base in bases(owner))
    return not inherited and not marks & {"setter", "deleter", "overload"}


def test_public_functions_say_what_they_return() -> None:
    bare = [
        f"{at(module, node.lineno)}: {name}"
        for module in modules().values()
        for name, node, _ in functions(module)
        if node.returns is None and (not node.name.startswith("_") or node.name.endswith("__"))
    ]
    assert not bare, "\n".join(bare)
