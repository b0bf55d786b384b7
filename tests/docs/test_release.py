"""What a release says of itself agrees: version, licences, citation, changelog."""

import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

import bcos_kernels

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 has no tomllib")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_said_alike() -> None:
    assert f"\nversion: {PROJECT['version']}\n" in read("CITATION.cff")
    assert PROJECT["version"] in read("CHANGELOG.md")
    listed = subprocess.run(
        ["git", "grep", "-lF", "__version__ ="], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:  # a checkout
        assert set(listed.stdout.split()) <= {"bcos_kernels/__init__.py", "tests/docs/test_release.py"}
    assert bcos_kernels.__version__ == metadata("bcos-kernels")["Version"]


def test_the_changelog_keeps_its_form() -> None:
    headings = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    kinds = {heading.split(":")[0] for heading in re.findall(r"^### (.*)$", read("CHANGELOG.md"), re.MULTILINE)}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_licences_are_there_and_cover_all_weights() -> None:
    assert PROJECT["license"] == "MIT AND CC-BY-SA-4.0"
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    assert read("LICENSE").startswith("MIT License") and "license: MIT" in read("CITATION.cff")
    notice = read("LICENSE-weights.md")
    weights = [path for path in ROOT.glob("bcos_*/**/*.safetensors")]
    assert weights and all(f"`{path.parent.relative_to(ROOT).as_posix()}`" in notice for path in weights)
    assert "OpenMoji" in notice and "CC-BY-SA-4.0" in notice


def test_the_citation_names_the_papers() -> None:
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= citation.keys()
    titles = {reference["title"] for reference in citation["references"]}
    assert {"Interpretable Diffusion Models with B-cos Networks"} < titles
    assert all(reference["authors"] and reference["year"] for reference in citation["references"])
