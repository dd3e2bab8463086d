"""The floor under `symbert prepare`: decompress and parse alone, by its own reader.

python benchmarks/prepare_floor.py FILE...
"""

import sys
from pathlib import Path

from oscar_prep.inputs import InputFile
from oscar_prep.parse import parse
from oscar_prep.read import ShardReader

documents = 0
for name in sys.argv[1:]:
    with ShardReader(InputFile(Path(name), name)) as reader:
        for block in reader.blocks():
            documents += parse(block).documents.num_rows
print(documents)
