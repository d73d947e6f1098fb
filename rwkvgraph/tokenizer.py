"""Text to token ids and back: greedy longest match over a vocabulary of byte strings.

Reads web-rwkv's vocabulary JSON and the `.txt` list of the RWKV package; ships neither, see `assets`.
"""

from __future__ import annotations

import ast
import codecs
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rwkvgraph.errors import LoadError, TokenizerError

END_OF_TEXT = 0
"""The id that ends a document. It stands for no bytes, unless the vocabulary gives it some."""

# A memory of pieces of text makes repeated words five times as fast. 65,536 pieces take some 10 MB.
MOST_REMEMBERED = 65_536
LONGEST_REMEMBERED = 64

_ID = re.compile("0|[1-9][0-9]{0,8}")
_PLAIN_LITERAL = re.compile(r"'([^'\\]*)'")

Pairs = NDArray[np.bool_]
"""(65536,): what holds for each pair of neighbouring bytes, at first * 256 + second."""


class Tokenizer:
    """A vocabulary, and encoding and decoding with it.

    tokens: the bytes of each id. Where two ids share their bytes, encoding gives the higher one; it never
    gives an id without bytes. Raises LoadError for an empty vocabulary and for a negative id.
    """

    def __init__(self, tokens: Mapping[int, bytes]) -> None:
        if not tokens or min(tokens) < 0:
            given = f"the id {min(tokens)}" if tokens else "no tokens at all"
            raise LoadError(f"a vocabulary has at least one token and ids from 0, this one has {given}")
        self._bytes = {END_OF_TEXT: b""} | {token: bytes(text) for token, text in sorted(tokens.items())}
        self._ids = {text: token for token, text in self._bytes.items() if text}
        self._highest = max(self._bytes)
        self._lengths = lengths_by_prefix(self._ids)
        self._can_cut = ~pairs_within(self._ids)
        self._remembered: dict[bytes, tuple[int, ...]] = {}

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Tokenizer:
        """The vocabulary in a file: a list if its name ends in `.txt`, else JSON.

        JSON: an object from decimal ids to a string or an array of byte values. List: lines of an id, a
        Python string or bytes literal and its length in bytes. Raises LoadError naming the file and the key
        or line.
        """
        path = Path(path)
        try:
            content = path.read_bytes().decode()
        except OSError as error:
            raise LoadError(
                f"cannot read the vocabulary {path}: {error.strerror}; give the path of a .json or .txt file"
            ) from error
        except UnicodeDecodeError as error:
            raise LoadError(f"the vocabulary {path} is not UTF-8: {error}; is it another file?") from error
        return cls(read_list(content, path) if path.suffix == ".txt" else read_json(content, path))

    @property
    def vocab_size(self) -> int:
        """The highest id plus one: the logits that a model must have at least."""
        return self._highest + 1

    @property
    def ids(self) -> tuple[int, ...]:
        """Every id that can be decoded, ascending, the end of text among them."""
        return tuple(self._bytes)

    def __len__(self) -> int:
        """The number of ids that can be decoded, the end of text among them."""
        return len(self._bytes)

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} ids below {self.vocab_size})"

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id. Raises TokenizerError for an id that the vocabulary lacks."""
        text = self._bytes.get(token)
        if text is None:
            raise TokenizerError(
                f"the vocabulary has no token id {token}: it has {len(self)} ids from 0 to {self._highest}; "
                "take ids from this tokenizer's encode, or load the vocabulary that belongs to the model"
            )
        return text

    def encode(self, text: str | bytes) -> list[int]:
        """The ids of a text, always the longest token that fits; a string is taken as UTF-8.

        Raises TokenizerError where no token fits, which cannot happen if every single byte is a token, as in
        the World vocabulary.
        """
        data = text if isinstance(text, bytes) else utf8(text)
        ids: list[int] = []
        remembered = self._remembered.get
        start = 0
        for end in self._cuts(data):
            piece = data[start:end]
            found = remembered(piece)
            ids += self._match(piece, start) if found is None else found
            start = end
        return ids

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes of some ids. Raises TokenizerError for an id that the vocabulary lacks."""
        return b"".join([self.token_bytes(token) for token in ids])

    def decode_text(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of some ids. errors: what to do about bytes that are not UTF-8, as for `bytes.decode`."""
        return self.decode(ids).decode(errors=errors)

    def decoder(self) -> TextDecoder:
        """A decoder of its own for one stream of ids."""
        return TextDecoder(self)

    def _cuts(self, data: bytes) -> list[int]:
        """Ends of pieces that can be matched each by itself: no token holds the two bytes around a cut.

        So every match ends there, and what comes before has no say in what follows.
        """
        if not data:
            return []
        values = np.frombuffer(data, np.uint8).astype(np.uint16)
        cuts: list[int] = (np.flatnonzero(self._can_cut[values[:-1] << 8 | values[1:]]) + 1).tolist()
        return [*cuts, len(data)]

    def _match(self, piece: bytes, offset: int) -> tuple[int, ...]:
        """The ids of a piece, which lies at `offset` in the whole text; remembered if it is short."""
        ids: list[int] = []
        start = 0
        while start < len(piece):
            token = self._longest_at(piece, start)
            if token is None:
                raise no_token_fits(piece[start], offset + start)
            ids.append(token)
            start += len(self._bytes[token])
        found = tuple(ids)
        if len(piece) <= LONGEST_REMEMBERED:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[piece] = found
        return found

    def _longest_at(self, piece: bytes, start: int) -> int | None:
        """The longest token that fits at a place of a piece."""
        for length in self._lengths.get(piece[start : start + 2], (1,)):
            token = self._ids.get(piece[start : start + length])
            if token is not None:
                return token
        return None


class TextDecoder:
    """Text from a stream of ids: holds back bytes that do not yet make a whole character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that one more id makes certain; U+FFFD for bytes that cannot become a character."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """U+FFFD if the stream stopped inside a character, else nothing. Then a new stream can begin."""
        return self._decoder.decode(b"", final=True)


def lengths_by_prefix(texts: Iterable[bytes]) -> dict[bytes, tuple[int, ...]]:
    """The lengths of the tokens that start with two bytes, longest first, 1 always among them.

    A pair of bytes that starts no token is left out.
    """
    lengths: defaultdict[bytes, set[int]] = defaultdict(lambda: {1})
    for text in texts:
        if len(text) > 1:
            lengths[text[:2]].add(len(text))
    return {prefix: tuple(sorted(found, reverse=True)) for prefix, found in lengths.items()}


def pairs_within(texts: Iterable[bytes]) -> Pairs:
    """Which pairs of neighbouring bytes occur inside a token."""
    pairs: Pairs = np.zeros(65_536, np.bool_)
    values = np.frombuffer(b"".join(texts), np.uint8).astype(np.uint16)
    is_inside = np.ones(len(values), np.bool_)
    is_inside[np.cumsum([len(text) for text in texts], dtype=np.int64) - 1] = False  # last bytes of tokens
    pairs[(values[:-1] << 8 | values[1:])[is_inside[:-1]]] = True
    return pairs


def utf8(text: str) -> bytes:
    """The bytes of a string. Raises TokenizerError for a lone surrogate, which UTF-8 cannot write."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} of the text is a lone surrogate, U+{ord(text[error.start]):04X}, which "
            "UTF-8 cannot write; remove it, or give the text as bytes"
        ) from error


