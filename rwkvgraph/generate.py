"""Text from a model, token by token: prompt in, pieces of text out, with stop strings and timings.

One sequence at a time. Chooses no defaults for files or devices, and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.runtime import Course, Steps, steps
from rwkvgraph.sampler import Sampler
from rwkvgraph.state import State
from rwkvgraph.tokenizer import END_OF_TEXT, TextDecoder, Tokenizer

TEMPERATURE = 0.8
TOP_P = 0.6
"""What the samples in the default model's MODEL.md were drawn with."""

Finish = Literal["end", "stop", "length"]
Logits = NDArray[Any]


@dataclass(frozen=True)
class Piece:
    """One token that was drawn, and the text that it made certain: "" within a character or a stop string."""

    token: int
    text: str


@dataclass
class Timings:
    """Tokens and seconds of one generation so far. What the caller does between two pieces is not counted.

    setup_seconds: compiling, as `Model.prepare` does it, which is in neither speed. prompt_tokens,
    prompt_seconds: running the prompt. generated_tokens: those drawn and run. generation_seconds: drawing and
    running all but the first of them, as far as the caller waited for it; the first run of a kind still sets
    up what later ones use again.
    """

    setup_seconds: float = 0.0
    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    generated_tokens: int = 0
    generation_seconds: float = 0.0

    @property
    def prompt_speed(self) -> float | None:
        """Tokens a second of the prompt; None before it was run."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds else None

    @property
    def generation_speed(self) -> float | None:
        """Tokens a second of the generation, from its second token on; None before that."""
        return (self.generated_tokens - 1) / self.generation_seconds if self.generation_seconds else None


class Generation(Iterator[Piece]):
    """The pieces of one generation; each `next` runs the model. Made by `generate`, which says what is run.

    state: what it runs on. sampler: what draws. timings: grow with each piece. finish_reason: "end" of the
    text, a "stop" string or the "length" asked for; None until then.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        ids: list[int],
        max_tokens: int,
        sampler: Sampler,
        state: State,
        slot: int,
        stops: tuple[str, ...],
        hooks: Hooks | None,
    ) -> None:
        self.state = state
        self.sampler = sampler
        self.timings = Timings()
        self.finish_reason: Finish | None = None
        self._model = model
        self._slot = slot
        self._hooks = hooks
        self._bias = np.zeros(model.info.num_vocab, np.float32)
        self._bias[unknown_ids(tokenizer, model.info.num_vocab)] = -np.inf
        self._pieces = self._generate(ids, max_tokens, TextUntilStop(tokenizer.decoder(), stops))

    def __next__(self) -> Piece:
        return next(self._pieces)

    def __repr__(self) -> str:
        return f"Generation({self.timings.generated_tokens} tokens, finish_reason={self.finish_reason!r})"

    def _generate(self, ids: list[int], max_tokens: int, text: TextUntilStop) -> Iterator[Piece]:
        drawn = self._prepare(len(ids), max_tokens)
        drawn.start(self._run_prompt(ids)[None])
        for left in reversed(range(max_tokens)):
            started = perf_counter()
            (token,) = next(drawn)
            if token == END_OF_TEXT:
                self.finish_reason = "end"
                yield Piece(token, text.finish())
                return
            self._count(perf_counter() - started)
            certain = text.feed(token)
            if text.is_stopped or not left:
                self.finish_reason = "stop" if text.is_stopped else "length"
                certain += text.finish()
                drawn.close()
            yield Piece(token, certain)
            if text.is_stopped:
                return
        self.finish_reason = "length"

    def _prepare(self, prompt_tokens: int, max_tokens: int) -> Steps:
        started = perf_counter()
        chunk = self._model.token_chunk_size
        # the longest first, for which memory is allotted once
        for tokens in sorted({min(prompt_tokens, chunk), prompt_tokens % chunk or chunk, 1}, reverse=True):
            self._model.prepare(tokens, self._hooks)
        end = frozenset([END_OF_TEXT])
        of = (
            self._model,
            self.state,
            (self._slot,),
            (self.sampler,),
            self._bias,
            max_tokens,
            end,
            self._hooks,
        )
        drawn = steps(Course(*of))
        self.timings.setup_seconds = perf_counter() - started
        return drawn

    def _run_prompt(self, ids: list[int]) -> Logits:
        started = perf_counter()
        logits = self._run(ids)
        self.timings.prompt_tokens = len(ids)
        self.timings.prompt_seconds = perf_counter() - started
        return logits

    def _run(self, ids: list[int]) -> Logits:
        """The logits after these ids, which are run chunk by chunk."""
        tokens: list[list[int]] = [[] for _ in range(self.state.num_batch)]
        tokens[self._slot] = list(ids)
        while True:
            logits = self._model.run_with_hooks(tokens, self.state, self._hooks)[self._slot]
            if logits is not None:
                return logits

    def _count(self, seconds: float) -> None:
        if self.timings.generated_tokens:
            self.timings.generation_seconds += seconds
        self.timings.generated_tokens += 1


