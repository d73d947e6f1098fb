"""Steps of decoding on a device alone: a token drawn for each of some slots, then run, and the next drawn.

What is on the device, and what can be asked of it; how far to go ahead is decided in runtime.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from rwkvgraph.batch import BATCH_WORDS, Batch, Stack, split
from rwkvgraph.gpu.cycle import Cycle, Piece, Snapshot, Turn, row_pieces
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.gpu.memory import DeviceMemory
from rwkvgraph.gpu.relays import LATE_BYTES
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.gpu.transfer import Readback
from rwkvgraph.graph import Graph
from rwkvgraph.op import Array, Buffer, DType, Role, Tensor, tape
from rwkvgraph.ops.sample import SETTINGS, Sample
from rwkvgraph.state import Block
from rwkvgraph.view import O, View

HISTORY = 64
"""Tokens of a row that the device remembers: as many as may be drawn before the host has read them."""
TOKEN_WORD = 4
"""Where a token's id is among the words of `batch`."""
SPARES = 2
"""Copies of what steps change: one for each stretch of steps that is not known to be wanted yet."""


class Drawing:
    """The graph that draws a token for each row of logits, the buffers it is about, and its program.

    inputs, output: the model's `batch` and logits, in place of which its steps have memory of their own.
    """

    def __init__(self, engine: GpuEngine, inputs: Buffer, output: Buffer) -> None:
        width = output.shape[1]

        def by_row(name: str, width: int, dtype: DType) -> Buffer:
            return Buffer(name, (O, width), dtype, Role.STATE)

        assert isinstance(width, int), "only axis 0 may be symbolic"
        self.inputs, self.output = inputs, output
        self.batch, self.logits = by_row("batch", BATCH_WORDS, DType.U32), by_row("logits", width, DType.F32)
        self.seen, self.rules = by_row("seen", width, DType.F32), by_row("rules", SETTINGS, DType.U32)
        self.history = by_row("history", HISTORY, DType.U32)
        self.bias = Buffer("bias", (width,), DType.F32, Role.STATE)
        ids = Tensor(self.batch, View((O,), (BATCH_WORDS,), TOKEN_WORD), DType.U32)
        with tape() as items:
            rows = (self.logits.tensor, self.seen.tensor, self.rules.tensor, ids, self.history.tensor)
            Sample(self.bias.tensor, *rows)
        graph = Graph(tuple(items))
        self.runner = engine.compile(graph, graph, self.history)
        self._free: WeakKeyDictionary[Block, list[Decoder]] = WeakKeyDictionary()

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Those that each decoder has memory for."""
        return self.batch, self.logits, self.seen, self.rules, self.history, self.bias

    def decoder(self, program: Runner, block: Block, slots: Sequence[int]) -> Decoder:
        """A decoder for slots of a block, rising: one that was given back, where there is one for them."""
        for decoder in self._free.get(block, ()):
            if decoder.program is program and decoder.slots == tuple(slots):
                self._free[block].remove(decoder)
                return decoder
        return Decoder(self, program, block, slots)

    def give_back(self, decoder: Decoder, block: Block) -> None:
        """Keep a decoder that is no longer used for whoever asks for its like next; one for each block."""
        self._free[block] = [decoder]


class Decoder:
    """The memory of steps for some slots of a block, and the two programs that a step runs.

    Made by a `Drawing`, to be given back to it. Nothing here waits, but for `ids` and `logits`.
    """

    def __init__(self, drawing: Drawing, program: Runner, block: Block, slots: Sequence[int]) -> None:
        self.program = program
        self.slots = tuple(slots)
        self._drawing = drawing
        context, batch = program.context, one_token_each(self.slots)
        sizes = batch.sizes(block.num_batch)
        own = {buffer: DeviceMemory(context, buffer, sizes) for buffer in drawing.buffers}
        theirs = {**block.memory, drawing.inputs: own[drawing.batch], drawing.output: own[drawing.logits]}
        own[drawing.batch].write(batch.words)
        turns = [Turn(drawing.runner, sizes, own), Turn(program, sizes, theirs)]
        self._own = own
        self._cycle = Cycle(context, turns)
        self._snapshots = [Snapshot(context, self._changed(block)) for _ in range(SPARES)]
        self._nbytes = len(self.slots) * HISTORY * 4
        self._ids = [Readback(context, self._nbytes + LATE_BYTES, "ids") for _ in range(SPARES)]

    def _changed(self, block: Block) -> Iterator[Piece]:
        """What steps change and do not make anew: the slots, and what the next draw goes by."""
        for memory in block.memory.values():
            yield from row_pieces(memory, self.slots)
        drawing = self._drawing
        for buffer in (drawing.logits, drawing.seen, drawing.rules):
            yield from row_pieces(self._own[buffer], range(len(self.slots)))

    def start(self, logits: Array, rules: Array, bias: Array) -> None:
        """Begin with these logits (rows, V), settings (rows, SETTINGS) and bias (V,), and nothing seen."""
        own, drawing = self._own, self._drawing
        own[drawing.logits].write(logits)
        own[drawing.rules].write(rules)
        own[drawing.bias].write(bias)
        own[drawing.seen].fill_rows(np.zeros(logits.shape[1], np.float32))

    def save(self, spare: int) -> None:
        """Keep what there is after all that was asked for, to come back to."""
        self._snapshots[spare].save()

    def restore(self, spare: int) -> None:
        """Come back to what was kept: the steps since then were not. Steps from there draw what they drew."""
        self._snapshots[spare].restore()

    def run(self, steps: int) -> None:
        """Draw a token a row and run them, so many times."""
        self._cycle.run(steps)

    def send(self, spare: int) -> int:
        """Let the tokens come that were drawn last. Gives the ticket to ask `ids` with."""
        context = self.program.context
        history = self._own[self._drawing.history].gpu
        with context.lock:
            encoder = context.device.create_command_encoder()
            self._ids[spare].record(encoder, history, 0, self._nbytes)
            self.program.meeting.record(encoder, self._ids[spare], self._nbytes)
            return context.submit([encoder.finish()])

    def ids(self, spare: int, ticket: int) -> Array:
        """Wait for what was sent: (rows, HISTORY), the token of draw n in column n % HISTORY."""
        with self.program.context.lock:
            flat = self._ids[spare].read(ticket)
        self.program.check_met(flat[self._nbytes :])
        return flat[: self._nbytes].view(np.uint32).reshape(len(self.slots), HISTORY)

    def logits(self, row: int) -> Array:
        """The logits (V,) that the row draws from next."""
        logits: Array = self._own[self._drawing.logits].read_rows(row, row + 1)[0]
        return logits


def one_token_each(slots: Sequence[int]) -> Batch:
    """A pass of one token for each of these slots of a block, rising, all of whose logits are wanted."""
    places = np.array(slots, np.int64)
    zeros = np.zeros_like(places)
    work = Stack(places, zeros, np.ones(len(places), np.bool_), zeros, np.zeros((0, 1), np.float32))
    return next(split(work, len(places), len(places), int(places[-1]) + 1))


def can_run_ahead(program: Runner) -> bool:
    """Whether steps of a program can be taken back: they change states alone, and no user sees them happen.

    Hooks that read or write a user's buffers cannot: it would hold what a later token left there.
    """
    for item in program.program.passes:
        for op in item.group.ops:
            sources = {
                tensor.source for tensor in op.operands().values() if isinstance(tensor.source, Buffer)
            }
            written = {tensor.source for tensor in op.updates().values()}
            if any(buffer.role is Role.USER for buffer in sources):
                return False
            if any(isinstance(buffer, Buffer) and buffer.role is Role.WEIGHT for buffer in written):
                return False
    return True
