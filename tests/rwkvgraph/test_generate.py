"""Text from the default model: what is drawn, what is held back, where it stops, what the state has seen."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

import rwkvgraph as rg
from rwkvgraph import assets
from rwkvgraph.generate import TextUntilStop

GREEDY = rg.Sampler(temperature=0)
STATE_TOLERANCE = 1e-4  # relative to the largest element: float32, sums in another order for another chunk


@dataclass(frozen=True, eq=False)
class Script(rg.Sampler):
    """Draws the ids it was given, and keeps the logits that it was shown."""

    ids: list[int] = field(default_factory=list)
    shown: list[ArrayLike] = field(default_factory=list)

    def sample(self, logits: ArrayLike) -> int:
        self.shown.append(logits)
        return self.ids[len(self.shown) - 1]


@pytest.fixture(scope="module")
def model() -> rg.Model:
    """The default model on numpy."""
    return rg.Model.load(assets.default_model(), "cpu")


@pytest.fixture(scope="module")
def tokenizer() -> rg.Tokenizer:
    return rg.Tokenizer.load(assets.default_vocab())


def script(tokenizer: rg.Tokenizer, *texts: str) -> Script:
    return Script(ids=[token for text in texts for token in tokenizer.encode(text)])


def text_of(generation: rg.Generation) -> str:
    return "".join(piece.text for piece in generation)


def assert_seen(model: rg.Model, state: rg.State, ids: Sequence[int]) -> None:
    """Check that slot 0 is as after these ids."""
    wanted, tokens = model.state(), [list(ids)]
    model.run(tokens, wanted)
    assert not tokens[0]
    expected = wanted.read(0)
    np.testing.assert_allclose(
        state.read(0), expected, rtol=0, atol=STATE_TOLERANCE * float(abs(expected).max())
    )


def test_greedy_text_on_a_device_is_that_of_the_golden_file(gpu: rg.Context, tokenizer: rg.Tokenizer) -> None:
    golden = np.load(assets.path("models/golden.npz"))
    model = rg.Model.load(assets.default_model(), gpu)
    wanted = golden["greedy"].tolist()
    story = rg.generate(model, tokenizer, golden["greedy_prompt"].tolist(), len(wanted), GREEDY)
    assert [piece.token for piece in story] == wanted


def test_the_same_seed_draws_the_same_text(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    first, second, other = (
        text_of(rg.generate(model, tokenizer, "The", 8, rg.Sampler(seed=seed))) for seed in (3, 3, 4)
    )
    assert first == second != other


def test_an_empty_state_begins_with_the_end_of_a_text_and_a_used_one_goes_on(
    model: rg.Model, tokenizer: rg.Tokenizer
) -> None:
    state = model.state()
    first = rg.generate(model, tokenizer, "Once", 1, script(tokenizer, " upon"), state)
    assert text_of(first) == " upon"
    assert first.timings.prompt_tokens == 1 + len(tokenizer.encode("Once"))
    second = rg.generate(model, tokenizer, " a", 1, script(tokenizer, " time"), state)
    assert text_of(second) == " time"
    assert second.timings.prompt_tokens == 1
    assert_seen(
        model, state, [0, *(i for text in ("Once", " upon", " a", " time") for i in tokenizer.encode(text))]
    )


def test_an_empty_prompt_is_the_end_of_a_text_before(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    story = rg.generate(model, tokenizer, max_tokens=0)
    assert list(story) == []
    assert story.timings.prompt_tokens == 1
    assert story.finish_reason == "length"
    assert_seen(model, story.state, [0])


def test_ids_are_run_as_they_are(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    story = rg.generate(model, tokenizer, [510, 17], 0)
    assert list(story) == []
    assert_seen(model, story.state, [510, 17])


def test_a_prompt_may_be_longer_than_a_chunk(tokenizer: rg.Tokenizer) -> None:
    model = rg.Model.load(assets.default_model(), "cpu", token_chunk_size=4)
    prompt = tokenizer.encode("One day, a little dragon flew over the hill.")
    story = rg.generate(model, tokenizer, prompt, 0)
    assert list(story) == []
    assert len(prompt) > 8
    assert_seen(rg.Model.load(assets.default_model(), "cpu"), story.state, prompt)


def test_the_end_of_the_text_stops_it_and_is_not_run(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    story = rg.generate(model, tokenizer, [510], 9, Script(ids=[17, 0, 99]))
    assert [piece.token for piece in story] == [17, 0]
    assert story.finish_reason == "end"
    assert story.timings.generated_tokens == 1
    assert_seen(model, story.state, [510, 17])


@pytest.fixture(scope="module")
def fast(gpu: rg.Context) -> rg.Model:
    """The default model on a device."""
    return rg.Model.load(assets.default_model(), gpu)


@pytest.mark.parametrize(
    "sampler", [GREEDY, rg.Sampler(0.8, 0.6, seed=7), rg.Sampler(1.0, 0.9, 50, 3, frequency=0.5)]
)
def test_a_device_writes_what_numpy_writes(
    model: rg.Model, fast: rg.Model, tokenizer: rg.Tokenizer, sampler: rg.Sampler
) -> None:
    one, other = (rg.generate(m, tokenizer, "Once upon", 25, replace(sampler)) for m in (model, fast))
    assert list(one) == list(other)


@pytest.mark.parametrize("start", [3, 17, 40])
def test_a_stop_text_far_ahead_of_which_a_device_was_leaves_the_state_where_it_is(
    fast: rg.Model, tokenizer: rg.Tokenizer, start: int
) -> None:
    """To the bit: what was ahead is taken back."""
    whole = text_of(rg.generate(fast, tokenizer, "Once upon", 80, GREEDY))
    stop = whole[start : start + 6]
    story = rg.generate(fast, tokenizer, "Once upon", 80, GREEDY, stop=stop)
    pieces = list(story)
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    wanted = fast.state()
    fast.run([[0, *tokenizer.encode("Once upon")]], wanted)
    for piece in pieces:
        fast.run([[piece.token]], wanted)
    np.testing.assert_array_equal(story.state.read(0), wanted.read(0))


def test_a_generation_left_early_on_a_device_can_be_followed_by_another(
    fast: rg.Model, tokenizer: rg.Tokenizer
) -> None:
    state = fast.state()
    story = rg.generate(fast, tokenizer, "Once upon", 80, GREEDY, state)
    tokens = [next(story).token for _ in range(5)]
    del story
    after = [piece.token for piece in rg.generate(fast, tokenizer, " and", 10, GREEDY, state)]
    wanted = rg.generate(
        fast, tokenizer, [0, *tokenizer.encode("Once upon"), *tokens, *tokenizer.encode(" and")], 10, GREEDY
    )
    assert after == [piece.token for piece in wanted]


def test_only_one_slot_is_touched(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    state = model.state(2)
    assert len(list(rg.generate(model, tokenizer, "The", 2, GREEDY, state, slot=1))) == 2
    assert not state.read(0).any()
    assert state.read(1).any()


def test_leaving_early_leaves_a_state_that_has_seen_what_was_given(
    model: rg.Model, tokenizer: rg.Tokenizer
) -> None:
    story = rg.generate(model, tokenizer, [510], 9, Script(ids=[17, 18, 19]))
    assert next(story).token == 17
    assert next(story).token == 18
    assert story.finish_reason is None
    assert_seen(model, story.state, [510, 17, 18])


@pytest.mark.parametrize(
    ("texts", "stop", "wanted", "finish"),
    [
        (["Hello", "!", "\n", "\n", "User"], "\n\n", "Hello!", "stop"),  # across tokens
        (["Hello", "! The End. And"], ["?", "The End"], "Hello! ", "stop"),  # within tokens
        (["Hello", "\n", "you"], "\n\n", "Hello\nyou", "length"),  # held back for a while
        (["Hello", "\n"], "\n\n", "Hello\n", "length"),  # held back to the end
    ],
)
def test_the_text_ends_before_a_stop_text(
    model: rg.Model,
    tokenizer: rg.Tokenizer,
    texts: list[str],
    stop: str | list[str],
    wanted: str,
    finish: str,
) -> None:
    drawn = script(tokenizer, *texts)
    story = rg.generate(model, tokenizer, "Hi", len(drawn.ids), drawn, stop=stop)
    assert text_of(story) == wanted
    assert story.finish_reason == finish


def test_what_was_held_back_comes_with_the_end_of_the_text(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    (line_end,) = tokenizer.encode("\n")
    story = rg.generate(model, tokenizer, "Hi", 9, Script(ids=[line_end, 0]), stop="\n\n")
    assert list(story) == [rg.Piece(line_end, ""), rg.Piece(0, "\n")]


@pytest.mark.parametrize("stops", [["aab"], ["aab", "ab"], ["aab", "c"]])
def test_a_stop_text_is_found_wherever_the_text_is_cut(stops: list[str]) -> None:
    tokenizer = rg.Tokenizer({1: b"a", 2: b"b", 3: b"aa", 4: b"ba", 5: b"baa"})
    for ids in ([1, 1, 1, 2, 1], [3, 1, 4], [1, 3, 4], [3, 3, 2], [2, 5, 2], [4, 1, 4]):
        text = TextUntilStop(tokenizer.decoder(), stops)
        pieces = []
        for token in ids:
            pieces.append(text.feed(token))
            if text.is_stopped:
                break
        whole = tokenizer.decode_text(ids)
        wanted = whole[: min(whole.index(stop) for stop in stops if stop in whole)]
        assert "".join(pieces) + text.finish() == wanted


def test_text_waits_for_whole_characters(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    first, second, third = tokenizer.encode("€".encode())
    story = rg.generate(model, tokenizer, "Hi", 3, Script(ids=[first, second, third]))
    assert [piece.text for piece in story] == ["", "", "€"]
    cut = rg.generate(model, tokenizer, "Hi", 2, Script(ids=[first, second]))
    assert [piece.text for piece in cut] == ["", "\N{REPLACEMENT CHARACTER}"]


def test_ids_that_the_tokenizer_lacks_are_never_drawn(model: rg.Model) -> None:
    letters = rg.Tokenizer({1 + byte: bytes([byte]) for byte in range(128)})
    drawn = Script(ids=[5])
    assert len(list(rg.generate(model, letters, "Hi", 1, drawn))) == 1
    (logits,) = drawn.shown
    is_kept = np.isfinite(np.asarray(logits))
    assert np.flatnonzero(is_kept).tolist() == list(letters.ids) == list(range(129))


def test_timings_tell_the_prompt_from_the_text(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    story = rg.generate(model, tokenizer, [510, 17, 18], 3, Script(ids=[4, 5, 6]))
    assert story.timings.prompt_speed is None
    assert next(story).token == 4
    assert story.timings.generation_speed is None  # the first is not counted
    assert len(list(story)) == 2
    times = story.timings
    assert (times.prompt_tokens, times.generated_tokens) == (3, 3)
    assert times.prompt_speed == pytest.approx(3 / times.prompt_seconds)
    assert times.generation_speed == pytest.approx(2 / times.generation_seconds)


def test_hooks_change_the_text(model: rg.Model, tokenizer: rg.Tokenizer) -> None:
    hooks = rg.Hooks({rg.v7.PostFfn(0): lambda frame: setattr(frame, "x", rg.affine(frame.x, -1.0, 0.0))})
    plain, hooked = (rg.generate(model, tokenizer, "Once", 4, GREEDY, hooks=h) for h in (None, hooks))
    assert text_of(plain) != text_of(hooked)


def test_arguments_that_do_not_go_together_are_refused_before_anything_runs(
    model: rg.Model, tokenizer: rg.Tokenizer
) -> None:
    used = model.state()
    assert len(list(rg.generate(model, tokenizer, "Hi", 1, GREEDY, used))) == 1
    world = rg.Tokenizer({65_529: b"a"})
    with pytest.raises(ValueError, match="max_tokens is -1"):
        rg.generate(model, tokenizer, "Hi", -1)
    with pytest.raises(ValueError, match="stop string is empty"):
        rg.generate(model, tokenizer, "Hi", stop=["a", ""])
    with pytest.raises(ValueError, match="ids up to 65529, the model logits for 4096"):
        rg.generate(model, world, "a")
    with pytest.raises(ValueError, match="slot 1 is not one"):
        rg.generate(model, tokenizer, "Hi", slot=1)
    with pytest.raises(ValueError, match="the prompt is empty and the state is not"):
        rg.generate(model, tokenizer, "", state=used)
    with pytest.raises(rg.TokenizerError, match="lone surrogate"):
        rg.generate(model, tokenizer, "\ud800")
