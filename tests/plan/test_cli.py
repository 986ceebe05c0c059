"""`umbel plan` as a user meets it: from a file and a config.json, without torch, weights or a tokenizer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from umbel.cli.main import main
from umbel.config import EngineConfig
from umbel.cost.startup import Loads
from umbel.demo import path

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    return directory


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    prompts = [[*range(100), i % 8, 7] for i in range(20)]
    lines = [json.dumps({"prompt": prompt, "max_tokens": 8}) for prompt in prompts]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([*lines, '{"prompt": []}', '{"prompt": [5000]}']) + "\n")
    return file


def test_json(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(rows), "--model", str(model), "--json", "--machine", "a100"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["rows"], plan["invalid_rows"], plan["duplicate_rows"]) == (22, 2, 12)
    assert (plan["prompt_tokens"], plan["computed_prompt_tokens"]) == (20 * 102, 100 + 8 * 2)
    assert plan["kv_peak_tokens"] > 116
    assert plan["seconds"]["low"] < plan["seconds"]["expected"] < plan["seconds"]["high"]


def test_text_names_the_rows_that_cannot_run(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(rows), "--model", str(model), "--chunk", "64", "--kv-tokens", "1600"]) == 0
    text = capsys.readouterr().out
    first, second, *_ = text.splitlines()
    assert first == "FAULTS  2 of 22 rows cannot run: line 21 empty_prompt, line 22 invalid_token_id"
    assert second.startswith("PLAN  20 rows, 2,040 prompt tokens in, about 160 out") and second.endswith(
        "    all exact"
    )
    assert "as asked" not in text and re.search(r"\d+ techniques refused or idle", text)
    assert len(text.splitlines()) <= 12 and "line 21: empty_prompt: prompt is an empty list" in text
    assert main(["plan", str(rows), "--model", str(model), "--chunk", "64", "--kv-tokens", "1600", "-v"]) == 0
    whole = capsys.readouterr().out
    assert "as asked" in whole and "line 22: invalid_token_id: " in whole


def test_faults_and_budget_are_the_first_two_lines(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write_text(rows.read_text() + '{"prompt": []}\n' * 100)
    assert main(["plan", str(rows), "--model", str(model), "--deadline", "1h", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["invalid_rows"], len(plan["faults"]), plan["budget"]["rows"]) == (102, 100, 20)
    assert plan["faults"][1]["line"] == 22 and "5000" in plan["faults"][1]["message"]
    assert "file" not in plan["faults"][1]  # there is one
    other = rows.with_name("other.jsonl")
    other.write_text('{"prompt": []}\n')
    assert main(["plan", str(rows), str(other), "--model", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"][2]["file"].endswith("rows.jsonl")
    assert main(["plan", str(rows), "--model", str(model), "--deadline", "1h"]) == 0
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("FAULTS  102 of 122 rows cannot run: line 21 empty_prompt, line 22 invalid_token_id, ")
    assert first.endswith(", ...") and len(first) <= 118
    assert second.startswith("BUDGET  3,600 s of running: 20 of 20 rows are expected to fit, with 160 tokens out")
    assert third.startswith("PLAN  20 rows")


def test_the_first_prompts_are_shown_as_the_model_reads_them(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Decoded from their ids; as ids where there is no tokenizer."""
    (tmp_path / "in.csv").write_text("x,y\na\x1bb,1\nc,2\nd,3\n")
    job = ["plan", str(tmp_path / "in.csv"), "-m", "demo", "--prompt", "Say {x}!", "--chat", "--max-tokens", "4"]
    assert main([*job, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["prompts"]
    assert first["text"].endswith("Say a\x1bb!<|im_end|>\n<|im_start|>assistant\n") and first["row"] == 0
    assert second["text"].count("Say c!") == 1 and second["tokens"] > 5
    assert main(job) == 0
    text = capsys.readouterr().out
    assert r"Say a\x1bb!<|im_end|>\n" in text and "\x1b" not in text
    (tmp_path / "ids.jsonl").write_text('{"prompt": [5, 6, 7], "max_tokens": 2}\n')
    assert main(["plan", str(tmp_path / "ids.jsonl"), "-m", str(model)]) == 0
    assert "prompt 1      ids 5 6 7\n" in capsys.readouterr().out


def test_strict_refuses_as_a_run_does(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(rows), "--model", str(model), "--strict"]) == 4
    told = capsys.readouterr()
    assert told.out == "" and "2 of 22 rows are at fault" in told.err and "line 22: invalid_token_id" in told.err


def test_where_no_row_can_run_the_reason_is_all(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a plan of nothing: each kind of fault once, with the first line that has it."""
    rows.write_text('{"prompt": []}\n{"prompt": [5000]}\n{"prompt": []}\n{"prompt": []}\n')
    assert main(["plan", str(rows), "--model", str(model)]) == 4
    told = capsys.readouterr()
    head, first, second = told.err.splitlines()
    assert told.out == "" and head.endswith("none of its 4 rows can run, so there is nothing to plan:")
    assert first.startswith("  line 1: empty_prompt: ") and first.endswith(" (2 more such rows)")
    assert second.startswith("  line 2: invalid_token_id: ") and second.count("5000") == 1


def test_page(model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "plan.html"
    assert main(["plan", str(rows), "--model", str(model), "--machine", "a100", "--html", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert "Plan of rows.jsonl" in html and html.count("<svg") == 3
    assert capsys.readouterr().out.startswith("FAULTS  2 of 22 rows")  # the text is printed all the same
    assert "FAULTS  2 of 22 rows cannot run: line 21 empty_prompt" in html


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--machine", "h20"], "did you mean 'h200'?"),
        (["--dtype", "float8"], "must be one of auto, float32, bfloat16"),
        (["--chunk", "0"], "must be a whole number of at least 1"),
    ],
)
def test_wrong_options_are_usage_errors(
    model: Path, rows: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(rows), "--model", str(model), *options]) == 2
    assert message in capsys.readouterr().err


def test_needs_no_torch_and_starts_fast(model: Path, rows: Path) -> None:
    code = (
        "import sys\nfrom umbel.cli.main import main\n"
        f"assert main(['plan', {str(rows)!r}, '--model', {str(model)!r}, '--json']) == 0\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules), 'heavy imports'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600, stdout=subprocess.DEVNULL)


def test_shapes_and_cards_are_planned_for_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Token ids need no tokenizer; the 141 GB of 70 billion parameters need two cards."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": [5, 6, i], "stop": "x", "max_tokens": 40}) + "\n" for i in range(9)))
    asked = ["plan", str(rows), "--json", "-m", "llama-3.1-70b", "--machine"]
    assert main([*asked, "h100"]) == 6
    assert "has room for" in capsys.readouterr().err
    found = []
    for machine in (["4xh100"], ["h100", "-tp", "4"], ["4xh100", "-dp", "2", "-tp", "2"]):
        assert main([*asked, *machine]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["seconds"] == found[1]["seconds"] and found[0]["kv_tokens"] > 0
    assert found[2]["decisions"][0]["value"].startswith("2 x")
    assert main([*asked, "4xh100", "-dp", "2"]) == 2
    assert "is 2, not 4" in capsys.readouterr().err


def test_text_for_a_shape_asks_for_a_tokenizer(
    model: Path, rows: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("hello\nworld\n")
    asked = ["plan", str(texts), "-m", "qwen3-0.6b", "--machine", "l4", "--json"]
    assert main(asked) == 2
    assert "is a shape without a tokenizer: give token ids, or --tokenizer DIR" in capsys.readouterr().err
    assert main([*asked, "--tokenizer", str(path("demo"))]) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] > 2


def test_the_time_is_of_the_whole_job_and_has_a_price(
    model: Path, rows: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, loading and steps add up; a load that was measured is believed."""
    monkeypatch.setenv("UMBEL_CACHE", str(tmp_path / "cache"))
    asked = ["plan", str(rows), "--model", str(model), "--machine", "a100", "--price", "7200"]
    Loads.of(model, EngineConfig.of(str(model))).learn(40.0)
    assert main([*asked, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    parts = [*plan["startup"].values(), plan["seconds"]]
    for name in ("low", "expected", "high"):
        assert plan["total_seconds"][name] == pytest.approx(sum(part[name] for part in parts))
        assert plan["price"][name] == pytest.approx(2 * plan["total_seconds"][name])
    assert plan["startup"]["loading"]["expected"] == 40.0
    assert main(asked) == 0
    text = capsys.readouterr().out
    assert "40 s to load" in text and "at 7,200.00 an hour" in text
    assert main(["plan", str(rows), "--model", str(model), "--price", "-1"]) == 2


def test_forms_of_answers_are_counted_and_the_refused_ones_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed here")
    forms = [{"choice": ["a long text that is certain"]}, {"regex": "[0-9]{3}"}, {"json": {"not": {}}}]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": "x", "structured_outputs": forms[i % 3]}) for i in range(8)))
    assert main(["plan", str(file), "--model", "demo", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["forms"]
    assert (told["distinct"], told["rows"], told["walked"]) == (2, 6, 2) and told["compile_seconds"] > 0
    (refused,) = told["refused"]
    assert refused["rows"] == 2 and "not" in refused["reason"]
    assert 0.5 < told["forced_share"] < 1  # the whole text, and no digit
    assert main(["plan", str(file), "--model", "demo"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "forms 2 different ones of 6 rows, compiled in" in text and f"refused: 2 rows: {refused['reason']}" in text
