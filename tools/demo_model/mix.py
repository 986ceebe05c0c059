"""Documents for training: chats of one or many turns, plain completions, and random repeats, mixed by weight."""

from umbel.demo.tasks import addition, copying, extract, labels, lookup, passages, stories, words
from umbel.demo.tasks.base import TrainingDoc

USER, ASSISTANT, SYSTEM, END = (
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    "<|im_start|>system\n",
    "<|im_end|>\n",
)
SYSTEMS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a precise assistant. Answer with the result only.",
    "Do what the user asks. Give only the answer.",
    "You help a small shop with its daily work. Be exact and short.",
)
CHAT = {labels: 2, copying: 2, addition: 3, extract: 5, lookup: 3, passages: 2, stories: 0.3}
PROMPT_WEIGHT = {"copy": 0.03, "add": 0.02, "lookup": 0.05, "passage": 0.08}


def chat_doc(system, items):
    """A chat of one turn per item; the context of an item is written out only when it changes."""
    doc, told = TrainingDoc(), None
    if system:
        doc.add(f"{SYSTEM}{system}{END}", 0.1, "system")
    for it in items:
        prompt = it.question if it.context == told else it.prompt
        told = it.context or told
        doc.add(f"{USER}{prompt}{END}{ASSISTANT}", PROMPT_WEIGHT.get(it.task, 0.1), it.task)
        doc.add(it.answer + "<|im_end|>", 1.0, it.task).add("\n", 0.1, it.task)
    return doc


def pick(rng, table):
    """A key of `table`, by weight."""
    return rng.choices(list(table), list(table.values()))[0]


def shop_system(rng, shots):
    """A long system prompt: an instruction for mixed work and worked examples."""
    lines = [rng.choice(SYSTEMS)]
    if shots:
        lines.append(rng.choice(("Examples:", "Here are some examples.", "Examples of the work:")))
    for _ in range(shots):
        it = pick(rng, CHAT).item(rng, "train", 40)
        lines.append(f"User: {it.prompt}\nAssistant: {it.answer}")
    return "\n".join(lines)


def mixed_chat(rng, size):
    """Turns of different tasks, below no system prompt, a short one or a long one."""
    shots = rng.choice((None, None, 0, 0, 1, 3)) if size > 200 else rng.choice((None, None, 0))
    system = None if shots is None else shop_system(rng, shots)
    turns = 1 if rng.random() < 0.2 else max(1, (size - 50 * (shots or 0)) // 45)
    return chat_doc(
        system,
        [pick(rng, CHAT).item(rng, "train", rng.choice((30, 60))) for _ in range(turns)],
    )


def label_chat(rng, size):
    """One system prompt with labels and many texts below it."""
    system, items = labels.thread(rng, "train", max(1, (size - 60) // 30))
    return chat_doc(system, items)


def _threaded(family, tokens_per_turn):
    def build(rng, size):
        questions = rng.randint(3, max(4, min(12, size // 60))) if size < 700 else size // rng.randint(45, 110)
        context = max(30, size - tokens_per_turn * questions)
        context = rng.randint(30, context) if rng.random() < 0.4 else context
        told, items = family.thread(rng, "train", context, questions)
        if rng.random() < 0.25:  # the context may also be the system prompt
            for it in items:
                it.context = ""
            return chat_doc(told, items)
        return chat_doc(rng.choice((None, None, *SYSTEMS)), items)

    return build


def _plain(family, tokens_each):
    return lambda rng, size: family.plain(rng, "train", max(1, int(size * rng.uniform(0.4, 1)) // tokens_each))


def plain_lookup(rng, size):
    """A lookup as a completion: lines, then questions and answers."""
    context, items = lookup.thread(rng, "train", max(30, size - 90), 5)
    doc = TrainingDoc().add(context + "\n", 0.05, "lookup")
    for it in items:
        doc.add(f"Q: {it.question}\nA:", 0.1, "lookup").add(f" {it.answer}", 1.0, "lookup").add("\n", 1.0, "lookup")
    return doc


def repeat_words(rng, size):
    """Random words, then the same words again: the shortest way to learn to look back."""
    n = max(4, min(size // 4, rng.randint(6, 60)))
    text = " ".join(rng.choice(words.PLAIN + words.FIRST + words.CITY) for _ in range(n))
    return TrainingDoc().add(f"{text}.", 0.02, "repeat").add(f"\n{text}.", 1.0, "repeat")


BUILDERS = {
    "mixed": mixed_chat,
    "labels": label_chat,
    "lookup": _threaded(lookup, 24),
    "passages": _threaded(passages, 24),
    "plain_labels": _plain(labels, 22),
    "plain_copy": _plain(copying, 30),
    "plain_add": _plain(addition, 12),
    "plain_lookup": plain_lookup,
    "story": lambda rng, size: stories.plain(rng, "train"),
    "repeat": repeat_words,
}
WEIGHTS = {
    "mixed": 5,
    "labels": 0.7,
    "lookup": 4,
    "passages": 4.5,
    "plain_labels": 0.6,
    "plain_copy": 1,
    "plain_add": 2,
    "plain_lookup": 1,
    "story": 0.4,
    "repeat": 0.3,
}
WARMUP_WEIGHTS = WEIGHTS | {"repeat": 6, "plain_copy": 3, "plain_add": 2}


def document(rng, size, weights=None):
    """One training document of at most about `size` tokens."""
    return BUILDERS[pick(rng, weights or WEIGHTS)](rng, size)
