"""What relays need on a device: where their workgroups meet, and proof that all of them run at the same time.

WebGPU promises neither; so each kernel is tried once, with nothing to do but to meet, before it is trusted,
and no wait is without an end.
"""

from __future__ import annotations

import numpy as np
from wgpu.classes import GPUBindGroup, GPUBuffer, GPUCommandEncoder

from rwkvgraph.compiler.program import Relay
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.compiling import Kernel
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.native import Step
from rwkvgraph.gpu.transfer import Readback, download
from rwkvgraph.op import Array
from rwkvgraph.view import round_up
from rwkvgraph_codegen import LATE, MEETING_WORDS

TRIAL_TURNS = 1 << 15
"""Looks at the counter in a trial, 20 ms on an NVIDIA H200: workgroups that run meet in some microseconds."""
LATE_BYTES = 16
"""What is read of the meeting to know whether a workgroup gave up."""


class Meeting:
    """Where the workgroups of a program's relays count themselves, and which kernels passed the trial."""

    def __init__(self, context: Context, relays: tuple[Relay, ...]) -> None:
        relays = tuple(relay for relay in relays if relay.meets)
        self._context = context
        self._proven: dict[str, bool] = {}
        self._has_relays = bool(relays)
        most = max((len(relay.variant.table) for relay in relays), default=0)
        self.words = MEETING_WORDS
        self.gpu: GPUBuffer = context.buffer(MEETING_WORDS * 4, "meeting")
        legs = max((relay.legs for relay in relays), default=0)
        self.trial_words: list[int] = [TRIAL_TURNS, legs, 0, 1] + [0] * (round_up(most * 16, 256) // 4)
        """A table with which the kernels have nothing to do."""

    def is_proven(self, relay: Relay, kernel: Kernel, group: GPUBindGroup, offset: int) -> bool:
        """Whether a relay's workgroups all run at the same time, tried when first asked for a kernel.

        offset: where `trial_words` are among the uniforms.
        """
        if kernel.text not in self._proven:
            workgroups = relay.variant.grid.items.constant
            self._proven[kernel.text] = self._try(Step(kernel.pipeline, group, offset, (workgroups, 1, 1)))
        return self._proven[kernel.text]

    def _try(self, step: Step) -> bool:
        context = self._context
        context.submit([context.encode(context.driver.prepare([step]), 0, 1).finish()])
        words = download(context, self.gpu, 0, self.words * 4).view(np.uint32)
        met = not words[LATE] and not words[0] % step.grid[0]
        if not met:
            self._begin_again()
        return met

    def _begin_again(self) -> None:
        self._context.queue.write_buffer(self.gpu, 0, np.zeros(self.words, np.uint32))

    def record(self, encoder: GPUCommandEncoder, readback: Readback, at: int) -> None:
        """Copy to byte `at` of a readback what `check` looks at; nothing where there are no relays."""
        if not self._has_relays:
            return
        readback.record(encoder, self.gpu, LATE * 4, LATE_BYTES, at)

    def check(self, late: Array) -> None:
        """Raise DeviceError if a workgroup gave up: what came of that run, and its states, are wrong.

        No relay is proven any more.
        """
        if self._has_relays and late.view(np.uint32)[0]:
            self._proven = dict.fromkeys(self._proven, False)
            self._begin_again()
            raise DeviceError(
                f"Parts of a run on {self._context.info.name} waited for each other in vain: the device "
                "stopped some of them while others ran, as for another program. States that were in this run "
                "are lost: begin again with new ones. RWKVGRAPH_RELAYS=0 runs without such waiting."
            )
