"""What `symbert prepare` does, with datatrove 0.10 in an environment of its own: same filters, same tokens.

python benchmarks/prepare_datatrove.py TOKENIZER_FOLDER OUT INPUT_FOLDER WORKERS TASKS
"""

import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer

DROPPED = {
    "agressif", "adult", "cryptojacking", "dangerous_material", "phishing", "warez", "ddos", "hacking", "malware",
    "mixed_adult", "sect",
}  # fmt: skip


def keep(document: object) -> bool:
    metadata = document.metadata
    if DROPPED & set(metadata["categories"] or []):
        return False
    return 5.0 < (metadata["harmful_pp"] or 0.0) < 100_000.0 and not metadata["quality_warnings"]


def main(tokenizer_folder: str, out: str, folder: str, workers: str, tasks: str) -> None:
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(folder, text_key="content", glob_pattern="*.jsonl.zst"),
            LambdaFilter(keep),
            DocumentTokenizer(
                f"{out}/tokens", f"{tokenizer_folder}/tokenizer.json", eos_token=None, shuffle_documents=False
            ),
        ],
        workers=int(workers),
        tasks=int(tasks),
        logging_dir=f"{out}/logs",
    ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
