"""What `torch.save` writes, read without torch: a zip file, or before torch 1.6 pickles and then the numbers.

The pickle holds a dict of tensors, each a view of a storage; the storages are numbers in the file, which are
mapped. Formats: torch/serialization.py, `_save` and `_legacy_save`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable

from rwkvgraph.errors import LoadError
from rwkvgraph.load.mapped import Stored, check_count, check_name, shown
from rwkvgraph.load.pickles import MOST_BYTES, MOST_STEPS, Pickle
from rwkvgraph.load.storages import GLOBALS, ITEM_BYTES, Pickled, Storage, read_storage, stored
from rwkvgraph.load.zip_file import Member, place, read_members

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
LEGACY_BEGINNING = LEGACY_MAGIC.to_bytes(10, "little")
"""Stands in the first bytes of a legacy file, whichever protocol its pickles have."""

WRAPPERS = ("state_dict", "model", "module", "model_state_dict")
"""Keys under which checkpoints keep the tensors beside other things."""

DEEPEST = 3
"""Dicts within dicts among which that of the tensors is looked for, to name it."""

COUNT = struct.Struct("<q")


def read_torch_zip(path: str, data: mmap.mmap) -> dict[str, Stored]:
    """Where the tensors of a zip file by `torch.save` lie. Raises LoadError."""
    members = read_members(path, data)
    folder = _folder(path, members)
    if (order := members.get(f"{folder}/byteorder")) is not None:
        _check_order(path, bytes(data[slice(*place(path, data, order))][:16]) == b"little")
    start, stop = place(path, data, members[f"{folder}/data.pkl"])
    if stop - start > MOST_BYTES:
        raise LoadError(f"{path}: its pickle has {stop - start} bytes; a model's has at most {MOST_BYTES}")

    def find(storage: Storage) -> tuple[int, int]:
        member = members.get(f"{folder}/data/{storage.key}")
        if member is None:
            raise LoadError(f"{path}: the zip file has no data/{shown(storage.key)[1:-1]}")
        return place(path, data, member)

    value = Pickle(path, data[start:stop], 0, GLOBALS, lambda found: read_storage(path, found)).load()
    return _locate(path, value, find, len(data))


def read_torch_legacy(path: str, data: mmap.mmap) -> dict[str, Stored]:
    """Where the tensors of a file by `torch.save` before 1.6 lie. Raises LoadError."""
    head = data[:MOST_BYTES]
    seen: dict[str, Storage] = {}

    def persistent(found: object) -> Storage:
        storage = read_storage(path, found)
        seen.setdefault(storage.key, storage)
        return storage

    values: list[object] = []
    at, steps = 0, MOST_STEPS
    for callback in (None, None, None, persistent, None):
        pickle = Pickle(path, head, at, GLOBALS if callback else {}, callback, steps)
        values.append(pickle.load())
        at, steps = pickle.at, pickle.steps
        if len(values) <= 2 and values[-1] != (LEGACY_MAGIC, LEGACY_VERSION)[len(values) - 1]:
            raise LoadError(f"{path} is a pickle, but none that torch.save wrote; damaged?")
    _, _, machine, value, keys = values
    _check_order(path, not isinstance(machine, dict) or machine.get("little_endian") is not False)
    places = _legacy_places(path, data, at, keys, seen)

    def find(storage: Storage) -> tuple[int, int]:
        if storage.key not in places:
            raise LoadError(f"{path} has no storage {shown(storage.key)}")
        return places[storage.key]

    return _locate(path, value, find, len(data))


def _legacy_places(
    path: str, data: mmap.mmap, at: int, keys: object, seen: dict[str, Storage]
) -> dict[str, tuple[int, int]]:
    """First byte and end of every storage: they follow the pickles, each after its number of elements."""
    if not isinstance(keys, list):
        raise LoadError(f"{path}: {shown(keys)} stands where the storages' keys are; damaged?")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        if not isinstance(key, str) or key not in seen or key in places:
            raise LoadError(f"{path}: {shown(key)} is no storage of this file; damaged?")
        head = data[at : at + COUNT.size]
        count = COUNT.unpack(head)[0] if len(head) == COUNT.size else 0
        start = at + COUNT.size
        at = start + count * ITEM_BYTES[seen[key].dtype]
        if not start <= at <= len(data):
            raise LoadError(
                f"{path}: storage {shown(key)} would end at byte {at}, and the file has {len(data)}; cut off?"
            )
        places[key] = start, at
    return places


def _folder(path: str, members: dict[str, Member]) -> str:
    """The folder of the zip file that everything lies in. Raises LoadError if torch.save did not make it."""
    found = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not found:
        packed = next(
            (name for name in members if name.endswith((".pth", ".pt", ".st", ".safetensors"))), None
        )
        hint = f"; unpack {shown(packed)} from it" if packed else ", as files by torch.save have"
        raise LoadError(f"{path} is a zip file without data.pkl{hint}")
    folder = found[0].removesuffix("/data.pkl")
    if f"{folder}/constants.pkl" in members or any(name.startswith(f"{folder}/code/") for name in members):
        raise LoadError(
            f"{path} is a TorchScript program (torch.jit.save); save the model's state_dict with torch.save"
        )
    return folder


def _check_order(path: str, is_little: bool) -> None:
    if not is_little:
        raise LoadError(f"{path} was written on a big-endian machine; save it anew on another")


def _locate(
    path: str, value: object, find: Callable[[Storage], tuple[int, int]], size: int
) -> dict[str, Stored]:
    """Every tensor of the dict, as what lies in the file."""
    tensors = {}
    found = _state_dict(path, value)
    check_count(path, len(found))
    for name, tensor in found.items():
        if type(name) is not str:
            raise LoadError(f"{path}: a tensor has {shown(name)} as its name")
        check_name(path, name)
        if not isinstance(tensor, Pickled):
            raise LoadError(f"{path}: {name} is {_kind(tensor)}, not a tensor{_hint(value)}")
        tensors[name] = stored(path, name, tensor, find, size)
    return tensors


def _state_dict(path: str, value: object) -> dict[object, object]:
    """The dict of tensors itself, or in the dict around it."""
    if not isinstance(value, dict):
        raise LoadError(f"{path} holds {_kind(value)}, not a dict of tensors; save the model's state_dict")
    if "_strategy" in value:
        raise LoadError(
            f"{path} was made by the rwkv package for its own use ({shown(value['_strategy'])}); "
            "give the file that it was made from"
        )
    for key in WRAPPERS:
        inner = value.get(key)
        if isinstance(inner, dict):
            return inner
    if value and not any(isinstance(item, Pickled) for item in value.values()):
        keys = ", ".join(shown(key) for key in list(value)[:4])
        raise LoadError(
            f"{path} holds a dict without tensors ({keys}); wanted a model's state_dict{_hint(value)}"
        )
    return value


def _hint(value: object) -> str:
    """Which of the dicts within to save, if one has nothing but tensors: the largest of them."""
    found: list[tuple[int, str]] = []
    level = [("checkpoint", value)]
    for _ in range(DEEPEST):
        inner: dict[int, tuple[str, dict[object, object]]] = {}  # each dict once, however often it is there
        for where, outer in level:
            for key, item in outer.items() if isinstance(outer, dict) else ():
                if isinstance(item, dict) and isinstance(key, str):
                    inner.setdefault(id(item), (f"{where}[{shown(key)}]", item))
        found += [(len(item), where) for where, item in inner.values() if _has_only_tensors(item)]
        level = list(inner.values())
    where = max(found, key=lambda size_where: size_where[0], default=(0, ""))[1]
    return f"; save the dict of tensors in it alone: torch.save({where}, …)" if where else ""


def _has_only_tensors(value: dict[object, object]) -> bool:
    return bool(value) and all(isinstance(item, Pickled) for item in value.values())


def _kind(value: object) -> str:
    return "a tensor alone" if isinstance(value, Pickled) else shown(value)
