"""How much faster is the server for several clients at once than for one after the other?

    python bench/server_clients.py --model FILE --threads N [--clients 8] [--count 48] [--tokens 32]

Each request is a grounded caption of another picture, of `tokens` tokens at most. One client sends `count` of them,
then `clients` send as many at once, by turns in `rounds`; prints images per second of both and their quotient.
"""

from __future__ import annotations

import argparse
import base64
import json
import signal
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from server_soak import request, start

from kosmos_edge.bench.workload import jpeg_bytes, synthetic_photo


def bodies(first: int, count: int, tokens: int) -> list[bytes]:
    """Requests about pictures that no request before was about."""
    found = []
    for number in range(first, first + count):
        picture = jpeg_bytes(synthetic_photo(number, (640, 480)))
        fields = {"image": base64.b64encode(picture).decode(), "max_tokens": tokens}
        found.append(json.dumps(fields).encode())
    return found


def rate(port: int, clients: int, work: list[bytes]) -> float:
    """Images per second."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda body: request(port, "/v1/ground", body)[0], work))
    spent = time.perf_counter() - begun
    assert set(answers) == {200}, answers
    return len(work) / spent


def main() -> int:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    process, port = start(given.model, given.threads)
    try:
        rate(port, given.clients, bodies(0, given.clients, given.tokens))  # warm-up
        one, many, first = [], [], 10_000
        for _ in range(given.rounds):
            for clients, rates in ((1, one), (given.clients, many)):
                rates.append(rate(port, clients, bodies(first, given.count, given.tokens)))
                first += given.count
        alone, together = statistics.median(one), statistics.median(many)
        print(f"1 client: {alone:.2f} images/s; {given.clients} clients: {together:.2f} images/s")
        print(f"{together / alone:.2f} times as many")
        process.send_signal(signal.SIGTERM)
        return process.wait(30)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
