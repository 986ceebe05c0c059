"""`umbel doctor`: what is installed, how fast this machine is, and how long the steps of a model take on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from umbel.batch import engine_options
from umbel.batch.declared import Option
from umbel.config import EngineConfig

if TYPE_CHECKING:
    from umbel.measure.step_benchmark import Findings, StepBenchmark


def doctor_command(
    model: Annotated[
        str | None, Option("-m", "--model", help="Time its steps too: 'demo', a directory, or a hub id.")
    ] = None,
    dtype: engine_options.Dtype = "auto",
    device: engine_options.Device = "auto",
    threads: Annotated[int | None, Option(help="CPU threads.", min=1)] = None,
    attention_backend: engine_options.AttentionBackend = "auto",
    seconds: Annotated[float, Option(help="Time to spend on the model's steps, about.", min=1)] = 30.0,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the installation and measure this machine.

    With a model, steps of its shape are timed (random weights; none are read) and kept, so that plans for it on this
    machine rest on measured seconds. Runs go on learning by themselves.
    """
    config = EngineConfig.of(
        model or "demo", dtype=dtype, device=device, threads=threads, attention_backend=attention_backend
    )
    # Imported when the command runs, so that --help is quick.
    import torch

    from umbel.cli.checkup import (
        added_techniques,
        advice,
        attention_used,
        cache,
        ceilings,
        hardware,
        kernels_used,
        versions,
    )
    from umbel.cost.machine import this_machine
    from umbel.engine.device import pick_device

    chosen = pick_device(config.device)
    if threads is not None:
        torch.set_num_threads(threads)
    this_machine(remeasure=True)
    found: dict[str, Any] = {"versions": versions(), "machine": hardware(chosen), "ceilings": ceilings(chosen)}
    found["kernels"] = kernels_used(chosen)
    found["attention"] = attention_used(chosen, config, named=model is not None)
    found["added_techniques"] = added_techniques()
    found["cache"] = cache()
    if model is not None:
        found["model"] = _benchmark(config, seconds)
    found["advice"] = advice(found)
    print(json.dumps(found, indent=2) if as_json else _text(found))


def _benchmark(config: EngineConfig, seconds: float) -> dict[str, Any]:
    from umbel.measure.step_benchmark import StepBenchmark
    from umbel.models.families import resolve_model

    benchmark = StepBenchmark(config, resolve_model(config.model))
    return _facts(config.model, benchmark) | _measured(benchmark.run(seconds)) | _kept(benchmark)


def _facts(name: str, benchmark: StepBenchmark) -> dict[str, Any]:
    spec, shape = benchmark.model.spec, benchmark.price.shape
    return {
        "name": name,
        "shape": f"{spec.family}, {spec.n_layers} layers of {spec.hidden_size}, vocabulary {spec.vocab_size:,}",
        "dtype": benchmark.model.config.dtype,
        "own_dtype": spec.dtype,
        "weight_bytes": shape.weight_bytes,
        "kv_bytes_per_token": shape.kv_bytes,
    }


def _measured(findings: Findings) -> dict[str, Any]:
    timed = findings.timed
    columns = zip(timed.probes, timed.seconds.tolist(), findings.expected.tolist(), findings.held.tolist(), strict=True)
    errors = findings.errors
    return {
        "steps": [
            {"step": str(probe), "seconds": took, "expected": expected, "held_out": held}
            for probe, took, expected, held in columns
        ],
        "held_out_error": {"median": float(sorted(errors)[len(errors) // 2]), "most": float(errors.max())},
        "small_job": {"expected": findings.job_expected, "seconds": findings.job_seconds},
    }


def _kept(benchmark: StepBenchmark) -> dict[str, Any]:
    path = benchmark.history.steps
    return {"history": None if path is None else str(path)}


def _text(found: dict[str, Any]) -> str:
    machine, cache = found["machine"], found["cache"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [f"versions   {versions}"]
    lines.append(f"processor  {machine['processor']}; {machine['cores']} cores, {machine['threads']} threads")
    lines.append(f"memory     {machine['free_memory_bytes'] / 1e9:.1f} GB free; load {machine['load']}")
    if "gpu" in machine:
        free, total = machine["gpu_free_bytes"] / 1e9, machine["gpu_total_bytes"] / 1e9
        lines.append(f"gpu        {machine['gpu']}, {free:.1f} of {total:.1f} GB free")
    lines.append(f"kernels    {found['kernels']['reason']}")
    lines.append(f"attention  {found['attention']['name']}: {found['attention']['reason']}")
    lines += [f"           not {name}: {why}" for name, why in found["attention"]["others"].items()]
    lines += [f"added      {name}: {state}" for name, state in found["added_techniques"].items()]
    for name, rate in found["ceilings"].items():
        unit = "GB/s" if name == "copy" else "GFLOP/s"
        lines.append(f"{name:<16}  {rate['best'] / 1e9:,.1f} {unit} at best, {rate['usual'] / 1e9:,.1f} usually")
    state = f"{cache['histories']} histories" if cache["writable"] else "not writable"
    lines.append(f"cache      {cache['folder'] or 'off'}" + (f" ({state})" if cache["folder"] else ""))
    if "model" in found:
        lines += _model_lines(found["model"])
    lines += [f"advice     {line}" for line in found["advice"]] or ["advice     none: all is well"]
    return "\n".join(lines)


def _model_lines(model: dict[str, Any]) -> list[str]:
    size = f"{model['weight_bytes'] / 1e9:.2f} GB of weights, {model['kv_bytes_per_token'] / 1e3:,.1f} kB of KV a token"
    lines = ["", f"model      {model['name']}: {model['shape']}; {model['dtype']}, {size}"]
    lines.append(f"  {'step':<36} {'took':>10} {'expected':>10}")
    for step in model["steps"]:
        mark = "  held out" if step["held_out"] else ""
        took, expected = (f"{step[key] * 1e3:,.2f} ms" for key in ("seconds", "expected"))
        lines.append(f"  {step['step']:<36} {took:>10} {expected:>10}{mark}")
    error, job = model["held_out_error"], model["small_job"]
    lines.append(f"  steps held out: {error['median']:.0%} off at the median, {error['most']:.0%} at most")
    lines.append(f"  a small job: planned {job['expected']:.2f} s, took {job['seconds']:.2f} s")
    kept = f"kept in {model['history']}: plans use it" if model["history"] else "not kept, as UMBEL_CACHE is off"
    return [*lines, f"  {kept}", ""]
