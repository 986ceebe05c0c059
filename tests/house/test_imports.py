"""Who may import whom (CONTRIBUTING): left may import right, never back, lazy and type-only imports counted."""

from __future__ import annotations

import subprocess
import sys

from tests.house.source import Module, imports, modules, of_each_module

# Each unit and what it may import of the others. `errors` and `config` are open to all (see OPEN).
CONTROL = {"sched", "cache", "plan", "spec"}
BASE = {"technique", "catalog", "registry", "cost", "ir"}
DEVICE = {"runner", "models", "linear", "attention", "kv", "kernels"}
ENGINE = CONTROL | BASE | DEVICE | {"text", "engine", "demo"}
SURFACES = {"jobs", "cluster", "workflow", "campaign", "sim", "serve", "bench", "lab"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "foreign": {"errors"},
    "technique": set(),
    "catalog": {"technique"},
    "left_out": {"technique"},
    "registry": {"catalog", "left_out", "technique"},
    "config": {"registry", "technique"},
    "demo": set(),
    "ir": set(),
    "cost": {"ir"},
    "plan": BASE,
    "cache": BASE,
    "spec": BASE | {"cache"},
    "sched": BASE | {"cache", "spec"},
    "kernels": BASE,
    "kv": BASE | {"kernels"},
    "attention": BASE | {"kernels", "kv"},
    "linear": BASE | {"kernels", "kv"},
    "models": BASE | {"kernels", "kv", "attention", "linear", "demo"},
    "runner": BASE | DEVICE,
    "text": {"ir", "models"},
    "engine": ENGINE,
    "profile": {"cost", "ir", "runner", "engine"},
    "measure": ENGINE,
    "api": ENGINE | {"profile"},
    "ray": ENGINE | {"api"},
    "jobs": ENGINE | {"api"},
    "cluster": ENGINE | {"api", "jobs"},
    "workflow": ENGINE | {"api", "jobs"},
    "campaign": ENGINE | {"api", "jobs"},
    "sim": ENGINE | {"api", "jobs", "cluster"},
    "bench": ENGINE | {"api", "jobs"},
    "lab": ENGINE | {"api", "jobs", "bench"},
    "batch": ENGINE | {"api", "jobs", "cluster", "profile"},
    "serve": ENGINE | {"api", "jobs", "cluster", "workflow", "campaign", "sim", "batch"},
    "harness": ENGINE | {"api"},
    "clients": ENGINE | {"api"},
    "cli": ENGINE | SURFACES | {"api", "profile", "measure", "batch", "harness"},
    "__main__": {"cli"},
}
OPEN = {"errors", "config", "foreign"}

PURE_UNITS = {
    "ir",
    "cost",
    "technique",
    "catalog",
    "left_out",
    "registry",
    "plan",
    "cache",
    "sched",
    "sim",
    "workflow",
    "config",
    "errors",
    "demo",
}
PURE_MODULES = {
    "umbel.engine.assemble",
    "umbel.engine.loop",
    "umbel.engine.output",
    "umbel.engine.watch.watchers",
    "umbel.profile.recorder",
    "umbel.spec.base",
    "umbel.profile.trace",
    "umbel.models.families",
    "umbel.cli.plan",
    "umbel.cli.sim",
}
HEAVY = {"torch", "triton", "ray", "transformers"}
HTTP = {"requests", "httpx", "aiohttp", "urllib3", "http", "fastapi", "starlette", "uvicorn", "sse_starlette"}
PARSERS = {"argparse", "typer", "click", "optparse", "getopt"}


def found(name: str, roots: set[str]) -> list[str]:
    """Imports of a module whose first part is one of `roots`, with their lines."""
    return [f"line {line}: {target}" for target, line in imports()[name].items() if target.split(".")[0] in roots]


@of_each_module
def test_imports_go_one_way(module: Module) -> None:
    name, unit = module.name, module.unit
    if not unit:
        return  # umbel/__init__.py gathers the public names
    assert unit in ALLOWED, f"{unit} has no place in the house yet: add it to ALLOWED"
    for target, line in imports()[name].items():
        if target.split(".")[0] != "umbel":
            continue
        other = modules()[target].unit if target in modules() else target.split(".")[1]
        assert other, f"{name}:{line} imports the public names of umbel: import the module that has them"
        assert other in ALLOWED[unit] | OPEN | {unit}, f"{name}:{line}: {unit} must not import {other}"


def test_no_cycles() -> None:
    graph = {name: [t for t in targets if t in modules()] for name, targets in imports().items()}
    left = dict(graph)
    while leaves := [name for name, targets in left.items() if not any(t in left for t in targets)]:
        for name in leaves:
            del left[name]
    assert not left, f"import cycle among {sorted(left)}"


@of_each_module
def test_pure_side_stays_light(module: Module) -> None:
    if module.unit in PURE_UNITS or module.name in PURE_MODULES:
        assert not found(module.name, HEAVY | HTTP)


@of_each_module
def test_http_and_ray_and_arguments_have_one_place(module: Module) -> None:
    name, unit = module.name, module.unit
    assert unit == "serve" or not found(name, HTTP), "HTTP lives in serve/"
    in_ray = name in ("umbel.cluster.ray", "umbel.cluster.ray_nodes")
    assert in_ray or not found(name, {"ray"}), "Ray lives in cluster/ray.py and ray_nodes.py"
    assert unit == "cli" or not found(name, PARSERS), "argument parsing lives in cli/"


def test_pure_side_loads_without_torch() -> None:
    pure = [n for n, m in modules().items() if m.unit in PURE_UNITS or n in PURE_MODULES]
    code = f"import importlib, sys\nfor name in {pure}: importlib.import_module(name)\n"
    code += f"heavy = {sorted(HEAVY)}\nassert not [n for n in heavy if n in sys.modules], 'heavy imports'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
