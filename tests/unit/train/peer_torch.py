"""What peer.h asks of PyTorch. `train FOLDER`: a decoder of the llama architecture, trained as the manifest says.
`layers FOLDER`: outputs and gradients of single layers. Arrays are raw little-endian files."""
import math
import os
import sys
import warnings

import numpy
import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=UserWarning)  # SequentialLR calls its parts in a deprecated way
torch.set_num_threads(1)


def load(folder, name, kind=numpy.float32):
    return torch.from_numpy(numpy.fromfile(os.path.join(folder, name), dtype=kind).copy())


def save(folder, name, tensor):
    tensor.detach().contiguous().numpy().tofile(os.path.join(folder, name))


def manifest(folder):
    """A dictionary a case; params as a list."""
    for block in open(os.path.join(folder, "manifest"), encoding="ascii").read().strip().split("\n\n"):
        case = {"params": []}
        for line in block.splitlines():
            key, value = line.split(" ", 1)
            if key == "param":
                name, *numbers = value.split()
                case["params"].append((name, *map(int, numbers)))
            else:
                try:
                    case[key] = int(value) if value.lstrip("-").isdigit() else float(value)
                except ValueError:
                    case[key] = value
        yield case


# ---- Layers, written from their papers ----

def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotary(x, base, neox):
    """x [batch][time][heads][head_dim]"""
    half = x.shape[-1] // 2
    angle = torch.outer(torch.arange(x.shape[1], dtype=torch.float64),
                        base ** (-torch.arange(half, dtype=torch.float64) / half))
    cos, sin = angle.cos().to(x.dtype)[:, None], angle.sin().to(x.dtype)[:, None]
    a, b = (x[..., :half], x[..., half:]) if neox else (x[..., 0::2], x[..., 1::2])
    turned = a * cos - b * sin, a * sin + b * cos
    return torch.cat(turned, -1) if neox else torch.stack(turned, -1).flatten(-2)


def attention(q, k, v, causal):
    """q [batch][time][heads][head_dim]; k, v with as many heads or fewer"""
    share = q.shape[2] // k.shape[2]
    k, v = (each.repeat_interleave(share, 2).transpose(1, 2) for each in (k, v))
    scores = q.transpose(1, 2) @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def scan(x, delta, b, c, a_log, skip):
    """x, delta [batch][time][channels]; b, c [batch][time][states]"""
    step, a = F.softplus(delta), -a_log.exp()
    h, ys = torch.zeros(x.shape[0], *a.shape), []
    for t in range(x.shape[1]):
        h = (step[:, t, :, None] * a).exp() * h + (step[:, t] * x[:, t])[..., None] * b[:, t, None]
        ys.append((h * c[:, t, None]).sum(-1) + skip * x[:, t])
    return torch.stack(ys, 1)


# ---- The decoder ----

class Decoder:
    def __init__(self, case, flat):
        self.case = case
        self.p = {}
        for name, rows, cols, offset in case["params"]:
            data = flat[offset:offset + rows * cols].clone()
            self.p[name] = (data.view(rows, cols) if rows > 1 else data).requires_grad_()

    def losses(self, tokens, targets):
        """-log p of each target [batch][time], 0 where there is none"""
        case, p = self.case, self.p
        x = p["token_embd.weight"][tokens]
        batch, time, d = x.shape
        size = d // case["heads"]
        for layer in range(case["layers"]):
            w = lambda name: p[f"blk.{layer}.{name}.weight"]
            n = rms_norm(x, w("attn_norm"), case["eps"])
            q, k, v = ((n @ w(name).T).view(batch, time, -1, size) for name in ("attn_q", "attn_k", "attn_v"))
            q, k = (rotary(each, case["rope_base"], case["neox"]) for each in (q, k))
            x = x + attention(q, k, v, True).reshape(batch, time, d) @ w("attn_output").T
            n = rms_norm(x, w("ffn_norm"), case["eps"])
            x = x + (F.silu(n @ w("ffn_gate").T) * (n @ w("ffn_up").T)) @ w("ffn_down").T
        output = p["token_embd.weight" if case["tied"] else "output.weight"]
        logits = rms_norm(x, p["output_norm.weight"], case["eps"]) @ output.T
        return F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-1, reduction="none")


def train(folder):
    case = next(manifest(folder))
    shape = case["steps"], case["batch"], case["time"]
    tokens, targets = (load(folder, name, numpy.int32).long().view(shape) for name in ("tokens", "targets"))
    quality = load(folder, "quality").view(shape[:2]).clamp(0.05, 1)
    flat = load(folder, "weights")
    model = Decoder(case, flat)
    matrices = [w for w in model.p.values() if w.dim() == 2]
    vectors = [w for w in model.p.values() if w.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": case["decay"]},
                                   {"params": vectors, "weight_decay": 0.0}],
                                  lr=case["peak"], betas=(0.9, case["beta2"]), eps=1e-8)
    warmup, steps = case["warmup"], case["steps"]
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, milestones=[warmup - 1], schedulers=[
        torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1, total_iters=warmup - 1),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup, eta_min=case["floor"])])
    history = []
    for step in range(steps):
        losses = model.losses(tokens[step], targets[step])
        counted = (targets[step] >= 0).float()
        if case["quality"]:
            means = losses.sum(1) / counted.sum(1)
            loss = (quality[step] * means).sum() / quality[step].sum()
        else:
            loss = losses.sum() / counted.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.p.values(), case["norm_max"])
        optimizer.step()
        schedule.step()
        history.append(loss.item())
    for name, rows, cols, offset in case["params"]:
        flat[offset:offset + rows * cols] = model.p[name].detach().flatten()
    save(folder, "losses", torch.tensor(history, dtype=torch.float64))
    save(folder, "trained", flat)


