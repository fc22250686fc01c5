#!/usr/bin/env python3
"""A station with the fake upstream behind it: one model of each of the four providers, with prices.

As a program: starts both, runs the given command with PHAROS_URL and UPSTREAM_URL set, answers the worse exit code. With
--direct no station is started and the clients talk to the upstream itself: so they are tried before they judge.
"""
import os
import subprocess
import sys

from station import Station
from upstream import Upstream

MODELS = {"gpt": "openai", "llama": "together", "claude": "anthropic", "gem": "gemini"}
APIS = {"openai": "openai", "together": "openai", "anthropic": "anthropic", "gemini": "gemini"}
PRICES = {"openai": (2.5, 10), "together": (0.88, 0.88), "anthropic": (3, 15), "gemini": (0.3, 2.5)}
TIME_OUTS = "connect_timeout_s: 2, timeout_s: 5, silence_timeout_s: 2"


def provider_line(name, kind, upstream, more="", key=None, url=None):
    return (f"  {name}: {{api: {APIS[kind]}, base_url: \"{upstream.base_url(kind, url)}\", key: {key or 'sk-' + name}, "
            f"{TIME_OUTS}{', ' + more if more else ''}}}\n")


def model_line(model, provider, kind, upstream_model, tier="premium", more=""):
    price_in, price_out = PRICES[kind]
    return (f"  - {{id: {model}, tier: {tier}, provider: {provider}, upstream: {upstream_model}, context: 100000, "
            f"price: {{input_usd_per_mtok: {price_in}, output_usd_per_mtok: {price_out}}}{', ' + more if more else ''}}}\n")


def configuration(models, providers, rest=""):
    return "listen: 127.0.0.1:0\nmodels:\n" + "".join(models) + "providers:\n" + "".join(providers) + rest


# What the client packages are shown: every provider's model, a slow one, and some that fail.
FAULTY = {"busy": ("openai", "fault-429-retry"), "long": ("openai", "fault-context"), "broken": ("openai", "fault-500"),
          "crowded": ("anthropic", "fault-overloaded"), "torn": ("openai", "fault-cut-4"), "half": ("anthropic", "fault-cut-4")}


def clients_configuration(upstream):
    models = [model_line(model, kind, kind, f"{model}-upstream") for model, kind in MODELS.items()]
    models += [model_line(f"slow-{model}", kind, kind, "slow-20") for model, kind in MODELS.items()]
    models += [model_line(model, model, kind, upstream_model) for model, (kind, upstream_model) in FAULTY.items()]
    models += [model_line("embedder", "openai", "openai", "embed-small"), model_line("floats", "together", "together", "embed-large")]
    providers = [provider_line(kind, kind, upstream) for kind in APIS]
    providers += [provider_line(model, kind, upstream) for model, (kind, _) in FAULTY.items()]
    return configuration(models, providers)


def main():
    direct = sys.argv[1] == "--direct"
    command = sys.argv[2:] if direct else sys.argv[1:]
    with Upstream() as upstream:
        environment = {**os.environ, "UPSTREAM_URL": upstream.url}
        if direct:
            code = subprocess.run(command, env={**environment, "PHAROS_DIRECT": "1"}, check=False).returncode
        else:
            with Station(clients_configuration(upstream)) as station:
                code = subprocess.run(command, env={**environment, "PHAROS_URL": station.url}, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
