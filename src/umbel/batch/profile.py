"""The output of `umbel run --profile`: tables of where the seconds went, and a trace file for a timeline viewer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from umbel.batch.extras import writing
from umbel.errors import UsageError
from umbel.profile.profile import KindProfile, Profile, ProfilePart
from umbel.profile.recorder import Recorder
from umbel.profile.trace import kept, write_trace

WORTH = 5  # lines on what there is to gain, at most
_COLUMNS = f"{'calls':>9} {'seconds':>9} {'share':>6} {'GFLOP/s':>8} {'GB/s':>7} {'of floor':>8} {'over':>9}"
_HEAD = f"  {'':<22} {_COLUMNS}  bound by"


def trace_path(asked: str, output: Path) -> Path:
    """The path of the trace: as asked, '' meaning beside the output. Raises UsageError unless it is a .json file."""
    path = Path(asked) if asked else output.with_name(output.name + ".profile.json")
    if path.suffix != ".json":
        raise UsageError(f"--profile={asked}: the name must end in .json, as the trace is a JSON file")
    return path


def show_profile(recorder: Recorder, path: Path) -> None:
    """Write the trace and print the tables on stderr, also under --quiet: they were asked for."""
    profile = recorder.profile()
    with writing("--profile", path) as out:
        write_trace(out, recorder.timeline, profile)
    for line in (*profile_lines(profile), "", f"trace: {path} ({kept(recorder.timeline)}); open it in ui.perfetto.dev"):
        print(line, file=sys.stderr)


def profile_lines(profile: Profile) -> Iterator[str]:
    """The profile as text."""
    steps = sum(kind.steps for kind in profile.kinds)
    inside, outside = profile.in_steps, profile.outside.total.seconds
    yield f"PROFILE  {profile.seconds:.2f} s: {inside:.2f} s in {steps:,} steps, {outside:.2f} s outside of them"
    if profile.ceilings is not None and steps:
        floor, arithmetic = (sum(getattr(k.total, name) for k in profile.kinds) for name in ("floor", "arithmetic"))
        flops, rate = profile.ceilings.flops / 1e9, profile.ceilings.memory_rate / 1e9
        yield f"  ceilings: {flops:,.0f} GFLOP/s ({profile.ceilings.source}), {rate:,.1f} GB/s"
        yield (
            f"  all operators at their floors: {floor:.2f} s ({_share(floor, inside)} of the steps' time), "
            f"their arithmetic alone {arithmetic:.2f} s ({_share(arithmetic, inside)})"
        )
    yield f"  asking the clock took about {profile.laps:.3f} s ({_share(profile.laps, profile.seconds)})"
    for kind in profile.kinds:
        yield from ("", *_kind_lines(kind, inside))
    if profile.outside.parts:
        yield from ("", f"outside of steps: {outside:.2f} s", *(_part_line(p, outside) for p in profile.outside.parts))
    yield from _worth_lines(profile)


def _kind_lines(kind: KindProfile, inside: float) -> Iterator[str]:
    total, steps = kind.total, max(1, kind.steps)
    tokens = f"{kind.tokens / steps:,.0f} tokens, {kind.decoding / steps:,.0f} of them decoding"
    took = f"{total.seconds:.2f} s ({_share(total.seconds, inside)} of all steps)"
    yield f"{kind.kind}: {kind.steps:,} steps, {took}; each {total.seconds / steps * 1e3:.1f} ms, {tokens}"
    yield _HEAD
    yield from (_part_line(part, total.seconds) for part in kind.parts)
    yield _part_line(total, total.seconds)


def _part_line(part: ProfilePart, whole: float) -> str:
    line = f"  {part.name:<22} {part.calls:>9,} {part.seconds:>9.3f} {_share(part.seconds, whole):>6}"
    if not part.floor or not part.seconds:
        return line
    flops = f"{part.flops / part.seconds / 1e9:,.0f}" if part.flops else ""
    rate = f"{part.n_bytes / part.seconds / 1e9:,.1f}"
    line += f" {flops:>8} {rate:>7} {_share(part.floor, part.seconds):>8} {part.over:>9.3f}  {part.bound}"
    return line if part.name != "all" else line.rpartition("  ")[0]


def _worth_lines(profile: Profile) -> Iterator[str]:
    """The seconds that could be gained in steps, the most first."""
    parts = [(kind.kind, part) for kind in profile.kinds for part in kind.parts]
    found = sorted(parts, key=lambda pair: -pair[1].over)[:WORTH]
    if found:
        yield from ("", "most to gain in steps, seconds above the floor:")
    for kind, part in found:
        yield f"  {part.name:<22} {kind:<14} {part.over:>8.3f}, {_share(part.over, profile.in_steps)} of all steps"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
