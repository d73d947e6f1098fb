"""Pickles that want more than a dict of tensors: nothing of them runs, nor takes time or memory."""

import argparse
import os
import pickle
import struct
import subprocess
import time
import tracemalloc
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwkvgraph.errors import LoadError
from rwkvgraph.load import open_tensors
from rwkvgraph.load.pickles import MOST_BYTES, MOST_STEPS, STEPS
from rwkvgraph.load.storages import GLOBALS
from rwkvgraph.load.torch_file import LEGACY_MAGIC, LEGACY_VERSION
from tests.rwkvgraph.load.test_faults import check_line
from tests.rwkvgraph.load.torch_files import REBUILD, pickled, storage, tensor, text, torch_legacy, torch_zip

HALVES = np.arange(24, dtype=np.float16)
X = tensor(storage("HalfStorage", "0", 24), 0, (24,), (1,))
RAN: list[object] = []


def run_me(*given: object) -> None:
    """What must not be called."""
    RAN.append(given)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def write(path: Path, data: bytes, is_legacy: bool = False) -> Path:
    """A file with this pickle and one storage."""
    legacy = torch_legacy(data, {"0": (24, HALVES.tobytes())})
    path.write_bytes(legacy if is_legacy else torch_zip(data, {"0": HALVES.tobytes()}))
    return path


def stacked(module: str, name: str, arguments: bytes = b")R") -> bytes:
    """A call as protocol 4 has it, with the name put together on the stack."""
    return b"\x80\x04}(" + text("x") + text(module) + text(name) + b"\x93" + arguments + b"u."


