"""Pre-training at length 512, side by side: transformers' Trainer, in its default precision and in bf16, and symbert.

    symbert prepare ../shared/data/oscar2301/en_meta/en_meta_part_6.jsonl.zst --out corpus ...
    pip install accelerate          # which transformers' Trainer needs, and symbert does not
    python benchmarks/pretrain.py --data corpus

Each contender is a process of its own that is told to take the steps of a round and then waits, so that rounds can be
interleaved on a machine whose load changes. Reported are the medians over the rounds, and their ratios. The Trainer
is set up as transformers' run_mlm example does: BertForMaskedLM, DataCollatorForLanguageModeling, every position
predicted. All three see batches of the same size from the same corpus, with dropout 0.1, AdamW and clipping.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONTENDERS = {"trainer": "transformers Trainer", "trainer-bf16": "transformers Trainer, bf16", "symbert": "symbert"}
LENGTH = 512


class Rounds:
    """The contender's side: measures steps between two orders of the conductor."""

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.device, self.taken = steps, device, 0

    def begin(self) -> None:
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()
        self._synchronize()
        self.started = time.perf_counter()

    def step_taken(self) -> None:
        self.taken += 1
        if self.taken % self.steps == 0:
            self._synchronize()
            seconds = time.perf_counter() - self.started
            print(json.dumps({"seconds": seconds, "memory": self._memory()}), flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            self.started = time.perf_counter()

    def _synchronize(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def _memory(self) -> int:
        if self.device == "cuda":
            import torch

            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_trainer(options: argparse.Namespace, rounds: Rounds) -> None:
    import datasets
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    from train.recipe import load_recipe

    shape = load_recipe(f"bert-{options.size}-original").model.model_dump()
    set_seed(1)
    fields = BertConfig().to_dict().keys() & shape.keys()
    model = BertForMaskedLM(BertConfig(**{name: shape[name] for name in fields}))
    tokenizer = AutoTokenizer.from_pretrained(options.data / "tokenizer")

    class Conductor(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            rounds.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            rounds.step_taken()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=10**6,
            per_device_train_batch_size=options.batch_size,
            learning_rate=1e-4,
            warmup_steps=10_000,
            weight_decay=0.01,
            bf16=options.contender == "trainer-bf16",
            use_cpu=options.device == "cpu",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        Trainer(
            model,
            arguments,
            train_dataset=datasets.load_from_disk(options.data)["train"],
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
            callbacks=[Conductor()],
        ).train()


def run_symbert(options: argparse.Namespace, rounds: Rounds) -> None:
    from train.corpus import open_corpus
    from train.cpu import keep_freed_memory
    from train.data import Masking, TrainingOrder
    from train.device import find_device, with_precision
    from train.loop import Trainer, TrainingBatches
    from train.predict import PRECISIONS
    from train.preflight import flops_per_token, matrix_rate
    from train.pretrain import first_model
    from train.recipe import load_recipe

    device = find_device(options.device)
    assignments = [f"training.batch_size={options.batch_size}"]
    recipe = with_precision(load_recipe(f"bert-{options.size}-{options.operator}", assignments=assignments), device)
    corpus = open_corpus(options.data)
    masking = Masking(**recipe.masking.model_dump(), vocabulary=corpus.vocabulary)
    order = TrainingOrder(len(corpus.train), 1)
    batches = TrainingBatches(corpus.train, order, masking, recipe.training.batch_size)
    if device.type == "cpu":
        keep_freed_memory()
    trainer = Trainer(first_model(recipe), recipe, device)
    rate = matrix_rate(device, PRECISIONS[recipe.training.precision])
    print(json.dumps({"flops_per_token": flops_per_token(recipe), "matrix_rate": rate}), flush=True)
    rounds.begin()
    data_seconds = 0.0
    for step in range(1, 10**6):
        before = time.perf_counter()
        batch = batches(step)
        data_seconds += time.perf_counter() - before
        trainer.step(step, batch)
        if step % options.steps == 0:
            print(json.dumps({"data_seconds": data_seconds}), flush=True)
            data_seconds = 0.0
        rounds.step_taken()


def conduct(options: argparse.Namespace) -> dict[str, Any]:
    """Start the contenders, let them take turns, and return seconds and memory of every round."""
    words = [
        word
        for name in ("data", "size", "batch_size", "steps", "device", "operator")
        for word in _option(options, name)
    ]
    processes = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--contender", name, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for name in options.contenders
    }
    found: dict[str, Any] = {name: {"seconds": [], "data_seconds": []} for name in processes}
    for name, process in processes.items():
        _await(process, "ready", found[name])
    for number in range(options.rounds + 1):  # the first warms up and is not counted
        for name, process in processes.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            answer = _await(process, "seconds", found[name])
            if number:
                found[name]["seconds"].append(answer["seconds"])
            print(f"round {number} {name}: {answer['seconds']:.2f} s", file=sys.stderr, flush=True)
            found[name]["memory"] = answer["memory"]
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return found


def _option(options: argparse.Namespace, name: str) -> list[str]:
    return [f"--{name.replace('_', '-')}", str(getattr(options, name))]


def _await(process: subprocess.Popen[str], key: str, facts: dict[str, Any]) -> dict[str, Any]:
    for line in process.stdout:
        if not line.startswith("{"):
            continue
        answer = json.loads(line)
        if key in answer:
            return answer
        for name, value in answer.items():
            if name == "data_seconds":
                facts[name].append(value)
            elif name != "ready":
                facts[name] = value
    raise SystemExit(f"a contender ended with {process.wait()}")


def table(found: dict[str, Any], options: argparse.Namespace) -> str:
    """The result as Markdown."""
    tokens = options.steps * options.batch_size * LENGTH
    medians = {name: statistics.median(facts["seconds"]) for name, facts in found.items()}
    lines = ["| | s/step | tokens/s | peak memory | symbert's speed-up |", "|---|---|---|---|---|"]
    for name, facts in found.items():
        lines.append(
            f"| {CONTENDERS[name]} | {medians[name] / options.steps:.2f} | {tokens / medians[name]:,.0f} | "
            f"{facts['memory'] / 2**30:.2f} GiB | {medians[name] / medians['symbert']:.2f} |"
        )
    ours = found["symbert"]
    utilisation = tokens / medians["symbert"] * ours["flops_per_token"] / ours["matrix_rate"]
    share = sum(ours["data_seconds"][1:]) / sum(ours["seconds"])
    lines += [
        "",
        f"symbert: MFU {utilisation:.0%} of {ours['matrix_rate'] / 1e9:,.0f} GFLOP/s; data path {share:.2%} of a step.",
    ]
    lines.append(
        f"{platform.processor() or platform.machine()}, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a corpus of bert-base-uncased in rows of 512")
    parser.add_argument("--size", default="small", choices=["small", "base"])
    parser.add_argument("--operator", default="original", help="symbert's; the Trainer's is always BERT's")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if options.contender is None:
        print(table(conduct(options), options))
    elif options.contender == "symbert":
        run_symbert(options, Rounds(options.steps, options.device))
    else:
        run_trainer(options, Rounds(options.steps, options.device))


if __name__ == "__main__":
    main()
