"""What the wheel holds, and what it leaves out. `make wheel` installs and runs one, which needs a network."""

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
MODEL = "rwkvgraph/_assets/models/rwkv7-tiny.st"


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The paths in a wheel built from this checkout, by the build backend itself: no network."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; pip install 'rwkvgraph[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_installs_two_packages_and_nothing_called_codegen(wheel_names: list[str]) -> None:
    top = {PurePosixPath(name).parts[0] for name in wheel_names}
    packages = {name for name in top if not name.endswith(".dist-info")}
    assert packages == {"rwkvgraph", "rwkvgraph_codegen"}
    assert len(top - packages) == 1


@pytest.mark.parametrize(
    ("source", "package"),
    [("rwkvgraph", "rwkvgraph"), ("codegen/rwkvgraph_codegen", "rwkvgraph_codegen")],
)
def test_every_source_of_a_package_is_in_the_wheel(wheel_names: list[str], source: str, package: str) -> None:
    folder = ROOT / source
    kinds = {".py", ".wgsl", ".typed", ".html", ".css", ".js", ".json"}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in kinds}
    files.add("py.typed")
    assert {f"{package}/{file}" for file in files} <= set(wheel_names)


def test_the_wheel_carries_the_model_with_its_licences(wheel_names: list[str]) -> None:
    assert MODEL in wheel_names
    assert str(PurePosixPath(MODEL).with_name("MODEL.md")) in wheel_names
    licences = {PurePosixPath(name).name for name in wheel_names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE-MIT", "LICENSE-APACHE"}


def test_the_wheel_carries_the_assets_but_pictures_and_records_of_the_model(
    wheel_names: list[str],
) -> None:
    assets = {path.relative_to(ROOT / "assets") for path in (ROOT / "assets").rglob("*") if path.is_file()}
    left_out = {path for path in assets if path.name in {"golden.npz", "train.py"} or path.suffix == ".png"}
    shipped = {name for name in wheel_names if name.startswith("rwkvgraph/_assets/")}
    assert shipped == {f"rwkvgraph/_assets/{path.as_posix()}" for path in assets - left_out}
    assert any("vocab" in name for name in shipped)


def test_the_wheel_offers_the_command(wheel_names: list[str]) -> None:
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel_names)
