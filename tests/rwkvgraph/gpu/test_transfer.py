"""Bytes arrive as they left, whatever their layout, and by either driver."""

import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu import Context, Readback, download, transfer, upload, upload_parts
from rwkvgraph.gpu.native import Bytes, Direct, Plain, Step, driver


@pytest.fixture(params=["plain", "direct"])
def context(gpu: Context, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Context:
    """The device, through one of the two drivers."""
    fast = driver(gpu.device)
    if request.param == "direct" and not isinstance(fast, Direct):
        pytest.skip("this wgpu has no C library to call")
    monkeypatch.setattr(gpu, "driver", fast if request.param == "direct" else Plain(gpu.device))
    return gpu


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces small enough that little data takes many."""
    monkeypatch.setattr(transfer, "PIECE", 1024)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("nbytes", [1, 4, 1023, 1024, 1025, 100_003])
def test_what_was_uploaded_is_downloaded(context: Context, rng: np.random.Generator, nbytes: int) -> None:
    data = rng.integers(0, 256, nbytes, np.uint8)
    buffer = context.buffer(nbytes + 8, "data")
    upload(context, buffer, 8, data)
    np.testing.assert_array_equal(download(context, buffer, 8, nbytes), data)


@pytest.mark.usefixtures("small_pieces")
def test_views_are_uploaded_in_row_major_order(context: Context, rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((37, 55), np.float32).astype(np.float16)
    buffer = context.buffer(matrix.nbytes, "matrix")
    for view in (
        matrix.T,
        matrix[::-1],
        matrix[:, 1::2],
        matrix[:1].T,
        np.broadcast_to(matrix[0, 0], (9, 9)),
    ):
        upload(context, buffer, 0, view)
        np.testing.assert_array_equal(download(context, buffer, 0, view.nbytes), view.ravel().view(np.uint8))


@pytest.mark.usefixtures("small_pieces")
def test_parts_of_odd_sizes_are_joined(context: Context, rng: np.random.Generator) -> None:
    parts = [rng.integers(0, 256, n, np.uint8) for n in (3, 0, 5, 1, 2000, 2, 7)]
    buffer = context.buffer(2018, "parts")
    upload_parts(context, buffer, 0, iter(parts))
    np.testing.assert_array_equal(download(context, buffer, 0, 2018), np.concatenate(parts))


def test_a_memory_mapped_file_is_uploaded(context: Context, rng: np.random.Generator, tmp_path: Path) -> None:
    data = rng.standard_normal(5000, np.float32)
    data.tofile(tmp_path / "weights")
    buffer = context.buffer(data.nbytes, "weights")
    upload(context, buffer, 0, np.memmap(tmp_path / "weights", np.float32, "r"))
    np.testing.assert_array_equal(download(context, buffer, 0, data.nbytes).view(np.float32), data)


def test_parts_are_let_go_one_by_one(context: Context) -> None:
    """A generator of converted rows never has more than the last part alive beside the one it makes."""
    buffer = context.buffer(4 * transfer.PIECE, "parts")
    made: list[weakref.ref[Bytes]] = []

    def parts() -> Iterator[Bytes]:
        for number in range(4):
            assert sum(part() is not None for part in made) <= 1
            part = np.full(transfer.PIECE, number, np.uint8)
            made.append(weakref.ref(part))
            yield part
            del part

    upload_parts(context, buffer, 0, parts())
    assert download(context, buffer, 3 * transfer.PIECE, 4).tolist() == [3, 3, 3, 3]


OUTSIDE = r"multiple of 4|not all within small of 256 bytes"


@pytest.mark.parametrize(("offset", "nbytes"), [(2, 4), (-4, 4), (256, 4), (4, 256)])
def test_ranges_outside_of_the_buffer_are_refused(gpu: Context, offset: int, nbytes: int) -> None:
    buffer = gpu.buffer(256, "small")
    with pytest.raises(ValueError, match=OUTSIDE):
        upload(gpu, buffer, offset, np.zeros(nbytes, np.uint8))
    with pytest.raises(ValueError, match=OUTSIDE):
        download(gpu, buffer, offset, nbytes)


def test_a_readback_reads_the_run_of_its_ticket(context: Context) -> None:
    """Two are in flight at once, as when the next run is encoded while one is under way."""
    buffer = context.buffer(64, "result")
    readbacks = [Readback(context, 16), Readback(context, 16)]
    tickets = []
    for run, readback in enumerate(readbacks):
        upload(context, buffer, 32, np.full(4, run + 1, np.uint32))
        encoder = context.device.create_command_encoder()
        readback.record(encoder, buffer, 32, 16)
        tickets.append(context.submit([encoder.finish()]))
    second, first = readbacks[1].read(tickets[1]), readbacks[0].read(tickets[0], 4)
    assert second.view(np.uint32).tolist() == [2, 2, 2, 2]
    assert first.view(np.uint32).tolist() == [1]


def test_what_was_read_stays_when_the_readback_is_used_again(context: Context) -> None:
    buffer = context.buffer(16, "result")
    readback = Readback(context, 4)
    results = []
    for run in range(3):
        upload(context, buffer, 0, np.array([run], np.uint32))
        encoder = context.device.create_command_encoder()
        readback.record(encoder, buffer, 0, 4)
        results.append(readback.read(context.submit([encoder.finish()])))
    assert [int(result.view(np.uint32)[0]) for result in results] == [0, 1, 2]


def test_a_readback_that_is_too_small_is_refused(gpu: Context) -> None:
    readback = Readback(gpu, 16)
    with pytest.raises(ValueError, match="do not fit a readback of 16 bytes"):
        readback.record(gpu.device.create_command_encoder(), gpu.buffer(64, "x"), 0, 16, at=4)


INTERRUPT_OFTEN = """
import signal
import sys
from rwkvgraph.gpu import Context, Readback

context = Context.create()
buffer, readback = context.buffer(16, "x"), Readback(context, 4)
sys.unraisablehook = lambda _: None  # wgpu's destructors may be interrupted too; they carry on

def step():
    encoder = context.device.create_command_encoder()
    readback.record(encoder, buffer, 0, 4)
    return readback.read(context.submit([encoder.finish()]))

step()  # wgpu-py parses its C types on first use; an interrupt in there leaves cffi's lock taken
signal.signal(signal.SIGALRM, signal.default_int_handler)
caught = 0
for attempt in range(400):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + attempt * 2e-6)
        for _ in range(20):  # not for ever: a destructor may swallow the interrupt
            step()
    except KeyboardInterrupt:
        caught += 1
