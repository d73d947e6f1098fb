"""Encoding against the obvious longest match, and decoding at every split. Files: test_tokenizer_files.py."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rwkvgraph import assets
from rwkvgraph import tokenizer as tokenizer_module
from rwkvgraph.errors import TokenizerError
from rwkvgraph.tokenizer import Tokenizer, pairs_within

SINGLE_BYTES = {value + 1: bytes([value]) for value in range(256)}
WORLD = Tokenizer.load(assets.world_vocab())
WORLD_TOKENS = {number: WORLD.token_bytes(number) for number in range(1, WORLD.vocab_size)}
TINY = Tokenizer.load(assets.default_vocab())
MIXED = "def f(x):\n    return x ** 2  # Größe, 人们发现, Привет мир, שלום, 🦊👩‍👩‍👧 \u2028 naïve\r\n\t\t" * 3

# Texts over three bytes and vocabularies of their runs: most matches have to choose between several lengths.
small_texts = st.lists(st.sampled_from(b"ab\xff"), max_size=40).map(bytes)
small_tokens = st.lists(st.lists(st.sampled_from(b"ab\xff"), min_size=2, max_size=7).map(bytes), max_size=12)


def longest_match(tokens: Mapping[int, bytes], text: bytes) -> list[int]:
    """The ids that encoding must give, found by trying every token at every place."""
    ids = []
    while text:
        fitting = [
            (len(token), number) for number, token in tokens.items() if token and text.startswith(token)
        ]
        length, number = max(fitting)
        ids.append(number)
        text = text[length:]
    return ids


@settings(deadline=None)
@given(small_tokens, small_texts)
@example([b"aab", b"aa"], b"aaab")
@example([b"\xff\xff"], b"\xff\xff\xff")
def test_the_longest_token_that_fits_is_taken(extra: list[bytes], text: bytes) -> None:
    tokens = SINGLE_BYTES | {300 + number: token for number, token in enumerate(extra)}
    assert Tokenizer(tokens).encode(text) == longest_match(tokens, text)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*"eatn ,.-\n\t", " the", "ing", "    ", "==", "的", "é", "🦊"])).map("".join)
)
def test_the_world_vocabulary_matches_like_the_reference(text: str) -> None:
    data = text.encode()
    in_text = {number: token for number, token in WORLD_TOKENS.items() if token in data}
    assert WORLD.encode(text) == longest_match(in_text, data)


@settings(deadline=None)
@given(st.binary())
@example(bytes(range(256)) * 2)
@example(b"\xff\xff\xff")
def test_any_bytes_survive_the_round_trip(data: bytes) -> None:
    assert WORLD.decode(WORLD.encode(data)) == data
    assert TINY.decode(TINY.encode(data)) == data


@settings(deadline=None)
@given(st.text())
@example(MIXED)
def test_any_text_survives_the_round_trip(text: str) -> None:
    assert WORLD.encode(text) == WORLD.encode(text.encode())
    assert WORLD.decode_text(WORLD.encode(text)) == text


@pytest.mark.parametrize("text", [" ", "a", "-", "0123456789", "\n", "人"])
def test_a_long_run_survives_the_round_trip(text: str) -> None:
    run = text * 20_000
    assert WORLD.decode_text(WORLD.encode(run)) == run


def test_nothing_encodes_to_nothing() -> None:
    assert WORLD.encode("") == []
    assert WORLD.encode(b"") == []
    assert WORLD.decode([]) == b""


def test_encoding_is_the_same_when_the_memory_of_pieces_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Tokenizer.load(assets.default_vocab()).encode(MIXED)
    monkeypatch.setattr(tokenizer_module, "MOST_REMEMBERED", 3)
    forgetful = Tokenizer.load(assets.default_vocab())
    assert forgetful.encode(MIXED) == expected
    assert forgetful.encode(MIXED) == expected


def test_tokens_that_overlap_are_matched_from_the_left() -> None:
    tokens = SINGLE_BYTES | {300: b"ab", 301: b"abc", 302: b"cd", 303: b"bcda"}
    assert Tokenizer(tokens).encode("abcdabdabcd") == longest_match(tokens, b"abcdabdabcd")


def test_text_is_cut_between_bytes_that_no_token_joins() -> None:
    joined = np.flatnonzero(pairs_within([b"abc", b"x", b"\xff\xff"])).tolist()
    assert [divmod(pair, 256) for pair in joined] == [(ord("a"), ord("b")), (ord("b"), ord("c")), (255, 255)]


def test_of_equal_tokens_the_higher_id_is_given_and_both_decode() -> None:
    tokenizer = Tokenizer({9: b"x", 4: b"x", 7: b"y"})
    assert tokenizer.encode("xyx") == [9, 7, 9]
    assert tokenizer.decode([4, 9]) == b"xx"


def test_a_token_without_bytes_is_decoded_but_never_given() -> None:
    tokenizer = Tokenizer({1: b"x", 2: b""})
    assert tokenizer.encode("x") == [1]
    assert tokenizer.decode([2, 1, 2]) == b"x"


def test_the_end_of_text_is_no_bytes_though_no_vocabulary_lists_it() -> None:
    assert WORLD.token_bytes(0) == b""
    assert WORLD.decode([0, *WORLD.encode("a"), 0]) == b"a"
    assert TINY.decoder().feed(0) == ""


def test_a_vocabulary_may_give_the_end_of_text_bytes() -> None:
    tokenizer = Tokenizer({0: b"<end>", 1: b"<"})
    assert tokenizer.encode("<end><") == [0, 1]
    assert tokenizer.decode([0]) == b"<end>"


def test_ids_may_be_numbers_of_numpy() -> None:
    ids = np.array(WORLD.encode(MIXED), np.uint32)
    assert WORLD.decode_text(ids) == MIXED
    assert WORLD.token_bytes(ids[0]) == WORLD.token_bytes(int(ids[0]))


def test_sizes_count_the_end_of_text() -> None:
    assert (WORLD.vocab_size, len(WORLD)) == (65_530, 65_530)
    assert (TINY.vocab_size, len(TINY)) == (4096, 4096)
    assert (Tokenizer({5: b"x"}).vocab_size, len(Tokenizer({5: b"x"}))) == (6, 2)
    assert repr(TINY) == "Tokenizer(4096 ids below 4096)"


def test_the_golden_prompts_are_what_their_texts_encode_to() -> None:
    golden = np.load(assets.path("models/golden.npz"))
    for number, text in enumerate(golden["texts"].tolist()):
        prompt = golden[f"prompt{number}"].tolist()
        assert [0, *TINY.encode(text)] == prompt
        assert TINY.decode_text(prompt) == text


@settings(deadline=None)
@given(st.text(max_size=12))
@example("aé人🦊\u200d👩")
def test_a_decoder_gives_each_character_with_its_last_byte(text: str) -> None:
    data = text.encode()
    bytewise = Tokenizer(SINGLE_BYTES)
    decoder = bytewise.decoder()
    for end in range(1, len(data) + 1):
        fed = decoder.feed(data[end - 1] + 1)
        whole = data[:end].decode(errors="ignore")
        assert whole.endswith(fed)
        assert fed or not text or whole == data[: end - 1].decode(errors="ignore")
    assert decoder.finish() == ""


@pytest.mark.parametrize("split", range(len("é人🦊".encode()) + 1))
def test_text_can_be_split_between_two_tokens_anywhere(split: int) -> None:
    data = "é人🦊".encode()
    decoder = Tokenizer({1: data[:split], 2: data[split:]}).decoder()
    assert decoder.feed(1) == data[:split].decode(errors="ignore")
    assert decoder.feed(2) + decoder.finish() == "é人🦊"[len(data[:split].decode(errors="ignore")) :]


@pytest.mark.parametrize(
    "ids", [WORLD.encode(MIXED), [*WORLD.encode(MIXED), 0x80 + 1, 65, 0xF0 + 1, 0xFF + 1, 0]]
)
def test_a_decoder_gives_in_the_end_what_decoding_at_once_gives(ids: list[int]) -> None:
    decoder = WORLD.decoder()
    assert "".join(map(decoder.feed, ids)) + decoder.finish() == WORLD.decode_text(ids)


def test_a_character_that_the_stream_breaks_off_becomes_a_replacement_once() -> None:
    decoder = WORLD.decoder()
    first = "人".encode()[0]
    assert decoder.feed(first + 1) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.finish() == ""
    assert decoder.feed(ord("a") + 1) == "a"


def test_decoders_of_one_vocabulary_do_not_share_what_they_hold_back() -> None:
    one, other = WORLD.decoder(), WORLD.decoder()
    assert one.feed("é".encode()[0] + 1) == ""
    assert other.feed(ord("a") + 1) == "a"
    assert one.feed("é".encode()[1] + 1) == "é"


def test_what_is_not_utf8_is_replaced_or_reported_as_asked() -> None:
    assert WORLD.decode_text([0x80 + 1, ord("a") + 1]) == "\ufffda"
    assert WORLD.decode_text([0x80 + 1, ord("a") + 1], errors="ignore") == "a"
    with pytest.raises(UnicodeDecodeError):
        WORLD.decode_text([0x80 + 1], errors="strict")


@pytest.mark.parametrize("token", [-1, 65_530, 70_000])
def test_an_id_that_no_token_has_is_named_with_the_range(token: int) -> None:
    complaint = rf"no token id {token}: it has 65530 ids from 0 to 65529; take ids from"
    with pytest.raises(TokenizerError, match=complaint):
        WORLD.decode([1, token])
    with pytest.raises(TokenizerError, match=complaint):
        WORLD.token_bytes(token)
    with pytest.raises(TokenizerError, match=complaint):
        WORLD.decoder().feed(token)


def test_an_id_in_a_gap_of_the_vocabulary_is_no_token() -> None:
    with pytest.raises(TokenizerError, match="no token id 2: it has 3 ids from 0 to 3"):
        Tokenizer({1: b"x", 3: b"y"}).decode([2])


@pytest.mark.parametrize(
    ("text", "offset", "shown"), [("xxz", 2, r"0x7A \('z'\)"), ("x\né", 1, "0x0A;"), (b"\xff", 0, "0xFF;")]
)
def test_a_byte_that_no_token_fits_is_named_with_its_offset(
    text: str | bytes, offset: int, shown: str
) -> None:
    with pytest.raises(
        TokenizerError, match=rf"fits at byte {offset} of the text, {shown}.*256 single bytes"
    ):
        Tokenizer({1: b"x", 2: b"zz"}).encode(text)


def test_a_failed_encoding_leaves_the_tokenizer_as_it_was() -> None:
    tokenizer = Tokenizer({1: b"x", 2: b"xy"})
    with pytest.raises(TokenizerError, match="byte 4 "):
        tokenizer.encode("xxyx?")
    assert tokenizer.encode("xxyx") == [1, 2, 1]


def test_a_lone_surrogate_cannot_be_encoded() -> None:
    with pytest.raises(TokenizerError, match=r"character 2 of the text is a lone surrogate, U\+DC80"):
        WORLD.encode("ab\udc80")


def test_a_vocabulary_of_the_end_of_text_alone_encodes_only_nothing() -> None:
    tokenizer = Tokenizer({0: b""})
    assert tokenizer.encode("") == []
    with pytest.raises(TokenizerError, match="byte 0 "):
        tokenizer.encode("ab")


def test_the_errors_are_value_errors_too() -> None:
    with pytest.raises(ValueError, match="no token id"):
        WORLD.token_bytes(-1)
