"""Takes vLLM to a GPU machine without network: fetches wheels, splits them into loads, joins and installs them.

    python -m bench.gpu.wheel fetch WHEELS               # here, where there is an index: vLLM and what it needs
    python -m bench.gpu.wheel split WHEELS LOADS         # LOADS/0, LOADS/1, ... of at most 45 MiB each
    python -m bench.gpu.wheel join PIECES SITE           # there, with all loads copied into PIECES: checked, installed

The versions are those that vLLM 0.22.0, built for torch 2.11 and CUDA 13, names or was tried with. NEEDS is what it
imports to load and run a model and what machines with torch and transformers do not have already. FlashInfer, for the
kernels' table, goes to SITE/apart, as vLLM would compile its kernels at every start if it saw it. Nothing else is
installed (`--no-deps`): torch stays the one that is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

VLLM = "vllm==0.22.0"
NEEDS = (
    "annotated-types", "apache-tvm-ffi==0.1.9", "astor", "blake3", "cachetools", "cbor2",
    "compressed-tensors==0.15.0.1", "depyf==0.20.0", "dill", "diskcache==5.6.3", "distro", "fastapi==0.121.0", "gguf",
    "importlib-metadata", "jiter", "llguidance==1.7.0", "msgspec", "openai==2.8.1", "openai-harmony",
    "opentelemetry-api==1.38.0", "opentelemetry-sdk==1.38.0", "opentelemetry-semantic-conventions==0.59b0", "orjson",
    "partial-json-parser", "pybase64", "pydantic==2.12.4", "pydantic-core==2.41.5", "pyzmq", "setproctitle", "sniffio",
    "starlette==0.49.1", "typing-inspection", "xgrammar==0.2.0", "flashinfer-python==0.6.11.post2",
)  # fmt: skip
APART = "flashinfer"
PYTHON = "3.12"
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)  # pip takes platforms by name only, so all that may do are named
LOAD = 45 << 20  # with the repository itself, under 64 MiB
MANIFEST = "manifest.json"


def fetch(folder: Path) -> None:
    """Wheels for the other machine's Python, whatever this one's is."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"manylinux_2_{n}_x86_64" for n in GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp"]
    command += [option for name in platforms for option in ("--platform", name)]
    subprocess.run([*command, "--dest", str(folder), VLLM, *NEEDS], check=True)


def split(folder: Path, loads: Path, size: int = LOAD) -> int:
    """Cut every file of a folder into pieces and fill loads of at most `size` bytes; gives how many there are."""
    manifest: dict[str, dict[str, object]] = {}
    number, full = 0, 0
    for name, part, data in _pieces(folder, size, manifest):
        if full and full + len(data) > size:
            number, full = number + 1, 0
        place = loads / str(number)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.{part:03}").write_bytes(data)
        full += len(data)
    (loads / str(number) / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return number + 1


def _pieces(folder: Path, size: int, manifest: dict[str, dict[str, object]]) -> Iterator[tuple[str, int, bytes]]:
    """(file, number, bytes) of each piece, the largest files first; notes what they must come to."""
    for path in sorted(folder.iterdir(), key=lambda p: -p.stat().st_size):
        digest, count = sha256(), 0
        with path.open("rb") as whole:
            while data := whole.read(size):
                digest.update(data)
                yield path.name, count, data
                count += 1
        manifest[path.name] = {"pieces": count, "sha256": digest.hexdigest()}


def join(pieces: Path, wheels: Path) -> list[Path]:
    """Put the files together again; raises ValueError for one that is not what it was."""
    wheels.mkdir(parents=True, exist_ok=True)
    found = []
    for name, about in json.loads((pieces / MANIFEST).read_text()).items():
        digest = sha256()
        with (wheels / name).open("wb") as whole:
            for part in range(about["pieces"]):
                data = (pieces / f"{name}.{part:03}").read_bytes()
                digest.update(data)
                whole.write(data)
        if digest.hexdigest() != about["sha256"]:
            raise ValueError(f"{name}: its pieces do not come to the file that was split")
        found.append(wheels / name)
    return found


def install(wheels: list[Path], site: Path) -> None:
    """Into a folder for PYTHONPATH, and nowhere else."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    apart = [wheel for wheel in wheels if wheel.name.startswith(APART)]
    for target, some in ((site, [wheel for wheel in wheels if wheel not in apart]), (site / "apart", apart)):
        if some:
            subprocess.run(
                [*command, "--no-cache-dir", "--upgrade", "--target", str(target), *map(str, some)], check=True
            )


def main() -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("fetch", "split", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="?")
    asked = parser.parse_args()
    if asked.act == "fetch":
        fetch(asked.source)
        return
    if asked.target is None:
        parser.error(f"{asked.act}: give a target")
    if asked.act == "split":
        print(f"{split(asked.source, asked.target)} loads")
    else:
        install(join(asked.source, asked.target / "wheels"), asked.target)


if __name__ == "__main__":
    main()
