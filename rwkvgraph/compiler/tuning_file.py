"""Kernels of the matrix product as measured on one adapter, in a file: `RWKVGRAPH_TUNING=file`.

Text to table and back. `rwkvgraph tune` measures what is in it.
"""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import is_usable, kernel_of
from rwkvgraph.errors import LoadError
from rwkvgraph_codegen import Shape, flaw, workgroup_bytes

VARIABLE = "RWKVGRAPH_TUNING"
FORMAT = "rwkvgraph tuning 1"
AGAIN = "`rwkvgraph tune -o FILE` measures it anew"


@dataclass(frozen=True)
class TuningFile:
    """Kernels for an adapter of this name, the best first, as in `Tuning`."""

    adapter: str
    matmul: tuple[Shape, ...]

    def __str__(self) -> str:
        """The file's text, a kernel a line."""
        kernels = ",\n  ".join(json.dumps(_entry(shape)) for shape in self.matmul)
        head = f'"format": {json.dumps(FORMAT)},\n "adapter": {json.dumps(self.adapter)}'
        return f'{{\n {head},\n "matmul": [\n  {kernels}\n ]\n}}\n'


def kernels_from_environment(adapter: str, target: Target) -> tuple[Shape, ...]:
    """The kernels in the file RWKVGRAPH_TUNING for an adapter.

    None where the variable is unset or empty, and where the file is for an adapter of another name. Raises
    LoadError for what is no such file, and for kernels that the device cannot run.
    """
    path = os.environ.get(VARIABLE, "")
    if not path:
        return ()
    found = read_tuning(path)
    if found.adapter != adapter:
        return ()
    # Of the same adapter through another library, which may have no matrices.
    kernels = [shape for shape in found.matmul if shape.family != "matrix" or target.matrices != "none"]
    for number, shape in enumerate(kernels, 1):
        if not is_usable(shape, target):
            needs = f"{shape.threads} threads and {workgroup_bytes(shape)} bytes a workgroup"
            needs += ", and subgroups of 8" if shape.family == "lanes" else ""
            raise _fault(path, f"kernel {number} takes {needs}; {adapter} has {target}")
    return tuple(kernels)


def read_tuning(path: str | Path) -> TuningFile:
    """A file's kernels. Raises LoadError, which says what is wrong where."""
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _fault(path, f"it cannot be read as JSON: {error}") from error
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        said = given.get("format") if isinstance(given, dict) else given
        raise _fault(path, f'its "format" is {said!r:.80}; this version reads {FORMAT!r}')
    adapter, kernels = given.get("adapter"), given.get("matmul")
    if not isinstance(adapter, str) or not isinstance(kernels, list) or not kernels:
        raise _fault(
            path, 'it has "adapter", a name as in `rwkvgraph devices`, and "matmul", a list of kernels'
        )
    shapes = tuple(_shape(path, number, entry) for number, entry in enumerate(kernels, 1))
    if shapes[-1] != kernel_of(shapes[-1]) or shapes[-1].max_groups:
        raise _fault(path, "its last kernel serves all runs: without max_tokens, min_groups and max_groups")
    return TuningFile(adapter, shapes)


def _shape(path: str | Path, number: int, entry: object) -> Shape:
    known = {item.name: item.default is MISSING for item in fields(Shape)}
    wanted = {name for name, is_needed in known.items() if is_needed}
    if not isinstance(entry, dict) or not wanted <= entry.keys() <= known.keys():
        raise _fault(path, f"kernel {number} is {entry!r:.200}; it has {', '.join(known)}, of them always "
                     f"{', '.join(sorted(wanted))}")  # fmt: skip
    for name, value in entry.items():
        is_kind = isinstance(value, str) if name == "family" else type(value) is int
        if not is_kind and not (name == "max_tokens" and value is None):
            raise _fault(path, f"{name} of kernel {number} is {value!r:.80}; it is a number, `family` a name")
    shape = Shape(**entry)
    rule = flaw(shape)
    if rule is not None or (shape.max_tokens is not None and shape.max_tokens < 1):
        raise _fault(path, f"kernel {number} is {entry}; {rule or 'max_tokens is at least 1'}")
    return shape


def _entry(shape: Shape) -> dict[str, object]:
    """What of a shape is not as by default."""
    defaults = {item.name: item.default for item in fields(Shape)}
    return {name: value for name, value in asdict(shape).items() if value != defaults[name]}


def _fault(path: str | Path, what: str) -> LoadError:
    return LoadError(f"{path} ({VARIABLE}): {what}. {AGAIN}; without the variable the usual table is used")
