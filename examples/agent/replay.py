"""An endpoint of OpenAI's form that replays a dialogue from a file, for examples without a language model.

    python examples/agent/replay.py examples/agent/dialogue.json

prints its address and replays the dialogue again and again.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def serve(dialogue: str | Path) -> str:
    """Starts the endpoint in a thread; -> its address. dialogue: a JSON file with a list of chat completions."""
    replies = itertools.cycle(json.loads(Path(dialogue).read_text(encoding="utf-8")))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                body = json.dumps(next(replies)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


if __name__ == "__main__":
    print(serve(sys.argv[1]), flush=True)
    threading.Event().wait()
