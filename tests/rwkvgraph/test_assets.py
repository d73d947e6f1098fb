"""The files that come with the package are found, whole, and listed in their readme."""

import json
from pathlib import Path

import pytest

from rwkvgraph import assets
from rwkvgraph.errors import LoadError

ROOT = Path(__file__).parents[2]


def test_the_assets_of_a_checkout_are_found() -> None:
    assert assets.default_model().samefile(ROOT / "assets/models/rwkv7-tiny.st")
    assert assets.default_vocab().samefile(ROOT / "assets/vocab/rwkv7-tiny.json")
    assert assets.world_vocab().samefile(ROOT / "assets/vocab/rwkv_vocab_v20230424.json")


def test_the_assets_of_an_installed_wheel_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/rwkv7-tiny.st").touch()
    monkeypatch.setattr(assets, "FOLDERS", (tmp_path, ROOT / "assets"))
    assert assets.default_model() == tmp_path / "models/rwkv7-tiny.st"
    assert assets.path("README.md") == ROOT / "assets/README.md"


@pytest.mark.parametrize("name", ["models/rwkv9.st", "models", ""])
def test_an_asset_that_is_missing_is_named_with_the_places_searched(name: str) -> None:
    with pytest.raises(
        LoadError, match=rf"no asset '{name}': neither .*_assets nor .*assets has it\. Install"
    ):
        assets.path(name)


@pytest.mark.parametrize(
    ("num_vocab", "vocab"),
    [
        (4096, "rwkv7-tiny.json"),
        (65_530, "rwkv_vocab_v20230424.json"),
        (65_536, "rwkv_vocab_v20230424.json"),
    ],
)
def test_a_model_gets_the_vocabulary_of_its_size(num_vocab: int, vocab: str) -> None:
    assert assets.vocab_for(num_vocab).name == vocab


@pytest.mark.parametrize("num_vocab", [-1, 0, 4095, 4097, 50_277, 65_529, 65_537, 151_936])
def test_a_model_with_a_vocabulary_of_its_own_gets_none(num_vocab: int) -> None:
    with pytest.raises(LoadError, match=f"model of {num_vocab} logits.*give the path"):
        assets.vocab_for(num_vocab)


def test_the_world_vocabulary_has_every_id_and_no_token_twice() -> None:
    tokens = json.loads(assets.world_vocab().read_bytes())
    assert list(tokens) == [str(number) for number in range(1, 65_530)]
    texts = {token.encode() if isinstance(token, str) else bytes(token) for token in tokens.values()}
    assert len(texts) == 65_529
    assert {bytes([value]) for value in range(256)} <= texts
    assert max(map(len, texts)) == 128


def test_the_vocabulary_of_the_default_model_is_a_part_of_the_world() -> None:
    world = set(map(repr, json.loads(assets.world_vocab().read_bytes()).values()))
    tiny = json.loads(assets.default_vocab().read_bytes())
    assert list(tiny) == [str(number) for number in range(1, 4096)]
    assert world.issuperset(map(repr, tiny.values()))


def test_every_asset_is_a_plain_file_that_the_readme_lists() -> None:
    readme = assets.path("README.md").read_text(encoding="utf-8")
    files = [path for path in (ROOT / "assets").rglob("*") if not path.is_dir()]
    assert not [path for path in files if path.is_symlink()]
    names = {path.relative_to(ROOT / "assets").as_posix() for path in files} - {"README.md"}
    assert not [name for name in names if f"| `{name}` |" not in readme]
