"""Names without what the wrappers of training put before every one of them: DataParallel, compile, FSDP."""

from __future__ import annotations

from rwkvgraph.load.arrays import Reader, lacking
from rwkvgraph.op import Array

PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "model.")
BEGINNINGS = ("emb.", "blocks.", "head.", "ln_out.")
"""Of names of which one has to be there afterwards: other models have such names by themselves."""


class PrefixReader:
    """Another reader's tensors, whose names all begin with `prefix`, without it."""

    def __init__(self, inner: Reader, prefix: str) -> None:
        self.path = inner.path
        self._inner = inner
        self._prefix = prefix
        self._names = {name.removeprefix(prefix): None for name in inner.names()}

    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if the file lacks it."""
        return self._inner.shape(self._whole(name))

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis, as the inner reader has their type."""
        return self._inner.rows(self._whole(name), start, stop)

    def halves(self, name: str, start: int, stop: int) -> Array:
        """Rows as float16."""
        return self._inner.halves(self._whole(name), start, stop)

    def _whole(self, name: str) -> str:
        if name not in self._names:
            raise lacking(self.path, name)
        return self._prefix + name


def without_prefix(reader: Reader) -> Reader:
    """The reader, without the prefixes that all its names have if a model's names are behind them."""
    names = reader.names()
    prefix = ""
    while found := next((one for one in PREFIXES if _all_begin(names, prefix + one)), None):
        prefix += found
    if not prefix or not any(name.startswith(BEGINNINGS, len(prefix)) for name in names):
        return reader
    return PrefixReader(reader, prefix)


def _all_begin(names: list[str], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)