# ---- Single layers: the cases of test_layers.c; each takes its arrays and gives y ----

def embedding(c, w):
    return F.embedding(c["tokens"][:c["in"]], w.view(-1, c["out"]))


def linear(c, x, w, bias):
    return F.linear(x.view(-1, c["in"]), w.view(-1, c["in"]), bias)


def norm(c, x, w, bias=None):
    x = x.view(-1, c["in"])
    return F.layer_norm(x, x.shape[1:], w, bias, 1e-5) if c["flag"] else rms_norm(x, w, 1e-5)


def turned(c, x):
    return rotary(x.view(c["batch"], c["time"], c["heads"], -1), 100, c["flag"])


def attended(c, *qkv):
    q, k, v = (each.view(c["batch"], c["time"], -1, c["head_dim"]) for each in qkv)
    return attention(q, k, v, c["flag"])


def convolution(c, x, w, bias):
    kernel, stride, pad = c["head_dim"], c["heads"], c["kv_heads"]
    x = x.view(c["batch"], c["time"], c["in"]).transpose(1, 2)
    w = w.view(c["out"], 1, kernel) if c["flag"] else w.view(c["out"], kernel, c["in"]).transpose(1, 2)
    time_out = c["out_len"] // c["batch"] // c["out"]
    x = F.pad(x, (pad, (time_out - 1) * stride + kernel - pad - c["time"]))  # a negative one cuts
    return F.conv1d(x, w, bias, stride, groups=c["in"] if c["flag"] else 1).transpose(1, 2)


def mean_pool(c, x):
    return x.view(c["batch"], c["time"], -1).mean(1)


def softmax_pool(c, x, w):
    x = x.view(c["batch"], c["time"], -1)
    return ((x @ w).softmax(1)[..., None] * x).sum(1)


def scanned(c, x, delta, b, cs, a_log, skip):
    x, delta, b, cs = (each.view(c["batch"], c["time"], -1) for each in (x, delta, b, cs))
    return scan(x, delta, b, cs, a_log.view(c["in"], c["out"]), skip)


def mamba(c, u, w):
    d, inner, states, rank, kernel = c["in"], c["out"], 3, 2, 4
    shapes = [(2 * inner, d), (inner, 1, kernel), (inner,), (rank + 2 * states, inner), (inner, rank), (inner,),
              (inner, states), (inner,), (d, inner)]
    parts = [part.view(shape) for part, shape in zip(w.split([math.prod(shape) for shape in shapes]), shapes)]
    in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, a_log, skip, out_proj = parts
    x, z = (u.view(c["batch"], c["time"], d) @ in_proj.T).chunk(2, -1)
    x = F.conv1d(F.pad(x.transpose(1, 2), (kernel - 1, 0)), conv, conv_bias, groups=inner).transpose(1, 2)
    x = F.silu(x)
    delta, b, cs = (x @ x_proj.T).split([rank, states, states], -1)
    return (scan(x, F.linear(delta, dt_proj, dt_bias), b, cs, a_log, skip) * F.silu(z)) @ out_proj.T


def output(c, x, w):
    logits = x.view(-1, c["in"]) @ w.view(-1, c["in"]).T
    return F.cross_entropy(logits, c["tokens"][:c["batch"]], reduction="none")


LAYERS = {
    "embedding": embedding, "linear": linear, "norm": norm, "rotary": turned, "attention": attended,
    "swiglu": lambda c, gate, up: F.silu(gate) * up, "gelu": lambda c, x: F.gelu(x, approximate="tanh"),
    "silu": lambda c, x: F.silu(x), "convolution": convolution, "mean_pool": mean_pool,
    "softmax_pool": softmax_pool, "scan": scanned, "mamba": mamba, "output": output,
}


def layers(folder):
    tokens = load(folder, "tokens", numpy.int32).long()
    for number, case in enumerate(manifest(folder)):
        case["tokens"] = tokens
        arrays = [load(folder, f"{number}.{i}").requires_grad_() for i in range(case["arrays"])]
        y = LAYERS[case["layer"]](case, *arrays)
        (y.flatten() * load(folder, f"{number}.dy")).sum().backward()
        save(folder, f"{number}.y", y)
        for i, array in enumerate(arrays):
            save(folder, f"{number}.d{i}", array.grad)


{"train": train, "layers": layers}[sys.argv[1]](sys.argv[2])
