"""Check that a wheel and a source distribution hold what git has, and nothing else.

python .ci/check_contents.py WHEEL SDIST
"""

import subprocess
import sys
import tarfile
import zipfile

PACKAGES = ("bcos_kernels/", "bcos_diffusion/")
BUILT = ("bcos_kernels/_build.json", "bcos_kernels/_cpu.", "bcos_kernels/_cuda.")
LEFT_OUT = (".ci/", ".gitignore")
MADE = ("PKG-INFO", "setup.cfg", "MANIFEST.in")
LICENCES = ("LICENSE", "LICENSE-weights.md")


def complain(kind: str, missing: set[str], extra: set[str]) -> list[str]:
    return [f"{kind} lacks {name}" for name in sorted(missing)] + [f"{kind} has {name}" for name in sorted(extra)]


def main(wheel: str, sdist: str) -> int:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    tracked = {name for name in listed if not name.startswith(LEFT_OUT)}

    held = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in held if name.split("/")[0].endswith(".dist-info")}
    code = {name for name in held - about if not name.startswith(BUILT)}
    wanted = {name for name in tracked if name.startswith(PACKAGES)}
    faults = complain("the wheel", wanted - code, code - wanted)
    licences = {name.split("/licenses/")[1] for name in about if "/licenses/" in name}
    faults += complain("the wheel's metadata", set(LICENCES) - licences, set())
    if not any(name.startswith("bcos_kernels/_cpu.") for name in held):
        faults.append("the wheel has no CPU kernels")

    with tarfile.open(sdist) as archive:
        packed = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    packed = {name for name in packed if ".egg-info/" not in name and name not in MADE}
    faults += complain("the source distribution", tracked - set(MADE) - packed, packed - tracked)

    print("\n".join(faults) or f"{len(held)} files in the wheel, {len(packed)} in the source distribution: as in git")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
