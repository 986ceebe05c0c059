"""Train the demo model or its draft from scratch on generated data; stops and resumes anywhere, on CPU or CUDA."""

import argparse
import json
import os
import random
import signal
import time
from pathlib import Path

import mix
import shapes
import torch
import torch.distributed as dist
import torch.nn.functional as F
from data import PAD, TASKS, Packer
from muon import Muon
from network import Network
from safetensors.torch import load_file, save_file

from umbel.demo.tasks.cases import held_out_item

QUICK_EVAL = {
    "copy": 0,
    "add": 0,
    "topic": 0,
    "sentiment": 0,
    "intent": 0,
    "extract": 0,
    "lookup": 100,
    "passage": 100,
    "story": 0,
}


def arguments():
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument(
        "run",
        type=Path,
        help="folder for checkpoints and the log; holds tokenizer.json",
    )
    p.add_argument("--size", choices=shapes.SIZES, default="main")
    p.add_argument(
        "--stages",
        default="256x16:1200,512x8:3000",
        help="length x batch : until step, ...; 512x8+2048x2:300 takes the two in turn",
    )
    p.add_argument(
        "--decay",
        type=float,
        default=0.2,
        help="share of all steps spent in the final linear decay",
    )
    p.add_argument("--within", type=float, help="minutes from now: end and decay by the clock instead of by steps")
    p.add_argument(
        "--floor", type=float, default=0.0, help="leave tokens of less weight out of the loss, and of the logits"
    )
    p.add_argument("--lr", type=float, default=0.02)
    p.add_argument("--adam-lr", type=float, default=0.003)
    p.add_argument(
        "--warmup",
        type=int,
        default=300,
        help="steps with many repeats, to learn looking back",
    )
    p.add_argument("--teacher", type=Path, help="HF folder to distil from")
    p.add_argument("--start-from", type=Path, help="HF folder whose weights a new run starts from")
    p.add_argument(
        "--embedding-from", type=Path, help="HF folder whose token table a fresh model starts from, projected"
    )
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--save-minutes", type=float, default=5)
    p.add_argument("--log-steps", type=int, default=25)
    p.add_argument("--eval-steps", type=int, default=150)
    return p.parse_args()


def parse_stages(text):
    """[([(length, batch), ...], until step), ...]."""
    found = []
    for part in text.split(","):
        shapes_, until = part.split(":")
        found.append(([tuple(int(n) for n in one.split("x")) for one in shapes_.split("+")], int(until)))
    return found


def shape_at(stages, step):
    """(length, batch) of one step."""
    turns = next(turns for turns, until in stages if step < until)
    return turns[step % len(turns)]


def worker():
    """This process's number among those that train together (`torchrun`), 0 when it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def workers():
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share_gradients(model):
    """Every worker continues with the mean of all workers' gradients."""
    if workers() == 1:
        return
    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
    dist.all_reduce(flat)
    flat /= workers()
    for p, part in zip(model.parameters(), flat.split([p.numel() for p in model.parameters()]), strict=True):
        p.grad.copy_(part.view_as(p))


def agreed(scale):
    """The first worker's learning rate scale, for all; below zero means stop."""
    if workers() == 1:
        return scale
    told = torch.tensor([scale], dtype=torch.float64)
    dist.broadcast(told, 0)
    return told.item()


def base_of(args):
    """The rotary base of the checkpoint, else of the folder that a new run starts from, else the usual one."""
    if (args.run / "state.json").exists():
        return json.loads((args.run / "state.json").read_text()).get("base", shapes.BASE)
    if args.start_from:
        return json.loads((args.start_from / "config.json").read_text())["rope_theta"]
    return shapes.BASE


def lr_scale(step, total, decay):
    """Short warm-up, flat, then a line to zero over the last `decay` share of the steps."""
    return min(1.0, (step + 1) / 40, (total - step) / max(1.0, decay * total))


