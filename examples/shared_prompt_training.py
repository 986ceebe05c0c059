"""A training step over N replies to one prompt, which is computed once: python examples/shared_prompt_training.py

Policy gradients and distillation train on many replies to the same prompt. Packed as a tree, N replies of R tokens over
a prompt of P take P + N * R tokens forward and backward, not N * (P + R): all replies read the keys and values of the
one prompt, and its gradients are the sums of what they send back (as in DualKV). `LLM.score` computes the same tree for
inference. Here the loss and every gradient are held to those of N separate passes, on a tiny random model in float64
(whose norms and softmax transformers computes in float32).
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

P, N, R, VOCAB = 96, 8, 12, 128


def main() -> None:
    """Print the tokens of both ways and the largest difference of a gradient."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config).double()
    prompt, replies = torch.randint(VOCAB, (P,)), torch.randint(VOCAB, (N, R))
    advantages = torch.randn(N, dtype=torch.float64)  # what each reply's log-probability is weighed by

    together = loss_of_tree(model, prompt, replies, advantages)
    shared = gradients(model, together)
    apart = sum(loss_of_one(model, prompt, reply, weight) for reply, weight in zip(replies, advantages, strict=True))
    separate = gradients(model, apart)

    largest = max(float((a - b).abs().max()) for a, b in zip(shared, separate, strict=True))
    scale = max(float(b.abs().max()) for b in separate)
    print(f"tokens: {P + N * R} as a tree, {N * (P + R)} in {N} passes")
    print(f"loss: {float(together.detach()):.12f} and {float(apart.detach()):.12f}")
    print(f"largest difference of a gradient: {largest:.1e}, where the largest gradient is {scale:.1e}")
    if largest > 1e-6 * scale:
        raise SystemExit("the gradients differ")


def loss_of_tree(model, prompt, replies, advantages):
    """Minus the weighed log-probabilities of all replies, from one pass over the prompt and all of them."""
    ids = torch.cat([prompt, replies.flatten()])
    positions = torch.cat([torch.arange(P), torch.arange(P, P + R).repeat(N)])
    logits = model(ids[None], attention_mask=tree_mask()[None, None], position_ids=positions[None]).logits[0]
    below = logits[P:].view(N, R, VOCAB)
    # The prompt's last token scores the first of every reply, and each token of a reply the one behind it.
    before = torch.cat([logits[P - 1].expand(N, 1, VOCAB), below[:, :-1]], dim=1)
    logprobs = torch.log_softmax(before, -1).gather(-1, replies[..., None])[..., 0].sum(-1)
    return -(advantages * logprobs).sum()


def tree_mask():
    """Which token reads which, as what is added to the scores: the prompt, and a reply's own tokens up to itself."""
    owner = torch.cat([torch.full((P,), -1), torch.arange(N).repeat_interleave(R)])
    earlier = torch.ones(P + N * R, P + N * R, dtype=torch.bool).tril()
    seen = earlier & ((owner[None, :] == -1) | (owner[None, :] == owner[:, None]))
    return torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, torch.finfo(torch.float64).min)


def loss_of_one(model, prompt, reply, weight):
    """The same for one reply, by itself behind the prompt."""
    logits = model(torch.cat([prompt, reply])[None]).logits[0]
    logprobs = torch.log_softmax(logits[P - 1 : -1], -1).gather(-1, reply[:, None])
    return -weight * logprobs.sum()


def gradients(model, loss):
    """The gradient of every weight."""
    return torch.autograd.grad(loss, list(model.parameters()))


if __name__ == "__main__":
    main()
