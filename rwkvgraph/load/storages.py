"""What torch's pickles are made of: storages, and tensors that are views of them; both only described.

`GLOBALS` is all that a pickle may name. Nothing here touches a tensor's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rwkvgraph.errors import LoadError
from rwkvgraph.load.mapped import Stored, check_element, check_sizes, contiguous, shown
from rwkvgraph.load.pickles import Builder

STORAGES = {
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Element types by torch's names. Only those in `ELEMENTS` are read; of the others errors can tell."""

ITEM_BYTES = {
    "F16": 2,
    "BF16": 2,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}

DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class Storage:
    """Numbers under a key of the file: `count` elements from `start` on; None is all of them."""

    dtype: str
    key: str
    start: int = 0
    count: int | None = None


@dataclass(frozen=True)
class Pickled:
    """A tensor as a pickle has it, in elements; only `storage` has been checked."""

    storage: Storage
    offset: object
    shape: object
    strides: object


def read_storage(path: str, value: object) -> Storage:
    """The storage of a persistent id: ("storage", type, key, device, elements), and in legacy files a view.

    Raises LoadError for any other id. The device does not matter here.
    """
    parts = value if isinstance(value, tuple) else ()
    if not 5 <= len(parts) <= 6 or parts[0] != "storage" or not isinstance(parts[1], Builder):
        raise LoadError(
            f"{path}: its pickle asks for {shown(value)} from outside, which is no storage; damaged?"
        )
    dtype = STORAGES.get(parts[1].name.rpartition(".")[2])
    if dtype is None or not isinstance(parts[2], str):
        raise LoadError(
            f"{path}: its pickle has a storage of {parts[1].name}, with {shown(parts[2])} as its key"
        )
    view = parts[5] if len(parts) == 6 else None
    if view is None:
        return Storage(dtype, parts[2])
    _, start, count = view if isinstance(view, tuple) and len(view) == 3 else (None, None, None)
    if type(start) is not int or type(count) is not int or start < 0 or count < 0:
        raise LoadError(f"{path}: its pickle has a view of storage {shown(parts[2])} that is none; damaged?")
    return Storage(dtype, parts[2], start, count)


def stored(
    path: str, name: str, tensor: Pickled, find: Callable[[Storage], tuple[int, int]], size: int
) -> Stored:
    """Where a tensor lies in a file of `size` bytes. Raises LoadError unless it lies within its storage.

    find: first byte and end of a storage.
    """
    storage = tensor.storage
    check_element(path, name, storage.dtype)
    shape = check_sizes(path, name, tensor.shape)
    strides = check_sizes(path, name, tensor.strides)
    if len(strides) != len(shape) or type(tensor.offset) is not int or tensor.offset < 0:
        raise LoadError(f"{path}: tensor {name} of shape {shape} has strides {strides}; damaged?")
    first, end = _part(path, name, storage, find)
    found = Stored(storage.dtype, shape, strides, first + tensor.offset * ITEM_BYTES[storage.dtype])
    if found.end > end or found.offset > end:
        raise LoadError(
            f"{path}: tensor {name} of shape {shape} ends {found.end - end} bytes after its storage; damaged?"
        )
    # A stride of 0 repeats numbers for nothing; without a limit, a file of a few bytes could fill a disk.
    if Stored(storage.dtype, shape, contiguous(shape), 0).end > size:
        raise LoadError(
            f"{path}: tensor {name} of shape {shape} is larger than the whole file of {size} bytes"
        )
    return found


def _part(
    path: str, name: str, storage: Storage, find: Callable[[Storage], tuple[int, int]]
) -> tuple[int, int]:
    """First byte and end of what a tensor may use of its storage."""
    try:
        first, end = find(storage)
    except LoadError as error:
        raise LoadError(f"{error} (for tensor {name})") from error
    item = ITEM_BYTES[storage.dtype]
    if storage.count is None:
        return first, end
    first += storage.start * item
    if first + storage.count * item > end:
        raise LoadError(f"{path}: tensor {name} is a view that ends after its storage; damaged?")
    return first, first + storage.count * item


def _tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> Pickled:
    """What `_rebuild_tensor_v2` describes; gradients and hooks do not matter."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor of no storage")
    return Pickled(storage, offset, shape, strides)


def _parameter(data: object, *_: object) -> object:
    return data


def _ordered(items: object = ()) -> dict[str, object]:
    """An OrderedDict; Python 2 wrote its items as a list of pairs."""
    pairs: list[Any] = list(items) if isinstance(items, (list, tuple)) else [None]
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 and type(pair[0]) is str for pair in pairs):
        raise ValueError("no items of a dict")
    return dict(pairs)


def _size(sizes: object = ()) -> tuple[object, ...]:
    if not isinstance(sizes, (list, tuple)):
        raise ValueError("no sizes")
    return tuple(sizes)


def _nothing(*_: object) -> None:
    return None


def _known() -> dict[str, Builder]:
    """Every global that a model's pickle may name, by "module name"."""
    builders = [
        Builder("collections.OrderedDict", 0, 1, _ordered),
        Builder("torch._utils._rebuild_tensor", 4, 4, _tensor),
        Builder("torch._utils._rebuild_tensor_v2", 6, 7, _tensor),
        Builder("torch._utils._rebuild_parameter", 3, 3, _parameter),
        Builder("torch._utils._rebuild_parameter_with_state", 4, 4, _parameter),
        Builder("torch.Size", 0, 1, _size),
        Builder("torch.device", 1, 2, _nothing),
        *(Builder(f"torch.{dtype}") for dtype in DTYPES),
        # Tensors on a GPU name their storage so in legacy files.
        *(Builder(f"{module}.{name}") for module in ("torch", "torch.cuda") for name in STORAGES),
    ]
    return {" ".join(builder.name.rsplit(".", 1)): builder for builder in builders}


GLOBALS = _known()
"""What a pickle may name."""
