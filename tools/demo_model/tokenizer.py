"""Train the byte-level BPE tokenizer on generated text and write it in Hugging Face form."""

import argparse
import json
import random
from pathlib import Path

import mix
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)

from umbel.demo.tasks import cues, words

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
VOCAB = 1840  # before whole words are added; 2,592 after
# digits stand alone, a space belongs to the word after it, punctuation and line ends stay apart from words
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build(texts):
    """A trained `tokenizers.Tokenizer` for an iterator of texts."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        min_frequency=5,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    return tok


def with_whole_words(tok, listed):
    """Append merges until every listed word is one token both at a line start and after a space.

    Copying a word from the middle of a line to the start of an answer is then one token to one token.
    """
    wanted = [form for word in listed for form in (word, f" {word}")]
    for _ in range(8):
        model = json.loads(tok.to_str())
        vocab, merges = model["model"]["vocab"], model["model"]["merges"]
        known = {tuple(m) for m in merges}
        before = len(merges)
        for form in wanted:
            pieces = tok.encode(form, add_special_tokens=False).tokens
            if len(pieces) > 1 and tuple(pieces[:2]) not in known:
                known.add(tuple(pieces[:2]))
                merges.append(pieces[:2])
                vocab.setdefault("".join(pieces[:2]), len(vocab))
        if len(merges) == before:
            return tok
        tok = Tokenizer.from_str(json.dumps(model))
    return tok


def copied_words():
    """Every word that answers repeat from their prompts: list words and label names."""
    labels = [*cues.TOPIC, *cues.INTENT, *(name for names in cues.SENTIMENT_LABELS for name in names if name)]
    return sorted({*words.FIRST, *words.LAST, *words.CITY, *words.PLAIN, *words.DAY, *words.MONTH, *labels})


def save(tok, folder):
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 4096,
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def corpus(seed, documents):
    """Generated texts, special tokens removed; repeats left out so that merges follow words, not noise."""
    rng = random.Random(seed)
    weights = {k: v for k, v in mix.WEIGHTS.items() if k not in ("repeat", "plain_copy", "plain_add")}
    for _ in range(documents):
        text = mix.document(rng, 256, weights).text()
        for mark in SPECIAL:
            text = text.replace(mark, "\n")
        yield text


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--documents", type=int, default=12000)
    args = parser.parse_args()
    tok = with_whole_words(build(corpus(1, args.documents)), copied_words())
    save(tok, args.out)
    print(f"{tok.get_vocab_size()} entries in {args.out}")


if __name__ == "__main__":
    main()
