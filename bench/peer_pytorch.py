#!/usr/bin/env python3
"""Measures PyTorch training the decoders of `pharos bench train`, in FP32, the way it measures ours.

Usage: peer_pytorch.py SHAPE BATCH TIME THREADS SAMPLES, with SHAPE the JSON object that `pharos bench train --json`
prints for a test (vocab, d, layers, heads, ff). One line of JSON. A step is forward, backward, clipping and AdamW. A
sample whose threads did not have their cores for 90 % of the time is thrown away, as ours are; --cpu-time as a sixth
argument divides by CPU time over threads instead.
"""
import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as functional

QUIET_MIN = 0.9
TRIES_PER_SAMPLE = 3
SAMPLE_SECONDS = 0.4


class RMSNorm(torch.nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(d))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rotary_tables(time_steps, head_dim):
    angles = torch.arange(time_steps)[:, None] * 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)[None]
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """x [batch][heads][time][head_dim], halves rotated against each other."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def attend(q, k, v, hidden):
    if hasattr(functional, "scaled_dot_product_attention"):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q @ k.transpose(-2, -1)) * (1 / math.sqrt(q.shape[-1]))
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v


class Layer(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        d, ff = shape["d"], shape["ff"]
        self.heads = shape["heads"]
        self.attn_norm, self.ffn_norm = RMSNorm(d), RMSNorm(d)
        self.qkv = torch.nn.Linear(d, 3 * d, bias=False)
        self.out = torch.nn.Linear(d, d, bias=False)
        self.gate_up = torch.nn.Linear(d, 2 * ff, bias=False)
        self.down = torch.nn.Linear(ff, d, bias=False)

    def forward(self, x, cos, sin, hidden):
        batch, steps, d = x.shape
        q, k, v = (part.view(batch, steps, self.heads, -1).transpose(1, 2)
                   for part in self.qkv(self.attn_norm(x)).split(d, -1))
        mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, hidden)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, steps, d))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, -1)
        return x + self.down(functional.silu(gate) * up)


class Decoder(torch.nn.Module):
    def __init__(self, shape, steps):
        super().__init__()
        self.embedding = torch.nn.Embedding(shape["vocab"], shape["d"])
        self.layers = torch.nn.ModuleList(Layer(shape) for _ in range(shape["layers"]))
        self.norm = RMSNorm(shape["d"])
        for p in self.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=0.02)
        self.cos, self.sin = rotary_tables(steps, shape["d"] // shape["heads"])
        self.hidden = torch.ones(steps, steps, dtype=torch.bool).triu(1)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, self.hidden)
        logits = self.norm(x) @ self.embedding.weight.t()
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def main():
    shape = json.loads(sys.argv[1])
    batch, steps, threads, samples = map(int, sys.argv[2:6])
    by_cpu = sys.argv[6:] == ["--cpu-time"]
    torch.manual_seed(1)
    torch.set_num_threads(threads)
    model = Decoder(shape, steps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = torch.randint(shape["vocab"], (batch, steps))
    targets = tokens.roll(-1, 1)

    def step():
        optimizer.zero_grad()
        model(tokens, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for _ in range(2):
        step()
    start = time.perf_counter()
    step()
    count = int(SAMPLE_SECONDS / (time.perf_counter() - start)) + 1
    speeds, best, taken = [], 0.0, 0
    while len(speeds) < samples and taken < samples * TRIES_PER_SAMPLE:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            step()
        wall = time.perf_counter() - wall
        used = (time.process_time() - cpu) / threads
        taken += 1
        best = max(best, used / wall)
        if used / wall >= QUIET_MIN or by_cpu:
            speeds.append(count * batch * steps / (used if by_cpu else wall))
    print(json.dumps({"peer": "PyTorch", "version": torch.__version__, "params": sum(p.numel() for p in model.parameters()),
                      "tokens_per_s": statistics.median(speeds) if speeds else None,
                      "samples_kept": len(speeds), "samples_taken": taken, "best_cpu_share": best}))


main()