def generate(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str | bytes | Sequence[int] = "",
    max_tokens: int = 100,
    sampler: Sampler | None = None,
    state: State | None = None,
    stop: str | Sequence[str] = (),
    *,
    slot: int = 0,
    hooks: Hooks | None = None,
) -> Generation:
    """An iterator over the text that follows a prompt, one `Piece` a token.

    prompt: text, or ids that are run as they are. On an empty slot text is preceded by the end-of-text token,
    0, as in training, so that an empty prompt there is this token alone. sampler: by default temperature 0.8,
    top-p 0.6, another seed each time. state, slot: what to continue, by default a new state. stop: one text
    or several; the text ends before the first that turns up, within a token or across several.

    0 is the last token that is drawn: it ends the text. Ids that the tokenizer lacks are never drawn.
    Penalties count the tokens of this text alone, without its prompt. Nothing runs before the first piece is
    asked for, and a piece comes when its token has been run: whoever looks at the state, between pieces and
    at the end, finds that it has seen the prompt and every token given, those of a stop string as well, but
    not that 0; so another generation can follow on it.

    A device goes on by itself meanwhile, some hundredths of a second ahead. Where the state is read, written,
    copied or run in between, what was ahead is taken back first, which costs time, but changes no token.
    With hooks that touch buffers of yours, and with a sampler class of your own, nothing runs ahead.

    Raises ValueError for arguments that do not go together, TokenizerError for text that cannot be encoded.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    check(model, tokenizer, max_tokens, stops)
    state = model.state() if state is None else state
    ids = prompt_ids(tokenizer, prompt, is_empty=state.is_empty(slot))
    if not ids:
        raise ValueError(
            "the prompt is empty and the state is not, so there is nothing to run; give the text or ids that "
            "come next, or leave `state` out to begin anew"
        )
    sampler = sampler or Sampler(TEMPERATURE, TOP_P)
    return Generation(model, tokenizer, ids, max_tokens, sampler, state, slot, stops, hooks)


def check(model: Model, tokenizer: Tokenizer, max_tokens: int, stops: Sequence[str]) -> None:
    """Raise ValueError unless these can go together."""
    if max_tokens < 0:
        raise ValueError(f"max_tokens is {max_tokens}, wanted at least 0")
    if not all(stops):
        raise ValueError("a stop string is empty, wanted at least one character; leave it out for no stop")
    if tokenizer.vocab_size > model.info.num_vocab:
        raise ValueError(
            f"the vocabulary has ids up to {tokenizer.vocab_size - 1}, the model logits for "
            f"{model.info.num_vocab} ids only; give the vocabulary that the model was trained with"
        )


def prompt_ids(tokenizer: Tokenizer, prompt: str | bytes | Sequence[int], is_empty: bool) -> list[int]:
    """The ids to run for a prompt on an empty or a used slot."""
    if not isinstance(prompt, (str, bytes)):
        return list(prompt)
    return [END_OF_TEXT] * is_empty + tokenizer.encode(prompt)


def unknown_ids(tokenizer: Tokenizer, num_vocab: int) -> NDArray[np.intp]:
    """The ids below `num_vocab` that a tokenizer cannot decode, as World models have at their end."""
    is_unknown = np.ones(num_vocab, np.bool_)
    is_unknown[list(tokenizer.ids)] = False
    return np.flatnonzero(is_unknown)


class TextUntilStop:
    """Text from a stream of ids up to the first stop string; holds back what may be the start of one."""

    def __init__(self, decoder: TextDecoder, stops: Sequence[str]) -> None:
        self.is_stopped = False
        self._decoder = decoder
        self._stops = stops
        self._held = ""

    def feed(self, token: int) -> str:
        """The text that one more id makes certain; nothing once a stop string was found."""
        self._held += self._decoder.feed(token)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        self.is_stopped = bool(found)
        certain = min(found) if found else len(self._held) - self._length_of_start()
        text, self._held = self._held[:certain], self._held[certain:]
        return text

    def finish(self) -> str:
        """What was held back, once no more ids come; nothing after a stop string."""
        return "" if self.is_stopped else self._held + self._decoder.finish()

    def _length_of_start(self) -> int:
        """How many of the last characters may begin a stop string."""
        starts = (stop[:length] for stop in self._stops for length in range(1, len(stop)))
        return max((len(start) for start in starts if self._held.endswith(start)), default=0)
