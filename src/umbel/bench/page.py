"""Writes records as Markdown: tables of seconds, shares of the floor and ratios, agreement, losses and failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from umbel.bench.record import Record
from umbel.bench.summary import ResultLine, Spread, geometric, grouped, lines, lost, ratios, reference
from umbel.errors import UsageError

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def markdown(record: Record, picture: str | None = None) -> str:
    """The section of one run; `picture` is the path of its chart as the page sees it."""
    found = lines(record)
    parts = [f"## Run of {record.about['date'][:16].replace('T', ' ')} UTC", _about(record)]
    if picture is not None:
        parts.append(f"![Times as long as Umbel, by workload and engine]({picture})")
    if found:
        parts += ["### Seconds, median [least, most]", _grid(found, _seconds)]
        parts += ["### Share of the arithmetic floor reached", _grid(found, lambda line: f"{line.floor_share:.0%}")]
        parts += [f"### Times slower than {reference(record)}", _slower(found)]
        parts += ["### Workloads and floors", _floors(record), "### Losses", _losses(found, record)]
    if record.whole:
        parts += ["### Whole commands, start of the process to the last row on disk", _whole(record)]
    if record.agreement:
        parts += ["### Tokens", _agreement(record.agreement, reference(record))]
    parts += ["### Engines", _engines(record), "### Not measured", _failures(record)]
    return "\n\n".join(parts) + "\n"


def write_between(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put `text` between the marks of a page, or at its end when it has none. Raises UsageError when that is
    impossible."""
    try:
        old = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
        before, mark, rest = old.partition(begin)
        after = rest.partition(end)[2] if mark else "\n"
        path.write_text(f"{before if mark else old + chr(10)}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--page {path}: cannot be written ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UsageError(f"--page {path}: is not a page of text; choose another name") from None


def chart_title(model: str, dtype: str, threads: int, processor: str) -> str:
    """What a chart is of. bench/random_model.py calls what it writes NAME-random, or -rand for short."""
    weights = " (random weights)" if "-rand" in model else ""
    return f"{model}{weights}, {dtype}, {threads} threads, {processor}"


def title(record: Record) -> str:
    """What the chart of a record is of."""
    about = record.about
    model, machine = about["model"], about["machine"]
    return chart_title(model["name"], model["dtype"], about["settings"]["threads"], machine["processor"])


def _about(record: Record) -> str:
    about = record.about
    machine, model, settings = about["machine"], about["model"], about["settings"]
    flops, rate = record.best
    text = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
    text += f"{machine['system']}; model {model['name']} in {model['dtype']}, {settings['threads']} threads; "
    text += f"Umbel {about['versions']['umbel']} at {about['commit'] or 'no commit'}."
    if record.calibrations:
        matmul = Spread.of([c["matmul"] / 1e9 for c in record.calibrations])
        read = Spread.of([c["read"] / 1e9 for c in record.calibrations])
        text += f" Calibrated {matmul.count} times between the runs: {matmul.low:,.0f} to {matmul.high:,.0f} GFLOP/s "
        text += f"(median {matmul.median:,.0f}), reading {read.low:.1f} to {read.high:.1f} GB/s. Floors are taken at "
        text += f"the best of them, {flops / 1e9:,.0f} GFLOP/s and {rate / 1e9:.1f} GB/s."
    return f"{text}\n\n```\n{' '.join(about['command'])}\n```"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)


def _grid(found: Sequence[ResultLine], show: Any) -> str:
    cases = list(dict.fromkeys(line.case for line in found))
    engines = list(dict.fromkeys(line.engine for line in found))
    by = {(line.engine, line.case): show(line) for line in found}
    return table(["engine", *cases], [[engine, *(by.get((engine, case), "–") for case in cases)] for engine in engines])


def _seconds(line: ResultLine) -> str:
    return str(line.seconds) + (" \\*" if line.slow_runs else "")


