"""What options may name: the formats of tool calls and of reasoning, or `auto`."""

from __future__ import annotations

from typing import Literal

CallFormatName = Literal[
    "auto",
    "hermes",
    "llama3_json",
    "llama4_json",
    "mistral",
    "deepseek_v3",
    "deepseek_v31",
    "qwen3_coder",
    "qwen3_xml",
    "seed_oss",
    "minimax_m2",
    "glm45",
    "kimi_k2",
    "openai",
    "pythonic",
    "llama4_pythonic",
    "olmo3",
    "granite",
    "granite-20b-fc",
    "internlm",
    "jamba",
    "minimax",
    "hunyuan_a13b",
    "phi4_mini_json",
    "ernie45",
    "longcat",
]
ReasoningFormatName = Literal[
    "auto",
    "deepseek_r1",
    "qwen3",
    "glm45",
    "kimi_k2",
    "olmo3",
    "step3",
    "minimax_m2",
    "granite",
    "seed_oss",
    "mistral",
    "openai_gptoss",
]
