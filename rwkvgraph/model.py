"""A loaded model: its numbers, its states, and running tokens through it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rwkvgraph.batch import Answers, Batch, Stack, cut, split, stack
from rwkvgraph.capture import Cache, Capture, Names, patterns_of
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.decoding import Drawing
from rwkvgraph.engine import Compiled, Engine, HostEngine
from rwkvgraph.errors import DeviceError
from rwkvgraph.fingerprint import fingerprint
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks, as_hooks
from rwkvgraph.load.reader import Reader, open_model
from rwkvgraph.models import detect
from rwkvgraph.models.arena import Arena
from rwkvgraph.models.common import Inputs, ModelInfo
from rwkvgraph.models.loading import load_weights
from rwkvgraph.op import Array, Buffer, DType, Role, tape
from rwkvgraph.ops import blit, softmax
from rwkvgraph.programs import Programs
from rwkvgraph.state import State
from rwkvgraph.tokens import Option, Tokens, check_lists, check_rest, flatten, full_slots, is_integer
from rwkvgraph.view import B, E, N, O, T

TOKEN_CHUNK_SIZE = 128
KEPT_CAPTURES = 8
"""Sets of captured names whose buffers are kept."""

Device = Context | str | None


def arena_for(reader: Reader, target: Target, on_device: bool = True) -> Arena:
    """Where weights lie for a target. on_device: whether in its memory, not the host's."""
    textures = on_device and tuning_for(target).weights_in_textures
    return Arena(reader, target.limits.most_bytes, textures, together=target.coherent)


