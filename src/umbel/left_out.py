"""Rows of techniques that are off: they were looked at, and no option takes them; refusals say why."""

from __future__ import annotations

from umbel.technique import ShareSetting, Technique

_BUDGET = ShareSetting("budget", 0.25, "the share of a path that is kept")
_ALIKE = "memories have as many places in all layers and heads"
_KEEPERS: tuple[tuple[str, str, str], ...] = (
    (
        "scissorhands",
        "Scissorhands, 2305.17118",
        f"gives later layers more room, and {_ALIKE}; h2o is the rule of its kind: what was looked at stays",
    ),
    ("uncomp", "UNComp, 2410.03090", f"gives each layer and head room by the entropy of its keys, and {_ALIKE}"),
    (
        "scope",
        "SCOPE, 2412.13649",
        "has two budgets, for what is kept of the prompt and for what slides over the answer, and memories have one: "
        "sage-kv keeps the prompt's part, h2o lets it slide",
    ),
    ("shotkv", "ShotKV, 2502.01941", "keeps whole shots of a prompt, and prompts do not say where a shot begins"),
    (
        "epicache",
        "EpiCache, 2509.17396",
        "computes a dialogue once for each of its episodes, which a second model finds, and a row is one prompt here",
    ),
    (
        "kvcrush",
        "KVCrush, 2503.00022",
        "keeps tokens by what all heads of a layer say of them together, and here each head chooses its own",
    ),
    (
        "chelsea",
        "CentroidKV, 2506.11418",
        "merges keys, for which attention has to add the logarithm of their number to a score, and no backend does",
    ),
    (
        "act-qkv",
        "ActQKV, 2502.13542",
        "weighs queries by parameters that were not published, for blocks of keys that prompts read: flex-prefill "
        "picks these by what queries measure",
    ),
)
_LAYERS = ShareSetting("layers", 0.5, "the share of layers that are passed")
_HOLES = "a path has keys in the same places of all layers here, and they would be missing above the cut"
_FLOWS: tuple[tuple[str, str, str], ...] = (
    (
        "first",
        "FiRST, 2410.12513",
        "needs trained parts: a router in each layer, and a LoRA that makes good for the layers left out; which these "
        "are follows from a whole prompt, so that rows with other ends could not share its beginning",
    ),
    (
        "ftp",
        "FTP, 2412.11494",
        "needs trained parts: a router in each block, of the tokens that leave it out, by what later tokens look at, "
        "so that rows could not share what they read",
    ),
    (
        "yoco",
        "YOCO, 2405.05254",
        "is an architecture that is trained from the start: all upper layers read the keys of one layer, which those "
        "of other models never did",
    ),
    (
        "overfill",
        "OverFill, 2508.08446",
        "needs trained parts: a student, cut down from the model, that was trained to go on from the model's keys",
    ),
    (
        "kv-prediction",
        "KV Prediction, 2410.08391",
        "needs trained parts: a small model, and maps from its keys to the model's, trained together with both",
    ),
    (
        "lazy-llm",
        "LazyLLM, 2407.14057",
        f"drops tokens of a prompt layer by layer, by what its last token looks at: {_HOLES}",
    ),
    (
        "uni-prefill",
        "UniPrefill, 2605.06221",
        f"drops blocks of a prompt at some layers, by what its last tokens look at: {_HOLES}",
    ),
    (
        "must-drop",
        "MustDrop, 2411.10803",
        "drops tokens of images by what the text looks at, and the models here read text alone",
    ),
    (
        "adapt-infer",
        "AdaptInfer, 2508.06084",
        "drops tokens of images at some layers by what the text looks at, and the models here read text alone",
    ),
)
_REUSERS: tuple[tuple[str, str, str], ...] = (
    (
        "cache-blend",
        "CacheBlend, 2405.16444",
        "computes single tokens of documents again, wherever they stand, and rows of a step are the last ones of their "
        "runs: all backends of attention would have to learn rows with gaps between them",
    ),
    (
        "cache-craft",
        "Cache-Craft, 2502.15734",
        "chooses what to compute again of a document by the attention between documents when they were first computed "
        "together, and here each is computed alone, so that there was none",
    ),
    (
        "kv-share",
        "KVShare, 2503.16525",
        "repairs keys while answers are written by rules that were not published, and the bytes of an answer would "
        "depend on when they were",
    ),
    (
        "kvcomm",
        "KVCOMM, 2510.12872",
        "corrects texts by what earlier ones of the same length differed by, so that answers would depend on "
        "which rows came before",
    ),
    (
        "pre-ttr",
        "PreTTR, 2004.14255",
        "needs trained parts: a ranker that reads to both sides, trained to join question and document in its last "
        "layers alone, and the models here read to the left",
    ),
    (
        "lumen",
        "LUMEN, 2301.10448",
        "needs trained parts: an encoder of questions and one that finishes passages, before a decoder that reads "
        "both, and the models here have no encoder",
    ),
)

