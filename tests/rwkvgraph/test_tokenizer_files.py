"""Both formats of vocabulary files, and what is said about files that are neither."""

import json
from pathlib import Path

import pytest

from rwkvgraph import assets
from rwkvgraph.errors import LoadError
from rwkvgraph.tokenizer import Tokenizer


def write_json(folder: Path, content: object) -> Path:
    path = folder / "vocab.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_list(folder: Path, *lines: str) -> Path:
    path = folder / "vocab.txt"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    return path


def test_a_json_vocabulary_has_strings_and_arrays_of_bytes(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_json(tmp_path, {"1": "é\n", "7": [255, 255], "3": "\u0000"}))
    assert [tokenizer.token_bytes(token) for token in (1, 7, 3)] == ["é\n".encode(), b"\xff\xff", b"\0"]


def test_a_list_has_a_python_literal_and_a_length_in_bytes_on_each_line(tmp_path: Path) -> None:
    lines = [
        "1 'é' 2",
        r"2 '\n' 1",
        '3 "it\'s" 4',
        r"4 b'\xff\xff' 2",
        "5 ' ' 1",
        "6 '\u2028' 3",
        r"7 '\'\"' 2",
    ]
    tokenizer = Tokenizer.load(write_list(tmp_path, *lines, ""))
    tokens = [tokenizer.token_bytes(token) for token in range(1, 8)]
    assert tokens == ["é".encode(), b"\n", b"it's", b"\xff\xff", b" ", "\u2028".encode(), b"'\""]


def test_a_list_may_have_the_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"1 'a' 1\r\n2 'b' 1\r\n")
    assert Tokenizer.load(path).encode("ab") == [1, 2]


def test_both_formats_of_a_vocabulary_are_the_same_vocabulary(tmp_path: Path) -> None:
    tiny = Tokenizer.load(assets.default_vocab())
    tokens = [(number, tiny.token_bytes(number)) for number in range(1, 4096)]
    lines = [f"{number} {token!r} {len(token)}" for number, token in tokens]
    from_list = Tokenizer.load(str(write_list(tmp_path, *lines)))
    assert [(number, from_list.token_bytes(number)) for number in range(1, 4096)] == tokens
    assert from_list.encode("One day, Größe 人") == tiny.encode("One day, Größe 人")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is not JSON"),
        ('{"1": "a"', "is not JSON"),
        ("1 'a' 1", r"is not JSON.*\*\.txt"),
        ("[" * 100_000, "is not JSON"),
        ('["a"]', "holds a JSON list, wanted an object"),
        ("{}", "at least one token"),
        ('{"1": "a", "1": "b"}', "key '1': comes more than once"),
        ('{"x": "a"}', "key 'x': wanted a decimal id"),
        ('{"-1": "a"}', "key '-1': wanted a decimal id"),
        ('{"01": "a"}', "key '01': wanted a decimal id"),
        ('{"²": "a"}', "key '²': wanted a decimal id"),
        ('{"1234567890": "a"}', "key '1234567890': wanted a decimal id from 0 to 999999999"),
        ('{"1": 5}', "key '1': wanted a string or bytes .* got 5"),
        ('{"1": null}', "key '1': wanted a string or bytes"),
        ('{"1": {"2": 3}}', "key '1': wanted a string or bytes"),
        ('{"1": ["a"]}', "key '1': wanted a string or bytes"),
        ('{"1": [true]}', "key '1': wanted a string or bytes"),
        ('{"1": [1.5]}', "key '1': wanted a string or bytes"),
        ('{"1": [256]}', r"key '1': \[256\] is no token"),
        ('{"1": [-1]}', r"key '1': \[-1\] is no token"),
        ('{"1": "\\ud800"}', r"key '1': '\\ud800' is no token"),
    ],
)
def test_a_malformed_json_vocabulary_is_named_with_the_key(
    tmp_path: Path, content: str, complaint: str
) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(LoadError, match=complaint):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("2", "wanted an id, a string or bytes literal and a length, got '2'"),
        ("2 'b'", "wanted an id, a string or bytes literal and a length"),
        ("2 'b' " + "9" * 5000, "wanted an id, a string or bytes literal and a length"),
        ("2 'b' x", "wanted an id, a string or bytes literal and a length"),
        ("2 'b' 2", "the token 'b' has 1 bytes, the line says 2"),
        ("2 'é' 1", "the token 'é' has 2 bytes, the line says 1"),
        ("2 b 1", "b is no Python literal"),
        ("2 'b 1", "'b is no Python literal"),
        ("2 __import__('os') 1", "is no Python literal"),
        ("2 5 1", "wanted a string or bytes .* got 5"),
        (r"2 '\ud800' 3", "is no token"),
        ("x 'b' 1", "wanted a decimal id from 0 to 999999999, got 'x'"),
        ("1 'b' 1", "the id 1 had a line before"),
    ],
)
def test_a_malformed_line_of_a_list_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = write_list(tmp_path, "1 'a' 1", line)
    with pytest.raises(LoadError, match=rf"vocab\.txt, line 2: .*{complaint}"):
        Tokenizer.load(path)


def test_a_vocabulary_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"nowhere\.json: No such file.*give the path"):
        Tokenizer.load(tmp_path / "nowhere.json")
    with pytest.raises(LoadError, match="cannot read the vocabulary"):
        Tokenizer.load(tmp_path)
    with pytest.raises(LoadError, match=r"golden\.npz is not UTF-8"):
        Tokenizer.load(assets.path("models/golden.npz"))


@pytest.mark.parametrize(
    ("tokens", "complaint"), [({}, "no tokens at all"), ({-3: b"x", 1: b"y"}, "the id -3")]
)
def test_a_vocabulary_needs_tokens_and_ids_from_zero(tokens: dict[int, bytes], complaint: str) -> None:
    with pytest.raises(LoadError, match=complaint):
        Tokenizer(tokens)