class Model:
    """A model on a device. Make one with `Model.load`.

    token_chunk_size: the most tokens that one `run` takes.
    """

    def __init__(self, reader: Reader, engine: Engine, token_chunk_size: int = TOKEN_CHUNK_SIZE) -> None:
        if not is_integer(token_chunk_size) or token_chunk_size < 1:
            raise ValueError(f"token_chunk_size is {token_chunk_size!r}; it is an integer of at least 1")
        version = detect(reader)
        self.info: ModelInfo = version.read_info(reader)
        self.token_chunk_size = token_chunk_size
        self.engine = engine
        arena = arena_for(reader, engine.target, isinstance(engine, GpuEngine))
        weights = version.place_weights(self.info, arena)
        self.fingerprint = fingerprint(reader, self.info)
        """Digits that tell this model from others, by its numbers and a sample of its weights."""
        load_weights(reader, arena, engine.load)
        self._inputs = Inputs.make(self.info.num_emb)
        self._layers = version.make_state(self.info)
        self._graph: Graph
        self._graph, self._logits = version.build(self.info, weights, self._layers, self._inputs)
        self._programs = Programs(self._graph, self._logits, engine)
        self._captures: dict[Any, Capture] = {}
        self._softmax: tuple[Compiled, Buffer] | None = None
        self._drawing: Drawing | None = None

    @classmethod
    def load(
        cls,
        source: str | Path | Mapping[str, Array],
        device: Device = None,
        token_chunk_size: int = TOKEN_CHUNK_SIZE,
        *,
        names: str | None = None,
    ) -> Model:
        """Read a model file (or a dict of its arrays) onto a device.

        device: a Context; None for the best adapter, or numpy where there is none (said on stderr); "cpu" for
        numpy; any other text picks the adapter whose name contains it. names: "raw" (BlinkDL's) or
        "converted" (web-rwkv's) names and shapes, for a file that does not tell. Raises LoadError and
        DeviceError.
        """
        return cls(open_model(source, names), open_engine(device), token_chunk_size)

    @property
    def graph(self) -> Graph:
        """The model as built: every operation and hook site. `print` shows it."""
        return self._graph

    def state(self, num_batch: int = 1) -> State:
        """A new, empty state of `num_batch` slots.

        Raises ValueError below 1, DeviceError if memory is out.
        """
        if not is_integer(num_batch) or num_batch < 1:
            raise ValueError(f"num_batch is {num_batch!r}; a state has at least one slot")
        return State(self.info, self._layers, self.engine, num_batch, self.fingerprint)

    def run(
        self, tokens: Sequence[Tokens], state: State, option: Option | Sequence[Option] = "last"
    ) -> list[Array | None]:
        """Take up to `token_chunk_size` tokens out of the lists, one list a slot, through the model.

        A token is an id, or an array of floats (C,) that takes the place of its embedding, before the first
        norm. option: one for all slots, or one a slot. "last" gives the logits (V,) float32 after a slot's
        last token, or None while it has tokens left; "full" gives those after every token that this call
        took, (n, V). None for a slot that had no tokens, which keeps its state. Call it until the lists are
        empty. Raises ValueError, before anything runs, for tokens, lists, options or states that do not fit.
        """
        return self.run_with_hooks(tokens, state, None, option)

    def run_with_hooks(
        self,
        tokens: Sequence[Tokens],
        state: State,
        hooks: Hooks | Mapping[Any, Any] | None,
        option: Option | Sequence[Option] = "last",
    ) -> list[Array | None]:
        """As `run`, with hooks spliced in, or a dict of functions by site. Each set is compiled once."""
        self._check(tokens, state)
        return self._run(tokens, state, as_hooks(hooks), full_slots(option, state.num_batch))

    def run_with_cache(
        self,
        tokens: Sequence[Tokens],
        state: State,
        names: Names = "*.x@PostFfn",
        option: Option = "last",
        hooks: Hooks | Mapping[Any, Any] | None = None,
    ) -> tuple[list[Array | None], Cache]:
        """Run all tokens, one list a slot, which stay as they are; gives the logits and values on the way.

        names: which values, as patterns over `layer.slot@Site` ("3.att_k@PostAttLinear", "*@PostHead") or a
        function of such a name; by default the stream after every layer. option: "last" gives the values and
        logits of each slot's last token, "full" those of every token. hooks: others that run too, before. At
        most 256 MB of values are on the device at once (fewer tokens then go into a pass), and the result is
        4 bytes a number in host memory. Raises HookError for names that mean nothing.
        """
        key = patterns_of(names)
        if option not in ("last", "full"):
            raise ValueError(f'option is {option!r}; here it is "last" or "full", for all slots')
        if key not in self._captures:
            if len(self._captures) >= KEPT_CAPTURES:
                del self._captures[next(iter(self._captures))]
            self._captures[key] = Capture(self._graph, key)
        capture = self._captures[key]
        self._check(tokens, state)
        lists: list[Any] = [list(slot) for slot in tokens]
        cache = Cache(capture, state.num_batch, option == "full")
        logits: list[list[Array]] = [[] for _ in lists]
        full = full_slots(option, state.num_batch)
        both = as_hooks(hooks) + capture.hooks
        while any(lists):
            for slot, rows in enumerate(self._run(lists, state, both, full, (capture, cache))):
                if rows is not None:
                    logits[slot].append(rows)
        joined = [np.concatenate(rows) if len(rows) > 1 else rows[0] if rows else None for rows in logits]
        return joined, cache

    def _run(
        self,
        tokens: Sequence[Tokens],
        state: State,
        hooks: Hooks | None,
        full: Array,
        capture: tuple[Capture, Cache] | None = None,
    ) -> list[Array | None]:
        lengths = list(map(len, tokens))
        counts = cut(lengths, self.token_chunk_size)
        work = self._take(tokens, lengths, counts, full, state)
        answers = Answers(counts, full, self.info.num_vocab)
        program = self.program(hooks) if len(work.slots) else None
        state.settle(np.unique(work.slots).tolist())
        if program is not None:
            most = capture[0].most_rows(self.engine.most_bytes) if capture else program.most_tokens
            most = min(most, program.most_tokens)
            for batch in split(work, most, program.most_outputs, state.block_slots):
                logits = self._pass(program, batch, state)
                if logits is not None:
                    answers.add(batch.slots, logits)
                if capture:
                    capture[0].collect(program, batch, batch.block * state.block_slots, capture[1])
        for slot, count in zip(tokens, counts, strict=True):
            if count:
                del slot[:count]
        state.note(tokens, counts)
        return answers.rows

    def _take(
        self, tokens: Sequence[Tokens], lengths: list[int], counts: list[int], full: Array, state: State
    ) -> Stack:
        """The tokens of this call, checked; those that it leaves in the lists are checked once."""
        width, num_vocab = self.info.num_emb, self.info.num_vocab
        ids, picks, vectors = flatten(tokens, counts, width, num_vocab)
        if counts != lengths:
            for slot, (given, count) in enumerate(zip(tokens, counts, strict=True)):
                if count < len(given) and not state.has_checked(slot, given):
                    check_rest(given, count, slot, width, num_vocab)
        ends = [count == length for count, length in zip(counts, lengths, strict=True)]
        return stack(counts, full, ends, ids, picks, vectors)

    def _pass(self, program: Compiled, batch: Batch, state: State) -> Array | None:
        block = state.blocks[batch.block]
        inputs = {self._inputs.batch: batch.words}
        if len(batch.vectors):
            inputs[self._inputs.vectors] = batch.vectors
        return program.run(inputs, batch.sizes(block.num_batch), block, block.memory)

    def program(self, hooks: Hooks | None = None) -> Compiled:
        """The program for a set of hooks; compiled when first asked for. `print` shows its passes."""
        return self._programs.get(hooks)

    def prepare(self, tokens: int = 1, hooks: Hooks | None = None) -> None:
        """Compile now what runs of so many tokens need; otherwise the first of them does.

        Without hooks, which would notice, new shaders also run once on a spare state: llvmpipe compiles only
        then. Raises ValueError below 1.
        """
        if not is_integer(tokens) or tokens < 1:
            raise ValueError(f"prepare takes a number of tokens from 1 up; given {tokens!r:.60}")
        program = self.program(hooks)
        if not isinstance(program, Runner):
            return
        known = len(program.context.kernels)
        program.compile({T: tokens, O: 1, N: 1, B: 1, E: 1})
        if len(program.context.kernels) > known and not hooks:
            self.run([[0] * tokens], self.state())

    def softmax(self, logits: Any) -> Array:
        """Probabilities of logits (V,) or (rows, V), computed on the model's device. Raises ValueError."""
        values = np.asarray(logits, np.float32)
        width = self.info.num_vocab
        if values.ndim not in (1, 2) or values.shape[-1] != width or not values.size:
            raise ValueError(
                f"softmax takes logits of shape ({width},) or (rows, {width}); given {values.shape}"
            )
        if self._softmax is None:
            self._softmax = self._compile_softmax()
        program, source = self._softmax
        rows = values.reshape(-1, width)
        results = []
        for start in range(0, len(rows), program.most_outputs):
            part = rows[start : start + program.most_outputs]
            results.append(program.run({source: part}, {O: len(part)}, self._graph, {}))
        return np.concatenate([result for result in results if result is not None]).reshape(values.shape)

    def _compile_softmax(self) -> tuple[Compiled, Buffer]:
        source = Buffer("logits", (O, self.info.num_vocab), DType.F32, Role.INPUT)
        result = Buffer("probabilities", (O, self.info.num_vocab), DType.F32, Role.OUTPUT)
        with tape() as items:
            blit(softmax(source.tensor), result.tensor)
        graph = Graph(tuple(items))
        return self.engine.compile(graph, graph, result), source

    def drawing(self) -> Drawing | None:
        """What draws tokens on the model's device, compiled when first asked for; None on numpy."""
        if self._drawing is None and isinstance(self.engine, GpuEngine):
            self._drawing = Drawing(self.engine, self._inputs.batch, self._logits)
        return self._drawing

    def _check(self, tokens: Any, state: Any) -> None:
        if not isinstance(state, State) or state.layers is not self._layers:
            raise ValueError(
                "the state belongs to another model; make one with this model's state(num_batch)"
            )
        check_lists(tokens, state.num_batch)

    def __str__(self) -> str:
        where = str(self.engine.context) if isinstance(self.engine, GpuEngine) else "numpy"
        return f"{self.info}\n{self._graph!r}\non {where}"

    def __repr__(self) -> str:
        return f"Model({self.info})"


def open_engine(device: Device) -> Engine:
    """The engine for `Model.load`'s device.

    Raises DeviceError for an adapter that was named and is not there.
    """
    if isinstance(device, Context):
        return GpuEngine(device)
    if device == "cpu":
        return HostEngine()
    try:
        return GpuEngine(Context.create(device))
    except DeviceError as error:
        if device is not None:
            raise
        first = str(error).splitlines()[0]
        print(f"rwkvgraph: running on numpy, slowly: {first}", file=sys.stderr)
        return HostEngine()
