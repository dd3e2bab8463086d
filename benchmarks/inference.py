"""Latency of a forward pass: every operator and HybridBERT against transformers' BertModel, base size, random weights.

    python benchmarks/inference.py --batch 1 --batch 32 --length 128 --length 512 [--device cuda] [--threads 1]

All models are in memory and take turns, one forward pass each a round, so that what else the machine does meets them
alike; figures are medians over the rounds, and their ratio to BertModel's. Both sides use sdpa, fp32 and no mask. With
one thread on a CPU the clock is the process's own CPU time, in which other processes have no part.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import BertConfig, BertModel

from symbert import HYBRID_MODELS, OPERATORS, SymbertConfig, SymbertModel

PEER = "transformers BertModel"


def models(device: torch.device) -> dict[str, Any]:
    """The peer first, then every operator, then HybridBERT's models; the poolers are left out on both sides."""
    found: dict[str, Any] = {PEER: BertModel(BertConfig(), add_pooling_layer=False)}
    for operator in OPERATORS:
        found[operator] = SymbertModel(SymbertConfig.of_size("base", attention_operator=operator), False)
    for name, fields in HYBRID_MODELS.items():
        found[name] = SymbertModel(SymbertConfig(**fields), False)
    return {name: model.eval().to(device) for name, model in found.items()}


def medians(candidates: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, over interleaved rounds; the first round only warms up."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, run in candidates.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = clock()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(clock() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Measure and print one line of JSON for each batch and length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--length", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    candidates = models(device)
    for batch in options.batch or [1]:
        for length in options.length or [128, 512]:
            ids = torch.randint(1000, 30000, (batch, length), device=device)
            with torch.inference_mode():
                runs = {name: functools.partial(model, ids) for name, model in candidates.items()}
                found = medians(runs, options.rounds, device)
            facts = {
                name: {"milliseconds": round(1000 * value, 2), "ratio": round(value / found[PEER], 3)}
                for name, value in found.items()
            }
            print(json.dumps({"batch": batch, "length": length, "device": str(device), "median": facts}), flush=True)


if __name__ == "__main__":
    main()
