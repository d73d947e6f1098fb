"""Makes the files beside it, with torch and safetensors: small models of every version, saved in every way.

    python tests/rwkvgraph/load/data/make.py      # once; the tests only read what it wrote

`converted.json` has the SHA-256 of what web-rwkv's converter makes of each model. Its convention is written
down here a second time, in torch, so that the tests compare two implementations.
"""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import torch  # type: ignore[import-not-found]  # only where the files are made
from safetensors.torch import save_file

HERE = Path(__file__).parent
C, S, F, V = 8, 4, 16, 10
H = C // S

Tensors = dict[str, torch.Tensor]


def block(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of a whole model of one layer: what its version has, and what all have."""
    norms = {f"{norm}.{part}": (C,) for norm in ("ln0", "ln1", "ln2") for part in ("weight", "bias")}
    matrices = {f"att.{name}.weight": (C, C) for name in ("key", "value", "receptance", "output")}
    ffn = {"ffn.key.weight": (F, C), "ffn.value.weight": (C, F)}
    inner = {f"blocks.0.{name}": shape for name, shape in {**norms, **shapes, **matrices, **ffn}.items()}
    ends = {"ln_out.weight": (C,), "ln_out.bias": (C,), "head.weight": (V, C)}
    return {"emb.weight": (V, C), **inner, **ends}


def mixes(prefix: str, letters: str) -> dict[str, tuple[int, ...]]:
    """Token-shift vectors."""
    return {f"{prefix}_{letter}": (1, 1, C) for letter in letters}


RECEPTANCE = {"ffn.receptance.weight": (C, C)}
LN_X = {"att.ln_x.weight": (C,), "att.ln_x.bias": (C,)}
GATE = {"att.gate.weight": (C, C)}
OLD_FFN = {**mixes("ffn.time_mix", "kr"), **RECEPTANCE}
DECAYS = {"w": 3, "a": 2, "v": 2, "g": 5}

SHAPES = {
    "v4": {"att.time_decay": (C,), "att.time_first": (C,), **mixes("att.time_mix", "kvr"), **OLD_FFN},
    "v5.0": {
        "att.time_decay": (H,),
        "att.time_first": (H,),
        **mixes("att.time_mix", "kvr"),
        **LN_X,
        **OLD_FFN,
    },
    "v5.1": {
        "att.time_decay": (H,),
        "att.time_faaaa": (H,),
        **mixes("att.time_mix", "kvrg"),
        **LN_X,
        **GATE,
        **OLD_FFN,
    },
    "v5.2": {
        "att.time_decay": (H, S),
        "att.time_faaaa": (H, S),
        **mixes("att.time_mix", "kvrg"),
        **LN_X,
        **GATE,
        **OLD_FFN,
    },
    "v6": {
        **mixes("att.time_maa", "xwkvrg"),
        "att.time_maa_w1": (C, 5 * 3),
        "att.time_maa_w2": (5, 3, C),
        "att.time_decay": (1, 1, C),
        "att.time_decay_w1": (C, 6),
        "att.time_decay_w2": (6, C),
        "att.time_faaaa": (H, S),
        **LN_X,
        **GATE,
        **mixes("ffn.time_maa", "kr"),
        **RECEPTANCE,
    },
    "v7": {
        **mixes("att.x", "rwkvag"),
        **{f"att.{letter}0": (1, 1, C) for letter in "wav"},
        **{f"att.{letter}1": (C, rank) for letter, rank in DECAYS.items()},
        **{f"att.{letter}2": (rank, C) for letter, rank in DECAYS.items()},
        "att.k_k": (1, 1, C),
        "att.k_a": (1, 1, C),
        "att.r_k": (H, S),
        **LN_X,
        **mixes("ffn.x", "k"),
    },
}

SAVED_AS = {
    "v4": (torch.float16, False),
    "v5.0": (torch.float32, False),
    "v5.1": (torch.bfloat16, False),
    "v5.2": (torch.bfloat16, True),
    "v6": (torch.float32, True),
    "v7": (torch.bfloat16, True),
}
"""Element type of each model, and whether it is a zip file; v4 keeps a vector in float32, as its files do."""


def model(version: str) -> Tensors:
    """A model with random weights, as BlinkDL's training code saves it."""
    random = torch.Generator().manual_seed(sum(version.encode()))
    dtype = SAVED_AS[version][0]
    tensors = {
        name: torch.randn(shape, generator=random).to(dtype) for name, shape in block(SHAPES[version]).items()
    }
    if version == "v4":
        tensors |= {name: value.float() for name, value in tensors.items() if "time_first" in name}
    return tensors


def converted(tensors: Tensors) -> Tensors:
    """The model as web-rwkv's converter has it: float16, renamed, some matrices transposed, V5.1 expanded."""
    is_51 = any("gate.weight" in name for name in tensors) and not any("time_maa" in name for name in tensors)
    is_51 = is_51 and all(value.dim() == 1 for name, value in tensors.items() if "time_decay" in name)
    made = {}
    for name, value in tensors.items():
        if is_51 and ("time_decay" in name or "time_faaaa" in name):
            value = value.unsqueeze(1).repeat(1, C // value.shape[0])
        for old, new in (("time_faaaa", "time_first"), ("time_maa", "time_mix"), ("lora_A", "lora.0")):
            name = name.replace(old, new)
        name = name.replace("lora_B", "lora.1").lower()
        parts = (
            "time_mix_w1 time_mix_w2 time_decay_w1 time_decay_w2 w1 w2 a1 a2 g1 g2 v1 v2 time_state lora.0"
        )
        value = value.half()
        if any(part in name for part in parts.split()):
            value = value.transpose(-2, -1)
        made[name] = value.clone().contiguous()
    return made


def odd_views() -> OrderedDict[str, object]:
    """Tensors as they seldom lie: views of one storage, transposed, repeated, empty, parameters, on a GPU."""
    numbers = torch.arange(24.0)
    whole = numbers.view(4, 6)
    return OrderedDict(
        whole=whole,
        part=numbers[5:11],
        columns=whole[:, 2:4],
        transposed=whole.t(),
        every_second=numbers[1::2],
        repeated=numbers[3].expand(2, 3),
        scalar=numbers[7],
        empty=numbers[:0].view(0, 4),
        parameter=torch.nn.Parameter(numbers[:4].clone()),
        half=numbers.half().view(2, 3, 4),
        brain=numbers.bfloat16().view(3, 8) / 3,
    )


def on_a_gpu(_: object) -> str:
    """What torch writes of a storage on the first GPU."""
    return "cuda:0"


def main() -> None:
    """Write every file."""
    digests = {}
    extra = {
        "state": {
            "blocks.0.att.time_state": torch.randn(H, S, S, generator=torch.Generator().manual_seed(1))
        },
        "lora": {
            "blocks.0.att.key.lora_A": torch.ones(2, C) * torch.arange(C),
            "blocks.0.att.key.lora_B": torch.ones(C, 2) / 3,
            "blocks.0.att.time_maa_w1": torch.arange(C * 15.0).view(C, 15),
        },
    }
    models = {version: model(version) for version in SHAPES} | extra
    for name, tensors in models.items():
        is_zip = SAVED_AS.get(name, (None, True))[1]
        torch.save(tensors, HERE / f"{name}.pth", _use_new_zipfile_serialization=is_zip)
        save_file(converted(tensors), HERE / "made.st", metadata={"format": "pt"})
        digests[name] = hashlib.sha256((HERE / "made.st").read_bytes()).hexdigest()
    (HERE / "made.st").unlink()
    (HERE / "converted.json").write_text(json.dumps(digests, indent=1) + "\n")
    torch.save(odd_views(), HERE / "views.pth")
    torch.save(odd_views(), HERE / "views_protocol4.pth", pickle_protocol=4)
    torch.serialization.location_tag = on_a_gpu
    torch.save(odd_views(), HERE / "views_gpu.pth")
    torch.save(odd_views(), HERE / "views_legacy.pth", _use_new_zipfile_serialization=False)
    layer = torch.nn.Linear(3, 2)
    checkpoint = {"epoch": 3, "state_dict": layer.state_dict(), "optimizer": {"state": {0: {"step": 1.5}}}}
    torch.save(checkpoint, HERE / "checkpoint.pth")


if __name__ == "__main__":
    main()
