"""Latency and throughput of a forward pass: every operator and HybridBERT against transformers' BertModel.

    python benchmarks/inference.py [--batch 1 --batch 32] [--length 128 --length 512] [--device cuda] [--threads 1]

Base size, random weights, sdpa, fp32 and no mask on both sides. All models are in memory and take turns, one forward
pass each a round, so that what else the machine does meets them alike; figures are medians over the rounds, and their
ratio to BertModel's. Before the rounds each model warms up on one sequence of the same length. A batch and length gets
nine rounds, or as many as begin within a minute: one forward pass of 32 sequences of 512 tokens takes half a minute on
one core, so all of it takes about eight minutes there. With one thread on a CPU the clock is the process's own CPU
time, in which other processes have no part.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
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


def seconds_of(candidates: Mapping[str, Any], ids: Tensor, rounds: int, budget: float) -> dict[str, list[float]]:
    """Seconds of each candidate in each interleaved round; no round begins after `budget` seconds, but one does."""
    device = ids.device
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock: Callable[[], float] = time.process_time if alone else time.perf_counter
    for model in candidates.values():
        model(ids[:1])
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    began = time.perf_counter()
    while not seconds[PEER] or (len(seconds[PEER]) < rounds and time.perf_counter() - began < budget):
        for name, model in candidates.items():
            _wait(device)
            started = clock()
            model(ids)
            _wait(device)
            seconds[name].append(clock() - started)
    return seconds


def facts(seconds: Mapping[str, list[float]], batch: int, length: int) -> dict[str, dict[str, float]]:
    """For each candidate its median as milliseconds a batch, sequences and tokens a second, and ratio to the peer."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        name: {
            "milliseconds": round(1000 * median, 2),
            "sequences_per_second": round(batch / median, 3),
            "tokens_per_second": round(batch * length / median, 1),
            "ratio": round(median / medians[PEER], 3),
        }
        for name, median in medians.items()
    }


def table(measured: Mapping[tuple[int, int], Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """Lines of a Markdown table: latency of single sequences, throughput of batches, and each one's ratio of times."""
    head = ["model"]
    for batch, length in measured:
        head += [f"{batch} × {length}, {'ms' if batch == 1 else 'tokens/s'}", "ratio"]
    yield f"| {' | '.join(head)} |"
    yield f"|---{'|---:' * (len(head) - 1)}|"
    for name in next(iter(measured.values())):
        cells = []
        for (batch, _), found in measured.items():
            one = found[name]
            cells += [f"{one['milliseconds' if batch == 1 else 'tokens_per_second']:,.0f}", f"{one['ratio']:.2f}"]
        yield f"| `{name}` | {' | '.join(cells)} |"


def main() -> None:
    """Measure; print one line of JSON for each batch and length as it is done, and a table of them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, action="append", help="sequences in a forward pass (1 and 32)")
    parser.add_argument("--length", type=int, action="append", help="tokens in a sequence (128 and 512)")
    parser.add_argument("--rounds", type=int, default=9, help="at most so many")
    parser.add_argument("--seconds", type=float, default=60, help="no round begins later, but the first does")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    candidates, measured = models(device), {}
    for batch, length in itertools.product(options.batch or [1, 32], options.length or [128, 512]):
        ids = torch.randint(1000, 30000, (batch, length), device=device)
        with torch.inference_mode():
            seconds = seconds_of(candidates, ids, options.rounds, options.seconds)
        measured[batch, length] = facts(seconds, batch, length)
        shape = {"batch": batch, "length": length, "device": str(device), "rounds": len(seconds[PEER])}
        print(json.dumps({**shape, "median": measured[batch, length]}), flush=True)
    print("\n".join(table(measured)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
