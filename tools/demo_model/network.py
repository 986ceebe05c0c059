"""The Qwen3 decoder as a plain function of its parameters, lean enough to train on a few processor cores.

Transformers' module is right but pays in training for what is small here: a cast of every weight and activation
under autocast, dozens of unfused elementwise passes, and logits for every position. `hidden` runs the same
arithmetic; `python network.py FOLDER` compares the two.
"""

import functools

import torch
import torch.nn.functional as F

EPSILON, HEAD = 1e-6, 64


def norm(x, weight):
    """RMS norm over the last axis, in float32, back in the kind of `x`."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON) * weight).to(x.dtype)


def turn(x, cos, sin):
    """Rotary embedding of [batch, length, heads, HEAD]."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


@functools.cache
def angles(length, base, kind):
    """(cos, sin), each [length, 1, HEAD]."""
    speed = base ** (-torch.arange(0, HEAD, 2).float() / HEAD)
    angle = torch.outer(torch.arange(length).float(), speed).repeat(1, 2)[:, None]
    return angle.cos().to(kind), angle.sin().to(kind)


def before(x, rotation, first, projections, norms):
    """Queries, keys and values [batch, heads, length, HEAD] of one layer."""
    (batch, length, _), (cos, sin), (q_norm, k_norm) = x.shape, rotation, norms
    y = norm(x, first)
    q, k, v = (F.linear(y, w).view(batch, length, -1, HEAD) for w in projections)
    q, k = turn(norm(q, q_norm), cos, sin), turn(norm(k, k_norm), cos, sin)
    return tuple(z.transpose(1, 2).contiguous() for z in (q, k, v))


def after(x, mixed, second, output, gate, up, down):
    """The rest of one layer: attention's output [batch, heads, length, HEAD] joins, then the feed-forward."""
    x = x + F.linear(mixed.transpose(1, 2).flatten(2), output)
    y = norm(x, second)
    return x + F.linear(F.silu(F.linear(y, gate)) * F.linear(y, up), down)


class Network:
    """Runs a `Qwen3ForCausalLM`'s parameters; matrices are cast once an update when `kind` is bfloat16."""

    def __init__(self, model, kind=torch.float32, compiled=False):
        self.model, self.kind, self.base = model, kind, model.config.rope_parameters["rope_theta"]
        wrap = functools.partial(torch.compile, dynamic=False) if compiled else (lambda f: f)
        self.before, self.after = wrap(before), wrap(after)

    def hidden(self, ids):
        """Final hidden states [batch, length, width], normed, of token ids [batch, length]."""
        rotation = tuple(a.to(ids.device) for a in angles(ids.shape[1], self.base, self.kind))
        x = F.embedding(ids, self.model.model.embed_tokens.weight).to(self.kind)
        for layer in self.model.model.layers:
            a, m, cast = layer.self_attn, layer.mlp, lambda part: part.weight.to(self.kind)
            q, k, v = self.before(
                x, rotation, layer.input_layernorm.weight, (cast(a.q_proj), cast(a.k_proj), cast(a.v_proj)),
                (a.q_norm.weight, a.k_norm.weight),
            )  # fmt: skip
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = self.after(
                x, mixed, layer.post_attention_layernorm.weight, cast(a.o_proj),
                cast(m.gate_proj), cast(m.up_proj), cast(m.down_proj),
            )  # fmt: skip
        return norm(x, self.model.model.norm.weight)

    def logits(self, hidden):
        """Float32 logits of chosen hidden states [..., width]."""
        return F.linear(hidden, self.model.model.embed_tokens.weight.to(self.kind)).float()


def main():
    """Compare with Transformers on random tokens: logits, and the gradient of their square."""
    import sys
    from pathlib import Path

    import shapes

    model = shapes.Qwen3ForCausalLM.from_pretrained(Path(sys.argv[1]), dtype=torch.float32)
    ids = torch.randint(0, 2592, (2, 300), generator=torch.Generator().manual_seed(0))
    found = []
    for run in (lambda: model(input_ids=ids).logits, lambda: (net := Network(model)).logits(net.hidden(ids))):
        model.zero_grad()
        logits = run()
        logits.square().mean().backward()
        found.append((logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    for name, a, b in zip(("logits", "gradient"), *found, strict=True):
        print(f"{name}: largest difference {(a - b).abs().max():.2e} of {a.abs().max():.2e}")


if __name__ == "__main__":
    main()
