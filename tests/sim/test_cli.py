"""`umbel sim` as a user meets it: from files, traces and made-up workloads, without torch or weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umbel.cli.main import main
from umbel.cost.shape import Shape
from umbel.sim.model import find_model
from umbel.sim.policies.named import ABLATIONS, POLICIES
from umbel.sim.shapes import SHAPES

NAMES = ["fcfs-lru", "random-lru", "sorted-lru", "llm-d-hash", "daft-buckets", "sglang-lpm", "longest-prefix"]
NAMES += ["blendserve", "batchllm", "umbel"]
WHERE = ["--machine", "a100", "--kv-tokens", "4000"]
SHAPE = ["--model", "llama-3.2-1b", *WHERE]
MADE = "synthetic:prefix=100,remainder=20,degree=4,rows=40,output=5"
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
    "torch_dtype": "float32",
}


def test_json_is_one_object_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", MADE, *SHAPE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["policy"] for each in found] == NAMES == list(POLICIES)
    whole = {"computed_prompt_tokens", "kv_peak_tokens", "recomputed_tokens", "prompt_tokens", "steps", "preemptions"}
    for each in found:
        assert {name for name, value in each.items() if type(value) is int} > whole
        assert {name for name, value in each.items() if type(value) is float} >= {
            "saving",
            "rows_per_second",
            "seconds",
        }
        assert each["rows"] == 40
        assert each["prompt_tokens"] == 4800
        assert each["saving"] == 1 - each["computed_prompt_tokens"] / 4800
        assert each["rows_per_second"] == 40 / each["seconds"]
        assert each["kv_peak_tokens"] <= each["kv_tokens"] == 4000
    assert found[-1]["computed_prompt_tokens"] == 10 * 100 + 40 * 20


def test_the_table_has_a_line_for_each_policy_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", MADE, *SHAPE, "--policies", "umbel, sorted-lru", "--ablations"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "40 rows, 4,800 prompt tokens; a100, bfloat16, KV pool of 4,000 tokens"
    assert [line.split()[0] for line in lines[1:]] == ["policy", "umbel", "sorted-lru", *ABLATIONS]
    assert len({len(line) for line in lines[1:]}) == 1


def test_a_job_is_read_as_plan_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    rows = [{"prompt": [*range(100), i % 8, 7], "max_tokens": 8} for i in range(20)]
    rows += [{"prompt": []}, {"prompt": [5000]}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model in (tmp_path, tmp_path / "config.json"):
        assert main(["sim", str(file), "-m", str(model), *WHERE, "--policies", "umbel", "--json"]) == 0
        said = capsys.readouterr()
        found = json.loads(said.out)[0]
        assert (found["rows"], found["prompt_tokens"]) == (20, 20 * 102)
        assert "2 rows left out" in said.err


def test_a_job_with_stop_strings_is_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": [5, 6], "max_tokens": 3, "stop": ["x"]}) + "\n")
    assert main(["sim", str(tmp_path / "in.jsonl"), *SHAPE]) == 0
    assert "1 row" in capsys.readouterr().out


def test_text_needs_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "Once upon a time"}\n')
    assert main(["sim", str(file), *SHAPE]) == 2
    assert "a shape without a tokenizer: give token ids, or --tokenizer DIR" in capsys.readouterr().err
    demo = str(find_model("demo")[1])
    assert main(["sim", str(file), *SHAPE, "--tokenizer", demo, "--policies", "umbel", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["prompt_tokens"] > 1


def test_a_trace_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.csv"
    file.write_text("prompt_tokens,output_tokens\n300,4\n200,7\n")
    assert main(["sim", str(file), "--trace", "lengths", *SHAPE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all((each["computed_prompt_tokens"], each["output_tokens"]) == (500, 11) for each in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([MADE, "--policies", "lru"], "policy 'lru': must be one of fcfs-lru"),
        ([MADE, "--policies", ","], "--policies: name at least one of fcfs-lru"),
        (["synthetic:rows=0"], "rows='0' must be a whole number of at least 1"),
        (["missing.jsonl"], "missing.jsonl"),
        (["missing.csv", "--trace", "moon"], "trace 'moon': must be one of mooncake"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", *arguments, *SHAPE]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_is_nowhere_is_refused_with_the_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", MADE, "--model", "llama-3.1-8", *WHERE]) != 0
    assert "did you mean 'llama-3.1-8b'?" in capsys.readouterr().err


def test_a_cluster_runs_our_plan(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--replicas", "3", "--speeds", "1,0.5", "--losses", "2@0"]
    assert main(["sim", MADE, *SHAPE, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["replicas"], found["rows"], found["answered"], found["rows_of_replicas"][2]) == (3, 40, 40, 0)
    assert found["least_seconds"] == pytest.approx(found["one_node_seconds"] / 1.5)
    assert main(["sim", MADE, *SHAPE, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "40 rows on 3 replicas; a100, bfloat16" and lines[1].startswith("40 answered in ")
    assert lines[-4].split() == ["replica", "speed", "comes", "goes", "rows", "busy", "s"]
    assert lines[-1].split() == ["2", "1", "0", "0", "0", "0.00"]


def test_rows_without_a_replica_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", MADE, *SHAPE, "--replicas", "1", "--losses", "0@0"]) == 0
    assert "40 rows left without a replica, 0 given up" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--speeds", "1"], "--speeds is for a cluster: say how many --replicas it has"),
        (["--replicas", "2", "--policies", "umbel"], "--policies umbel: a cluster runs our plan only"),
        (["--replicas", "2", "--joins", "2@1"], "there is no replica 2"),
    ],
)
def test_clusters_that_cannot_be_are_named(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", MADE, *SHAPE, *options]) == 2
    assert message in capsys.readouterr().err


def test_several_cards_share_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    """70 billion parameters fit no single card; two of them take half the time of one for what fits one."""
    case = ["sim", MADE, "--json", "--policies", "umbel", "--kv-tokens", "4000", "--model"]
    assert main([*case, "llama-3.1-8b", "--machine", "h100"]) == 0
    one = json.loads(capsys.readouterr().out)[0]["seconds"]
    assert main([*case, "llama-3.1-8b", "--machine", "2xh100"]) == 0
    two = json.loads(capsys.readouterr().out)[0]["seconds"]
    assert 0.4 * one < two < one


def test_shapes_have_the_sizes_that_their_names_say() -> None:
    """Parameters in billions, as the models' cards give them."""
    cards = {
        "llama-3.1-8b": 8.03,
        "llama-3.1-70b": 70.6,
        "llama-3.3-70b": 70.6,
        "llama-3.2-1b": 1.24,
        "llama-3.2-3b": 3.21,
        "qwen2.5-0.5b": 0.494,
        "qwen2.5-7b": 7.62,
        "qwen2.5-14b": 14.8,
        "qwen3-0.6b": 0.596,
        "qwen3-1.7b": 1.72,
        "qwen3-4b": 4.02,
        "qwen3-8b": 8.19,
        "qwen3-14b": 14.8,
        "qwen3-32b": 32.8,
        "qwen3-30b-a3b": 30.5,
    }
    for name, billions in cards.items():
        assert Shape.of(SHAPES[name], "bfloat16").weight_bytes / 2e9 == pytest.approx(billions, rel=0.01)
    assert set(cards) == set(SHAPES)