def no_token_fits(byte: int, offset: int) -> TokenizerError:
    """The error for a byte at which no token of the vocabulary matches."""
    shown = f"0x{byte:02X}" + (f" ({chr(byte)!r})" if 0x20 <= byte < 0x7F else "")
    return TokenizerError(
        f"no token of the vocabulary fits at byte {offset} of the text, {shown}; leave it out of the text, "
        "or use a vocabulary that has all 256 single bytes"
    )


def read_json(content: str, path: Path) -> dict[int, bytes]:
    """The tokens in the text of web-rwkv's vocabulary JSON."""
    try:
        found = json.loads(content, object_pairs_hook=lambda pairs: unique(pairs, path))
    except (ValueError, RecursionError) as error:
        raise LoadError(f"the vocabulary {path} is not JSON: {error}; a list must be named *.txt") from error
    if not isinstance(found, dict):
        raise LoadError(
            f"the vocabulary {path} holds a JSON {type(found).__name__}, wanted an object from ids to tokens"
        )
    return dict(read_entry(key, value, f"{path}, key {key!r}") for key, value in found.items())


def read_entry(key: str, value: object, where: str) -> tuple[int, bytes]:
    """The id and the bytes that one key of a vocabulary JSON and its value stand for."""
    return read_id(key, where), read_token(value, where)


def unique(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    """An object of JSON. Raises LoadError for a key that comes twice, of which json would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise LoadError(
            f"{path}, key {twice!r}: comes more than once; an id has one token, remove the others"
        )
    return found


def read_list(content: str, path: Path) -> dict[int, bytes]:
    """The tokens in the text of an RWKV vocabulary list."""
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(content.split("\n"), 1):  # splitlines would cut at U+2028 in a literal
        if not line.strip():
            continue
        token, text = read_line(line.strip(), f"{path}, line {number}")
        if token in tokens:
            raise LoadError(f"{path}, line {number}: the id {token} had a line before; an id has one token")
        tokens[token] = text
    return tokens


def read_line(line: str, where: str) -> tuple[int, bytes]:
    """The id and the bytes in one line of a list, whose length must be right."""
    token, _, rest = line.partition(" ")
    literal, _, length = rest.rpartition(" ")
    if not literal or not _ID.fullmatch(length):
        raise LoadError(f"{where}: wanted an id, a string or bytes literal and a length, got {line[:60]!r}")
    plain = _PLAIN_LITERAL.fullmatch(literal)  # nine of ten, and ten times as fast as literal_eval
    try:
        value: object = plain[1] if plain else ast.literal_eval(literal.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise LoadError(f"{where}: {literal[:60]} is no Python literal ({error})") from error
    text = read_token(list(value) if isinstance(value, bytes) else value, where)
    if len(text) != int(length):
        raise LoadError(f"{where}: the token {literal[:60]} has {len(text)} bytes, the line says {length}")
    return read_id(token, where), text


def read_id(text: str, where: str) -> int:
    """A token id. Raises LoadError for anything but digits."""
    if not _ID.fullmatch(text):
        raise LoadError(f"{where}: wanted a decimal id from 0 to 999999999, got {text[:60]!r}")
    return int(text)


def read_token(value: object, where: str) -> bytes:
    """The bytes that a string or a list of byte values stands for. Raises LoadError for anything else."""
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list) and all(type(byte) is int for byte in value):
            return bytes(value)
    except ValueError as error:  # a lone surrogate, or a number that is no byte
        raise LoadError(f"{where}: {value!r:.60} is no token: {error}") from error
    raise LoadError(
        f"{where}: wanted a string or bytes (in JSON: an array of numbers from 0 to 255), got {value!r:.60}"
    )