while True:  # 20 steps may be over before the last timer
    try:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        break
    except KeyboardInterrupt:
        pass
assert caught > 100, caught
print("read", step().nbytes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts itself by a timer signal")
@pytest.mark.usefixtures("gpu")
def test_an_interrupted_read_leaves_the_device_usable() -> None:
    """In a process of its own: what goes wrong here aborts."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT_OFTEN], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout == "read 4\n", done.stderr
    assert "cffi" not in done.stderr


def test_reading_from_a_lost_device_raises(gpu: Context) -> None:
    context = Context.create(gpu.info.index)
    readback = Readback(context, 16)
    ticket = context.submit([])
    context.device.destroy()
    with pytest.raises(DeviceError, match="lost"):
        readback.read(ticket)


class Recorder:
    """An open compute pass that notes what is asked of it."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def set_pipeline(self, pipeline: object) -> None:
        pass

    def set_bind_group(self, index: int, group: object, offsets: list[int]) -> None:
        pass

    def dispatch_workgroups(self, *grid: int) -> None:
        self.grids.append(grid)


def test_a_step_of_two_dispatches_is_recorded_whole(gpu: Context) -> None:
    nothing: Any = None
    after = Step(nothing, nothing, 0, (2, 0, 0))
    steps = [Step(nothing, nothing, 0, (1, 0, 0), after), Step(nothing, nothing, 0, (3, 0, 0))]
    driver = Plain(gpu.device)
    for (start, stop), wanted in {(0, 2): [1, 2, 3], (0, 1): [1, 2], (1, 9): [3], (0, 0): []}.items():
        recorder: Any = Recorder()
        driver.record(recorder, driver.prepare(steps), start, stop)
        assert [grid[0] for grid in recorder.grids] == wanted