LEFT_OUT: tuple[Technique, ...] = (
    Technique(
        "drafter",
        "superposed",
        False,
        "",
        "Superposed Decoding, 2405.18400",
        why_not="writes several drafts of one text by the mean of their last tokens' embeddings, which changes "
        "answers, and samples share their prompt here: ask for n; python -m bench.superposed measures it",
    ),
    Technique(
        "drafter",
        "hamburger",
        False,
        "",
        "HAMburger, 2505.20438",
        why_not="needs trained parts: the model reads several tokens as one vector and writes them with a small "
        "decoder of its own, which have to be trained with it, and nothing rejects a wrong token",
    ),
    Technique(
        "drafter",
        "adablock-dllm",
        False,
        "",
        "AdaBlock-dLLM, 2509.26432",
        why_not="needs trained parts: it chooses the blocks of a masked-diffusion model, which reads to both sides, "
        "and the models here read to the left alone",
    ),
    Technique(
        "select",
        "pbs-attn",
        False,
        "",
        "PBS-Attn, 2510.21270",
        why_not="sorts the keys of a segment so that fewer blocks are needed, and a view names cells of positions, in "
        "whose order the kernels add up: sorted, a full budget would no longer be dense attention to the last "
        "bit",
    ),
    Technique(
        "select",
        "delta-attention",
        False,
        "",
        "Delta Attention, 2505.11254",
        why_not="adds to rows what dense attention of every 64th row differs by, and a selector says what rows read, "
        "not what becomes of their outputs",
    ),
    Technique(
        "select",
        "dhsa",
        False,
        "",
        "DHSA, 2510.24606",
        why_not="needs trained parts: a network on keys that finds where chunks end",
    ),
    Technique(
        "select",
        "chunk-llm",
        False,
        "",
        "ChunkLLM, 2510.02361",
        why_not="needs trained parts: adapters of queries and keys in each layer, and one that finds where chunks end",
    ),
    Technique(
        "select",
        "long-heads",
        False,
        "",
        "LongHeads, 2402.10685",
        why_not="numbers the positions of what a head reads for each chunk, so that no distance is larger than in "
        "training, and keys here keep the position that they were rotated for: pages picks without it",
    ),
    Technique(
        "select",
        "segment-masks",
        False,
        "",
        "MAS, 2412.18487",
        why_not="needs trained parts, a LoRA for attention to both sides within a span of the prompt, and the models "
        "here read to the left alone",
    ),
    *(Technique("reuse", name, False, "", paper, why_not=why) for name, paper, why in _REUSERS),
    *(Technique("forget", name, False, "", paper, why_not=why, settings=(_BUDGET,)) for name, paper, why in _KEEPERS),
    *(Technique("flow", name, False, "", paper, why_not=why, settings=(_LAYERS,)) for name, paper, why in _FLOWS),
)