CALLS = {
    "os.system": (pickle.dumps({"x": Calls(os.system, "true")}, 2), "posix.system|nt.system"),
    "eval": (pickle.dumps({"x": Calls(eval, "run_me()")}, 2), "builtins.eval"),
    "exec": (pickle.dumps(OrderedDict(x=Calls(exec, "run_me()")), 4), "builtins.exec"),
    "subprocess": (pickle.dumps([Calls(subprocess.Popen, ["true"])], 2), "subprocess.Popen"),
    "a function of a module": (pickle.dumps([Calls(run_me, 1)], 2), "test_hostile_pickles.run_me"),
    "getattr": (stacked("builtins", "getattr"), "getattr"),
    "on the stack": (stacked("os", "system"), "os.system"),
    "dotted": (stacked("torch", "serialization.os.system"), "torch.serialization.os.system"),
    "torch.load": (stacked("torch", "load"), "torch.load"),
    "torch's own": (stacked("torch.serialization", "load"), "torch.serialization.load"),
    "torch.hub": (b"\x80\x02ctorch.hub\nload\n)R.", "torch.hub.load"),
    "a module": (b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", "linear.Linear.*state_dict"),
    "numpy": (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.", "numpy.core.multiarray._reconstruct"),
    "a line end": (stacked("os\n", "system"), r"os\\nsystem|os\\n.system"),
    "spaces": (stacked("torch HalfStorage", ""), "torch HalfStorage"),
    "other spaces": (stacked("", "collections OrderedDict"), "collections OrderedDict"),
    "look-alike": (stacked("torch", "Ηalfstorage"), r"torch\.\\u0397alfstorage"),
    "long": (stacked("o" * 9999, "system"), "ooo …', "),
}  # fmt: skip


@pytest.mark.parametrize(("data", "name"), CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_global_that_is_not_known_is_refused_by_name(
    tmp_path: Path, data: bytes, name: str, is_legacy: bool
) -> None:
    path = write(tmp_path / "m.pth", data, is_legacy)
    with pytest.raises(LoadError, match=f"nothing was run: its pickle names .*({name})") as caught:
        open_tensors(path)
    assert str(caught.value).isprintable()
    assert 'Save its state_dict alone: torch.save(checkpoint["model"], …)' in str(caught.value)
    assert not RAN


HARMLESS: list[object] = [
    argparse.Namespace(x=1),
    PurePosixPath("x"),
    np.float32(1),
    defaultdict(list),
    {1, 2},
    1j,
]


@pytest.mark.parametrize("value", HARMLESS, ids=[type(value).__name__ for value in HARMLESS])
@pytest.mark.parametrize("protocol", [2, 3])
def test_what_checkpoints_have_besides_tensors_is_no_attack(
    tmp_path: Path, value: object, protocol: int
) -> None:
    path = write(tmp_path / "m.pth", pickle.dumps({"model": {}, "args": value}, protocol))
    with pytest.raises(LoadError, match="an ordinary checkpoint with more than tensors") as caught:
        open_tensors(path)
    assert "attack" not in str(caught.value)


@pytest.mark.parametrize("protocol", [0, 1])
def test_a_pickle_of_an_old_protocol_is_named(tmp_path: Path, protocol: int) -> None:
    state = pickle.dumps({"epoch": True, "x": OrderedDict()}, protocol)
    head: tuple[object, ...] = (LEGACY_MAGIC, LEGACY_VERSION, {})
    legacy = b"".join(pickle.dumps(value, protocol) for value in head) + state
    for data in (torch_zip(state, {}), legacy):
        (tmp_path / "m.pth").write_bytes(data)
        message = "m.pth was saved with pickle protocol 0 or 1; save it anew with torch.save's default"
        with pytest.raises(LoadError, match=message):
            open_tensors(tmp_path / "m.pth")


def test_before_the_tensors_of_a_legacy_file_no_global_is_known(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(torch_legacy(b"", {})[:15] + b"\x80\x02cposix\nsystem\n(" + text("true") + b"tR.")
    with pytest.raises(LoadError, match=r"posix\.system"):
        open_tensors(path)


def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1)


def laughs(depth: int) -> bytes:
    """A list of two of a list of two of …, which has 2 ** depth numbers when it is written out."""
    return b"]" + b"".join(b"q" + bytes([i]) + b"]" + 2 * (b"h" + bytes([i]) + b"a") for i in range(depth))


TUPLES = b")" + b"\x85" * 100_000
ODD = {
    "a call of a text": (text("x") + b")R", "a call of 'x'"),
    "a call of a type": (b"ctorch\nHalfStorage\n)R", "a call of torch.HalfStorage"),
    "a call of a call": (b"ccollections\nOrderedDict\n)R)R", "a call of a dict"),
    "a call with a list": (b"ccollections\nOrderedDict\n]R", "a call of collections.OrderedDict"),
    "arguments that lack": (REBUILD + b")R", "_rebuild_tensor_v2 with 0 arguments"),
    "a tensor of no storage": (REBUILD + b"(" + 6 * b"N" + b"tR", "is damaged or cut off at byte"),
    "a dict of no pairs": (b"ccollections\nOrderedDict\n]Na\x85R", "is damaged or cut off at byte"),
    "an object": (b"ccollections\nOrderedDict\n)\x81", "operation 0x81 is none that torch.save writes"),
    "an instance": (b"(icollections\nOrderedDict\n", "operation 0x69 is none"),
    "an extension": (b"\x82\x01", "operation 0x82 is none"),
    "a set": (b"\x8f", "operation 0x8f is none"),
    "attributes of a list": (b"]}b", "attributes of a list"),
    "attributes of a type": (b"ctorch\nHalfStorage\n}b", "attributes of a Builder"),
    "appending to a dict": (b"}Na", "appending to a dict"),
    "items of a list": (b"]NNs", "setting items of a list"),
    "a key without a value": (b"}(Nu", "setting items of a dict"),
    "a deep key": (b"}" + TUPLES + b"Ns", "a tuple as the key of an item"),
    "a large key": (b"}\x8a\x08" + bytes(7) + b"\x01Ns", "an int as the key of an item"),
    "a huge integer": (b"\x8b" + struct.pack("<i", 1000) + bytes(1000), "an integer of 1000 bytes"),
    "a longer integer": (b"\x8b" + struct.pack("<i", 1 << 30), "is damaged or cut off at byte"),
    "a negative length": (b"\x8b" + struct.pack("<i", -1), "is damaged or cut off at byte"),
    "a text beyond the end": (b"X\xff\xff\xff\xff", "is damaged or cut off at byte"),
    "bytes beyond the end": (b"B\xff\xff\xff\x7f", "is damaged or cut off at byte"),
    "no text": (b"X\x01\x00\x00\x00\xff", "is damaged or cut off at byte"),
    "half a letter": (b"X\x03\x00\x00\x00\xed\xa0\x80", "is damaged or cut off at byte"),
    "nothing on the stack": (b"0", "operation 0x30"),
    "no mark": (b"t", "is damaged or cut off at byte"),
    "no memory": (b"h\x07", "is damaged or cut off at byte"),
    "memory of the far end": (b"Nr\xff\xff\xff\xff0", "operation 0x30"),
    "protocol 9": (b"\x80\x09", "a protocol above 5"),
    "no end": (b"N", "is damaged or cut off at byte"),
    "a global of no text": (b"NN\x93", "a global whose name is no text"),
    "a global without an end": (b"c" + b"o" * 5000, "is damaged or cut off at byte"),
    "an id of nothing": (b"NQ", "asks for a NoneType from outside"),
    "an id of a text": (text("storage") + b"Q", "asks for 'storage' from outside"),
    "an id of five": (b"(NNNNNtQ", "asks for a tuple from outside"),
    "a function as storage": (b"(" + text("storage") + REBUILD + b"NNNtQ", "storage of torch._utils._re"),
    "a key of None": (b"(" + text("storage") + b"ctorch\nHalfStorage\nNNNtQ", "a NoneType as its key"),
    "many steps": (b"N" * (MOST_STEPS + 1), "and no end"),
    "deep lists": (nested(100_000) + b".", "holds a list"),
    "deep tuples": (TUPLES + b".", "holds a tuple"),
    "many laughs": (laughs(200) + b".", "holds a list"),
    "deep attributes": (b"}" + TUPLES + b"b.", r"x is a dict, not a tensor|m.pth"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), ODD.values(), ids=ODD.keys())
def test_what_no_dict_of_tensors_needs_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path / "m.pth", b"\x80\x02" + data)
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(LoadError, match=message) as caught:
            open_tensors(path).rows("x", 0, 1)
        assert time.perf_counter() - started < 5
        assert tracemalloc.get_traced_memory()[1] < 20 * MOST_BYTES
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()


def test_only_what_torch_rebuilds_tensors_with_is_known() -> None:
    modules = {name.partition(" ")[0] for name in GLOBALS}
    assert modules == {"collections", "torch", "torch.cuda", "torch._utils"}
    assert {name for name, known in GLOBALS.items() if known.build} == {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_parameter_with_state",
        "torch Size",
        "torch device",
    }


PIECES = [bytes([code]) for code in STEPS] + [
    b"K\x01", b"h\x00", b"q\x00", b"X\x01\x00\x00\x00x", b"\x8c\x01y", b"ccollections\nOrderedDict\n",
    REBUILD,
    b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nSize\n", storage("HalfStorage", "0", 24), X, b"(", b"t",
]  # fmt: skip


def test_operations_in_any_order_build_tensors_or_are_refused(tmp_path: Path) -> None:
    @settings(
        max_examples=300,
        deadline=2000,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(st.sampled_from(PIECES), max_size=40))
    def read(pieces: list[bytes]) -> None:
        path = write(tmp_path / "m.pth", b"\x80\x02" + b"".join(pieces) + b".")
        try:
            reader = open_tensors(path)
            for name in reader.names():
                reader.rows(name, 0, 9)
        except LoadError as error:
            check_line(error)

    read()


def test_the_pickles_of_a_legacy_file_share_their_steps(tmp_path: Path) -> None:
    half = b"\x80\x02" + b"N" * (MOST_STEPS // 2)
    head = torch_legacy(b"", {})[:15] + b"\x80\x02M\xe9\x03."
    (tmp_path / "m.pth").write_bytes(head + half + b"." + half + b".")
    with pytest.raises(LoadError, match="and no end"):
        open_tensors(tmp_path / "m.pth")


def test_a_good_pickle_is_none_of_these(tmp_path: Path) -> None:
    reader = open_tensors(write(tmp_path / "m.pth", pickled({"x": X})))
    np.testing.assert_array_equal(reader.rows("x", 0, 24), HALVES)


COPIES = {
    "sizes": b"ctorch\nSize\nq\x00](" + b"N" * 20000 + b"eq\x01" + b"h\x00h\x01\x85R" * 20000 + b".",
    "items": b"ccollections\nOrderedDict\nq\x00"
    + text("a")
    + b"K\x01\x86q\x02]("
    + b"h\x02" * 20000
    + b"eq\x01"
    + b"h\x00h\x01\x85R" * 2000
    + b".",
}


@pytest.mark.parametrize("steps", COPIES.values(), ids=COPIES.keys())
def test_a_list_that_is_copied_again_and_again_is_refused_in_time(tmp_path: Path, steps: bytes) -> None:
    path = tmp_path / "copies.pth"
    path.write_bytes(torch_zip(b"\x80\x02" + steps, {}))
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(LoadError, match=r"calls with more than 500000 values in their lists"):
        open_tensors(path)
    assert time.perf_counter() - started < 3  # traced, and on any machine; 0.2 s otherwise
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