class Run:
    """Model, optimizer and everything that is written to disk."""

    def __init__(self, args):
        self.args, self.step, self.tokens, self.minutes = args, 0, 0, 0.0
        self.base = base_of(args)
        self.model = shapes.fresh(args.size, args.seed, self.base).to(args.device)
        if args.start_from:
            weights = load_file(args.start_from / "model.safetensors", device=args.device)
            self.model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
        if args.embedding_from:
            table = load_file(args.embedding_from / "model.safetensors", device=args.device)
            shapes.borrow_embedding(self.model, table["model.embed_tokens.weight"])
        kind = torch.bfloat16 if args.bf16 else torch.float32
        self.opt = Muon(self.model, args.lr, args.adam_lr, kind=kind)
        self.packer = Packer(args.run / "tokenizer.json", args.seed)
        self.network, self.teacher = Network(self.model, kind, args.compile), None
        if args.teacher:
            loaded = shapes.Qwen3ForCausalLM.from_pretrained(args.teacher, dtype=torch.float32)
            self.teacher = Network(loaded.to(args.device).requires_grad_(False), kind, args.compile)
        if (args.run / "state.json").exists():
            self.load()

    def losses(self, ids, weight):
        """(per-token cross entropy, training loss, positions), of the positions whose weight reaches the floor."""
        chosen = ((weight > 0) & (weight >= self.args.floor)).flatten().nonzero().flatten()
        x, y, part = ids[:, :-1], ids[:, 1:].flatten()[chosen], weight.flatten()[chosen]
        logits = self.network.logits(self.network.hidden(x).flatten(0, 1)[chosen])
        ce = F.cross_entropy(logits, y, reduction="none")
        loss = (ce * part).sum() / part.sum()
        if self.teacher is not None:
            with torch.no_grad():
                target = self.teacher.logits(self.teacher.hidden(x).flatten(0, 1)[chosen]).log_softmax(-1)
            kl = F.kl_div(logits.log_softmax(-1), target, log_target=True, reduction="none").sum(-1)
            loss = 0.2 * loss + 0.8 * (kl * part).sum() / part.sum()
        return ce, loss, chosen

    def load(self):
        """Take up the newest checkpoint."""
        state = json.loads((self.args.run / "state.json").read_text())
        saved = load_file(self.args.run / "checkpoint.safetensors", device=self.args.device)
        weights = {k[6:]: v for k, v in saved.items() if k.startswith("model.")}
        self.model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
        for name, tensor in self.opt.state.items():
            tensor.copy_(saved[f"opt.{name}"])
        self.step, self.tokens, self.minutes = (
            state["step"],
            state["tokens"],
            state["minutes"],
        )
        self.opt.count = self.step

    def save(self):
        """Write weights, moments and counters; the rename makes it all or nothing."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        tensors |= {f"opt.{k}": v for k, v in self.opt.state.items()}
        save_file(
            {k: v.contiguous().cpu() for k, v in tensors.items()},
            self.args.run / "checkpoint.tmp",
        )
        state = {
            "step": self.step,
            "tokens": self.tokens,
            "minutes": round(self.minutes, 2),
            "size": self.args.size,
            "stages": self.args.stages,
            "device": self.args.device,
            "seed": self.args.seed,
            "base": self.base,
        }
        (self.args.run / "state.tmp").write_text(json.dumps(state) + "\n")
        os.replace(self.args.run / "checkpoint.tmp", self.args.run / "checkpoint.safetensors")
        os.replace(self.args.run / "state.tmp", self.args.run / "state.json")

    def update(self, length, batch, scale):
        """One optimizer step; returns (per-token losses, weights, tasks)."""
        weights = mix.WARMUP_WEIGHTS if self.step < self.args.warmup else mix.WEIGHTS
        arrays = self.packer.batch(self.step * workers() + worker(), batch, length, weights)
        ids, weight, task = (torch.from_numpy(a).to(self.args.device) for a in arrays)
        ce, loss, chosen = self.losses(ids, weight)
        loss.backward()
        share_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.opt.step(scale)
        self.opt.zero_grad()
        self.step += 1
        self.tokens += int((ids != PAD).sum()) * workers()
        return ce.detach(), weight.flatten()[chosen], task.flatten()[chosen]

    @torch.no_grad()
    def quick_eval(self, count=32):
        """Held-out exact match per task: greedy decoding is right exactly when every answer token is the argmax."""
        rng, right = random.Random(99), {}
        for task, size in QUICK_EVAL.items():
            docs = [self.packer.encode(mix.chat_doc(None, [held_out_item(rng, task, size)])) for _ in range(count)]
            longest = max(len(d[0]) for d in docs)
            ids = torch.tensor(
                [d[0] + [PAD] * (longest - len(d[0])) for d in docs],
                device=self.args.device,
            )
            answer = (
                torch.tensor(
                    [d[1] + [0.0] * (longest - len(d[0])) for d in docs],
                    device=self.args.device,
                )
                == 1.0
            )
            guess = self.model(input_ids=ids[:, :-1], use_cache=False).logits.argmax(-1)
            right[task] = round(((guess == ids[:, 1:]) | ~answer[:, 1:]).all(1).float().mean().item(), 2)
        return right


class Tally:
    """Mean loss per task over the answer tokens seen since the last report."""

    def __init__(self):
        self.total, self.count = torch.zeros(len(TASKS)), torch.zeros(len(TASKS))

    def add(self, ce, weight, task):
        """Count one batch."""
        chosen = (weight == 1.0).cpu()
        kind = task.cpu()[chosen]
        self.total.index_add_(0, kind, ce.float().cpu()[chosen])
        self.count.index_add_(0, kind, torch.ones(kind.numel()))

    def report(self):
        """{task: mean loss}."""
        return {t: round((self.total[i] / self.count[i]).item(), 3) for i, t in enumerate(TASKS) if self.count[i]}


def log(args, record):
    """One JSON line on screen and in log.jsonl."""
    line = json.dumps(record)
    print(line, flush=True)
    with open(args.run / "log.jsonl", "a") as f:
        f.write(line + "\n")


def main():
    """Train through the stages."""
    args = arguments()
    torch.set_num_threads(args.threads)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    torch.set_float32_matmul_precision("high")
    run, stages = Run(args), parse_stages(args.stages)
    total = stages[-1][1]
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))  # finish the step, save, leave
    tally, saved, mark, since = Tally(), time.monotonic(), time.monotonic(), run.tokens
    started = time.monotonic()
    while run.step < total:
        length, batch = shape_at(stages, run.step)
        began = time.monotonic()
        scale = lr_scale(run.step, total, args.decay)
        if args.within:
            scale = min(1.0, (1 - (began - started) / 60 / args.within) / args.decay)
        scale = agreed(-1.0 if stop else scale)
        if scale <= 0:
            break
        tally.add(*run.update(length, batch, scale))
        run.minutes += (time.monotonic() - began) / 60
        if worker():
            continue
        if run.step % args.log_steps == 0:
            speed = round((run.tokens - since) / (time.monotonic() - mark))
            log(
                args,
                {
                    "step": run.step,
                    "length": length,
                    "tokens": run.tokens,
                    "minutes": round(run.minutes, 1),
                    "tokens_per_s": speed,
                    "scale": round(scale, 3),
                    "loss": tally.report(),
                },
            )
            tally, mark, since = Tally(), time.monotonic(), run.tokens
        if run.step % args.eval_steps == 0:
            log(args, {"step": run.step, "eval": run.quick_eval()})
        if time.monotonic() - saved > args.save_minutes * 60:
            run.save()
            saved = time.monotonic()
    if not worker():
        run.save()


if __name__ == "__main__":
    main()
