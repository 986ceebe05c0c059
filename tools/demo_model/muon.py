"""Muon for the hidden matrices (Newton-Schulz; equal shapes in one batched product), Adam for the rest."""

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(g, kind=torch.float32, steps=5):
    """The nearest (semi-)orthogonal matrices of a stack [n, rows, cols], roughly."""
    flip = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if flip else g
    x = (x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-7)).to(kind)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        s = x @ x.transpose(1, 2)
        x = a * x + torch.baddbmm(b * s, s, s, beta=1, alpha=c) @ x
    return x.transpose(1, 2) if flip else x


class Muon:
    """One optimizer for the whole model; its state is a flat dict of tensors by parameter name."""

    def __init__(self, model, lr=0.02, adam_lr=0.002, momentum=0.95, decay=0.01, kind=torch.float32):
        self.lr, self.adam_lr, self.momentum, self.decay = lr, adam_lr, momentum, decay
        self.count, self.kind = 0, kind
        named = dict(model.named_parameters())
        self.hidden = {n: p for n, p in named.items() if p.ndim == 2 and "embed" not in n and "lm_head" not in n}
        self.rest = {n: p for n, p in named.items() if n not in self.hidden}
        self.state = {f"m.{n}": torch.zeros_like(p) for n, p in named.items()}
        self.state |= {f"v.{n}": torch.zeros_like(p) for n, p in self.rest.items()}
        self.groups = {}
        for n, p in self.hidden.items():
            self.groups.setdefault(tuple(p.shape), []).append(n)

    @torch.no_grad()
    def step(self, scale):
        """One update with both learning rates multiplied by `scale`."""
        self.count += 1
        for shape, names in self.groups.items():
            self._muon(shape, names, scale)
        for n, p in self.rest.items():
            self._adam(n, p, scale)

    def _muon(self, shape, names, scale):
        grads = torch.stack([self.hidden[n].grad for n in names])
        moments = torch.stack([self.state[f"m.{n}"] for n in names])
        moments.lerp_(grads, 1 - self.momentum)
        update = orthogonal(grads.lerp(moments, self.momentum), self.kind).float()
        lr = self.lr * scale * max(1.0, shape[0] / shape[1]) ** 0.5
        for i, n in enumerate(names):
            self.state[f"m.{n}"].copy_(moments[i])
            self.hidden[n].mul_(1 - self.lr * scale * self.decay).add_(update[i], alpha=-lr)

    def _adam(self, name, p, scale, b1=0.9, b2=0.95):
        m, v = self.state[f"m.{name}"], self.state[f"v.{name}"]
        m.lerp_(p.grad, 1 - b1)
        v.lerp_(p.grad.square(), 1 - b2)
        hat_m, hat_v = m / (1 - b1**self.count), v / (1 - b2**self.count)
        p.sub_(hat_m / (hat_v.sqrt() + 1e-8), alpha=self.adam_lr * scale)

    def zero_grad(self):
        """Forget the gradients."""
        for p in (*self.hidden.values(), *self.rest.values()):
            p.grad = None