def _slower(found: Sequence[ResultLine]) -> str:
    means = geometric(found)
    cases = list(dict.fromkeys(line.case for line in found))
    by = {(line.engine, line.case): f"{line.slower.median:.2f}" for line in found if line.slower is not None}
    rows = [
        [engine, *(by.get((engine, case), "–") for case in cases), f"{mean:.2f} ({count})"]
        for engine, (mean, count) in means.items()
    ]
    note = "Medians of the ratios within a round; the last column is their geometric mean (over so many workloads). "
    note += "A star in the first table marks medians with a run in a slow period of the machine."
    return table(["engine", *cases, "mean"], rows) + "\n\n" + note


def _floors(record: Record) -> str:
    flops, rate = record.best
    head = ["workload", "rows", "prompt tokens", "distinct", "tokens out", "TFLOP", "arithmetic s", "traffic s"]
    rows = [
        [
            case["name"],
            case["rows"],
            f"{case['prompt_tokens']:,}",
            f"{case['distinct_tokens']:,}",
            f"{case['output_tokens']:,}",
            f"{case['flops'] / 1e12:.2f}",
            f"{case['flops'] / flops:.2f}",
            f"{case['n_bytes'] / rate:.2f}",
        ]
        for case in record.cases
    ]
    return table(head, rows)


def _losses(found: Sequence[ResultLine], record: Record) -> str:
    losses = [
        f"- {line.case}: {line.engine} takes {line.slower.median:.2f} of our time"
        for line in lost(found)
        if line.slower is not None
    ]
    return "\n".join(losses) or f"No engine was faster than {reference(record)} on any workload of this run."


def _whole(record: Record) -> str:
    ours, rows = reference(record), []
    for (case, engine), runs in grouped(record.whole).items():
        times = ratios(record.whole, case, engine, ours)
        spread = Spread.of([run["seconds"] for run in runs])
        rows.append([case, engine, spread, "–" if times is None else f"{times.median:.2f}"])
    return table(["workload", "engine", "seconds", f"times {ours}"], rows)


def _agreement(found: Mapping[str, Any], ours: str | None) -> str:
    head = ["workload", "engine", "rows", "first token equal", "all tokens equal", "largest lead lost"]
    rows = [
        [case, engine, c["rows"], c["first_equal"], c["all_equal"], _lead(c["largest_lead_lost"])]
        for case, engines in found.get("oracle", {}).items()
        for engine, c in engines.items()
    ]
    note = (
        "Against transformers in float32, one request at a time. The largest lead lost is how far the oracle's token "
    )
    note += "led the next one's logit where an answer first differs: small ones are ties that rounding decides."
    pairs = [
        [case, pair, c["rows"], c["first_equal"], c["all_equal"]]
        for case, counts in found.get("pairs", {}).items()
        for pair, c in counts.items()
        if pair.startswith(f"{ours} = ")
    ]
    between = table(["workload", "engines", "rows", "first token equal", "all tokens equal"], pairs)
    return "\n\n".join(
        [note, table(head, rows), f"{ours} against the others, over all greedy rows of the first round:", between]
    )


def _lead(lead: float | None) -> str:
    return "–" if lead is None else f"{lead:.3f}"


def _engines(record: Record) -> str:
    rows = []
    for engine in record.engines:
        versions = ", ".join(f"{name} {number}" for name, number in engine.get("versions", {}).items())
        settings = ", ".join(f"{name} {value}" for name, value in engine["settings"].items())
        if engine.get("preloaded"):
            settings += f"; preloaded {', '.join(filter(None, engine['preloaded'])) or 'nothing'}"
        load = "–" if not engine.get("load_s") else f"{Spread.of(engine['load_s'])}"
        peak = f"{engine['peak_bytes'] / 2**20:,.0f}" if engine.get("peak_bytes") else "–"
        rows.append([engine["name"], engine["about"], versions, settings, load, peak])
    return table(["engine", "what", "versions", "settings", "load s", "peak MiB"], rows)


def _failures(record: Record) -> str:
    return "\n".join(_failure_lines(record.failures)) or "Nothing: every engine ran every workload that it was given."


def _failure_lines(failures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for failure in failures:
        where = "" if failure["case"] is None else f" on {failure['case']}"
        yield f"- {failure['engine']}{where}: {failure['why']}"
