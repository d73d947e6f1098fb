"""A model in which every slot at every site can be pushed away from its value, by numbers in one buffer.

A *place* is a slot at a site where it stands. A hook adds a row of the buffer, the place's *push*, to its
value; only numbers change from then on. So one program has the pushes of all places, and it copies every
value out behind the last of its pushes. The places are those of the last layer and those outside of layers.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from rwkvgraph.capture import name_of
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Frame, Site
from rwkvgraph.hooks import Hooks
from rwkvgraph.op import Array, Buffer, DType, TensorOp
from rwkvgraph.testing import GPU_TOLERANCE
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.small import HIDDEN, LAYERS, small_model

PROMPT = [5, 17, 3, 30]
ALONE, BATCHED = [PROMPT], [[22, 9, 1], PROMPT, []]
"""What runs, by slot: the prompt, and the prompt in the second of three slots."""

WIDEST = HIDDEN
"""Of all slots."""

LARGEST_PUSH = 0.5
"""Next to values of about 1: an effect that is far from rounding, and in which nothing overflows."""


@dataclass(frozen=True)
class Place:
    """A slot at a site. order: of the site, on the tape. is_read: whether what counts reads the slot later.

    value: the place where what stands here is captured, by name. That is the last at which it is read later,
    or, of a value that nothing reads, the first.
    """

    order: int
    site: Site
    slot: str
    name: str
    value: str
    is_read: bool


Group = tuple[str, ...]
"""Names of places of one site, which have their pushes at the same time."""


@dataclass(frozen=True)
class Answer:
    """What a run gives for the prompt: logits (T, V), the state after it, captured values by name."""

    logits: Array
    state: Array
    values: dict[str, Array]


@dataclass(frozen=True)
class Answers:
    """With no push, with those of each group of places, with none again; kernels compiled since the first."""

    before: Answer
    pushed: dict[Group, Answer]
    after: Answer
    compiled: int


def places_of(graph: Graph) -> list[Place]:
    """Every slot at every site, but those of earlier layers and the cursors, which are inputs."""
    last_read = last_reads(graph)
    found = [
        (order, site, slot, id(tensor.source))
        for order, site in enumerate(graph.items)
        if isinstance(site, Site) and getattr(site.hook, "layer", LAYERS - 1) == LAYERS - 1
        for slot, tensor in site.slots.items()
        if tensor.dtype is DType.F32
    ]
    ends: dict[int, str] = {}
    for order, site, slot, value in found:
        if value not in ends or order < last_read[value]:
            ends[value] = name_of(site, slot)
    return [
        Place(order, site, slot, name_of(site, slot), ends[value], order < last_read[value])
        for order, site, slot, value in found
    ]


def last_reads(graph: Graph) -> dict[int, int]:
    """Where on the tape each value, by its operation's `id`, is last read by something that counts."""
    counts = {id(op) for op in graph.live().ops}
    found: dict[int, int] = defaultdict(int)
    for position, item in enumerate(graph.items):
        if isinstance(item, TensorOp) and id(item) in counts:
            found |= {id(tensor.source): position for tensor in item.operands().values()}
    return found


class Pushed:
    """A model whose places all have their pushes, zeros at first."""

    def __init__(self, version: str, device: Device) -> None:
        self.model = small_model(version, device)
        self.places = {place.name: place for place in places_of(self.model.graph)}
        shape = (len(self.places), WIDEST)
        self.pushes = Buffer("pushes", shape)
        self.rows = np.random.default_rng(4).uniform(-LARGEST_PUSH, LARGEST_PUSH, shape).astype(np.float32)
        self.ends = {place.name: place for place in self.places.values() if place.name == place.value}
        """Where values are captured, by name."""
        self._is_end = self.ends.__contains__
        self._index = {name: at for at, name in enumerate(self.places)}
        self.hooks = Hooks()
        for site in dict.fromkeys(place.site for place in self.places.values()):
            self.hooks.add(site.hook, partial(self._push, site))

    def _push(self, site: Site, frame: Frame) -> None:
        for slot, value in frame.values().items():
            if (name := name_of(site, slot)) in self._index:
                row = self.pushes[self._index[name]]
                setattr(frame, slot, value + row[: value.shape[-1]])

    def read_places(self) -> list[Group]:
        """Every place at which it matters what stands there, by itself."""
        return [(place.name,) for place in self.places.values() if place.is_read]

    def read_sites(self) -> list[Group]:
        """The same, all those of a site together."""
        groups: dict[Site, Group] = {}
        for place in self.places.values():
            if place.is_read:
                groups[place.site] = (*groups.get(place.site, ()), place.name)
        return list(groups.values())

    @contextmanager
    def pushed(self, names: Iterable[str], by: float = 1.0) -> Iterator[None]:
        """Let these places have their pushes, `by` times, until the end of the block."""
        rows = np.zeros_like(self.rows)
        chosen = [self._index[name] for name in names]
        rows[chosen] = by * self.rows[chosen]
        self.pushes.write(rows)
        yield
        self.pushes.write(np.zeros_like(rows))

    def pushed_value(self, place: Place, before: Answer) -> Array:
        """What stands at a place once it has its push."""
        value = before.values[place.value]
        return value + self.rows[self._index[place.name], : value.shape[-1]]

    def ask(self, prompts: list[list[int]], at_once: bool = True) -> Answer:
        """Run the prompts from empty states: all their tokens in one run, or one after another."""
        state, slot = self.model.state(len(prompts)), prompts.index(PROMPT)
        runs = [prompts] if at_once else [[[token]] for token in prompts[slot]]
        found = [self.model.run_with_cache(run, state, self._is_end, "full", self.hooks) for run in runs]
        values = {
            name: np.concatenate([there(cache[name][slot]) for _, cache in found]) for name in self.ends
        }
        logits = np.concatenate([there(rows[slot]) for rows, _ in found])
        return Answer(logits, state.read(slot), values)

    def go_through(self, prompts: list[list[int]], groups: list[Group]) -> Answers:
        """Ask with the pushes of each group in turn, and with none before and after."""
        before, kernels = self.ask(prompts), self.kernels()
        pushed = {}
        for group in groups:
            with self.pushed(group):
                pushed[group] = self.ask(prompts)
        return Answers(before, pushed, self.ask(prompts), self.kernels() - kernels)

    def kernels(self) -> int:
        """How many the device has compiled."""
        engine = self.model.engine
        return len(engine.context.kernels) if isinstance(engine, GpuEngine) else 0


def there(value: Array | None) -> Array:
    """A value that is there."""
    assert value is not None
    return value


def apart(given: Array, wanted: Array) -> float:
    """The largest difference, in units of GPU_TOLERANCE of the largest magnitude, or of 1 if that is less."""
    assert given.shape == wanted.shape
    return float(np.abs(given - wanted).max() / np.abs(wanted).max(initial=1.0)) / GPU_TOLERANCE


def answers_apart(given: Answer, wanted: Answer) -> float:
    """As `apart`, of logits and states."""
    return max(apart(given.logits, wanted.logits), apart(given.state, wanted.state))


def values_apart(given: Answer, wanted: Answer) -> float:
    """As `apart`, of captured values."""
    assert given.values.keys() == wanted.values.keys()
    return max(apart(given.values[name], value) for name, value in wanted.values.items())


def same(given: Answer, wanted: Answer) -> bool:
    """Whether logits and states are equal to the bit."""
    return np.array_equal(given.logits, wanted.logits) and np.array_equal(given.state, wanted.state)
