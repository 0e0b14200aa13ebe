"""What users install: the three packages, their data, and no test."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The files in the wheel, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_the_packages_and_no_test(names):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"optparity", "jaxopt_impl", "torch_ref", f"optparity-{version}.dist-info"}
    assert not [name for name in names if any(word in name for word in ("test_", "conftest", "oracle", "parity_tests"))]


def test_the_wheel_holds_what_is_no_code(names):
    data = {f"{package}/py.typed" for package in ("optparity", "jaxopt_impl", "torch_ref")} | {"optparity/parity/golden.json"}
    assert data <= set(names)
    tracked = subprocess.run(
        ["git", "ls-files", "optparity", "jaxopt_impl", "torch_ref"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {name for name in names if ".dist-info/" not in name} == set(tracked.stdout.split())


def test_the_citation_is_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    sections = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]
    assert next(section for section in sections if not section.startswith("Unreleased")).startswith(version)
