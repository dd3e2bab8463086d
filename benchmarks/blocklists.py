"""Judging URLs by UT1 lists: symbert's index against datatrove's URLFilter with the same lists, on one core.

    python -m benchmarks.blocklists LISTS --datatrove-python PYTHON [--urls 100000] [--runs 5]

LISTS is a folder of UT1 lists; PYTHON runs an environment of its own with datatrove[io], tldextract, fasteners,
pyahocorasick and regex. Both sides hold their lists in memory and take turns over the same URLs, and the clock is the
process's own CPU time, in which other processes have no part. URLs are made from the lists by a fixed seed: paths of
listed addresses on hosts of which 5 % are listed, half of them by a subdomain; 3 % are not spelled canonically.
Symbert's side spells every URL canonically and asks for host, parent domains and address; datatrove asks for the
registered domain, the host and the URL as it stands, so it may find fewer.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from blocklists.compile import compile_to
from blocklists.index import Index
from blocklists.ut1 import read_folder

SEED = 20240610
LISTED_SHARE, ODD_SHARE = 0.05, 0.03
PEER = """
import json, sys, time
from datatrove.data import Document
from datatrove.pipeline.filters.url_filter import URLFilter
from tldextract import TLDExtract

lists = json.load(open(sys.argv[1]))
judge = URLFilter(extra_domains=lists["hosts"], extra_urls=lists["addresses"], use_integrated_lists=False)
judge.tldextractor = TLDExtract(suffix_list_urls=())  # its own snapshot, since nothing may be downloaded
documents = [Document(text="", id="", metadata={"url": url}) for url in lists["urls"]]
for _ in sys.stdin:
    start = time.process_time()
    blocked = sum(judge.filter(document) is not True for document in documents)
    print(json.dumps([time.process_time() - start, blocked]), flush=True)
"""


def make_urls(hosts: list[str], addresses: list[str], count: int) -> list[str]:
    """URLs of which a known share is listed."""
    draw = random.Random(SEED)
    paths = [address.partition("/")[2] for address in addresses]
    urls = []
    for _ in range(count):
        host = draw.choice(hosts)
        if draw.random() > LISTED_SHARE:
            host = f"{host[1:4].strip('.-')}{draw.randrange(10**6)}-{host.split('.')[-2][:12]}.{host.split('.')[-1]}"
        if draw.random() < 0.5:
            host = f"www.{host}"
        url = f"https://{host}/{draw.choice(paths)}"
        if draw.random() < ODD_SHARE:
            url = draw.choice((url.replace("https", "HTTPS"), url.replace(f"{host}/", f"{host}.:443/"), f"{url}/../é"))
        urls.append(url)
    return urls


def timed(index: Index, urls: pa.Array) -> tuple[float, int]:
    """CPU seconds and the number of blocked URLs."""
    start = time.process_time()
    blocked = int(index.judge(urls).blocked.sum())
    return time.process_time() - start, blocked


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path)
    parser.add_argument("--datatrove-python", default=sys.executable)
    parser.add_argument("--urls", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    pa.set_cpu_count(1)

    categories, _ = read_folder(arguments.lists)
    hosts = [host for category in categories for host in category.hosts if not host[-1].isdigit() and "." in host]
    addresses = [address for category in categories for address in category.addresses]
    urls = make_urls(hosts, addresses, arguments.urls)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index")
        compile_to(arguments.lists, path)
        index = Index.open(path)
        entry_bytes = path.stat().st_size / len(index)
        given = Path(folder, "lists.json")
        listed = {"hosts": hosts, "addresses": [f"https://{address}" for address in addresses], "urls": urls}
        given.write_text(json.dumps(listed), "utf-8")
        results = _take_turns(index, urls, [arguments.datatrove_python, "-c", PEER, str(given)], arguments.runs)
    rates = {name: arguments.urls / statistics.median(seconds) for name, (seconds, _) in results.items()}
    print(f"{arguments.urls:,} URLs, {len(index):,} entries, {entry_bytes:.2f} bytes an entry, {arguments.runs} runs\n")
    print("| | URLs/s, one core | slowest and fastest run | blocked | ratio |\n|---|---:|---:|---:|---:|")
    for name, (seconds, blocked) in results.items():
        spread = f"{arguments.urls / max(seconds):,.0f} to {arguments.urls / min(seconds):,.0f}"
        ratio = rates[name] / rates["datatrove URLFilter"]
        print(f"| {name} | {rates[name]:,.0f} | {spread} | {blocked:,} | {ratio:.1f} |")


def _take_turns(index: Index, urls: list[str], command: list[str], runs: int) -> dict[str, Any]:
    column = pa.array(urls)
    ours: list[tuple[float, int]] = [timed(index, column)]  # a first round that is not counted
    theirs: list[tuple[float, int]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        for _ in range(runs + 1):
            peer.stdin.write("go\n")
            peer.stdin.flush()
            theirs.append(tuple(json.loads(peer.stdout.readline())))
            ours.append(timed(index, column))
        peer.stdin.close()
    return {
        name: ([seconds for seconds, _ in turns[1:]], turns[-1][1])
        for name, turns in {"symbert index": ours[:-1], "datatrove URLFilter": theirs}.items()
    }


if __name__ == "__main__":
    main()
