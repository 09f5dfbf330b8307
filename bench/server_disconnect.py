"""How soon does the server stop working for a client that has gone?

    python bench/server_disconnect.py --model FILE --threads N [--count 20] [--tokens 200]

Each client asks for a grounded caption of another picture and closes its connection at a random instant of the answer:
while the picture is encoded, the prompt computed or tokens decoded. The latency is the time from there to the moment at
which /metrics says that no answer is being computed; the polling is included. Afterwards an answer must be as before.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
import signal
import socket
import statistics
import sys
import time
import urllib.request

from server_soak import request, start

from kosmos_edge.bench.workload import jpeg_bytes, synthetic_photo


def body(number: int, tokens: int) -> bytes:
    """A request about a picture that no other was about."""
    picture = jpeg_bytes(synthetic_photo(number, (640, 480)))
    return json.dumps({"image": base64.b64encode(picture).decode(), "max_tokens": tokens}).encode()


def busy(port: int) -> int:
    """Answers that are being computed, and requests that wait."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.findall(r"^kosmos_edge_(?:running|waiting) ([\d.]+)", text, re.M)
    assert len(found) == 2, text
    return int(sum(map(float, found)))


def leave(port: int, content: bytes, after: float) -> float | None:
    """Seconds from closing the connection to an idle server; None: the answer was done before."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = f"POST /v1/ground HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        client.sendall(head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        time.sleep(after)
        if busy(port) == 0:
            return None
        closed = time.perf_counter()
    while busy(port):
        time.sleep(0.001)
    return time.perf_counter() - closed


def main() -> int:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=200)
    given = parser.parse_args()
    process, port = start(given.model, given.threads)
    try:
        begun = time.perf_counter()
        before = request(port, "/v1/ground", body(0, 8))
        whole = 2 * (time.perf_counter() - begun)
        dice, times = random.Random(1), []
        for number in range(1, given.count + 1):
            took = leave(port, body(number, given.tokens), dice.uniform(0.02, whole))
            if took is not None:
                times.append(took)
        after = request(port, "/v1/ground", body(0, 8))
        assert before[0] == after[0] == 200, (before, after)
        same = json.loads(before[1])["text"] == json.loads(after[1])["text"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    if not times:
        raise SystemExit("every answer was done before its client left: more --tokens, or a larger model")
    print(f"{len(times)} of {given.count} clients left during their answer")
    print(f"idle after {1000 * statistics.median(times):.0f} ms (median), {1000 * max(times):.0f} ms (most)")
    print(f"the next answer is {'as before' if same else 'ANOTHER ONE'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
