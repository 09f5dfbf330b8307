"""kosmos-edge serve: its start, signals and ends, in a process of its own."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.api_model import long_file, tiny_file
from helpers.http_server import EXAMPLES, chat_body

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@contextlib.contextmanager
def served(*options, model="nano", env=None):
    """(process, url) of a started server."""
    words = [sys.executable, "-P", "-m", "kosmos_edge", "serve", "-m", str(model), "-t", "1", "--port", "0", *options]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    try:
        for line in process.stderr:
            found = re.search(r"is served at (http://\S+)", line)
            if found:
                break
        else:
            raise AssertionError(f"it did not start: {process.wait(10)}")
        yield process, found.group(1)
    finally:
        process.kill()
        process.communicate()


def post(url, body, headers=None):
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        raise


def slow(url, **fields):
    body = {"messages": [{"role": "user", "content": "which?"}], "choices": ["a dog " * 7000], "logprobs": True}
    body["choices"] = [body["choices"][0].strip()]
    return post(url, {**body, **fields})


def running(url):
    with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
        return json.load(answer)["running"]


def in_background(call):
    """A thread that makes the call, and the list that its outcome goes to."""
    outcomes = []

    def work():
        try:
            outcomes.append(call())
        except (OSError, ValueError) as error:
            outcomes.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcomes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_its_answers(number):
    with served() as (process, url):
        calls = [in_background(lambda: post(url, chat_body(EXAMPLES[0]))) for _ in range(4)]
        time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == 0
        for thread, outcomes in calls:
            thread.join(30)
            # Answered, or not yet taken in: never cut off in the middle.
            assert isinstance(outcomes[0], dict | urllib.error.URLError), outcomes
        assert process.stdout.read() == ""


def test_a_second_signal_ends_it_at_once_and_drain_bounds_the_first():
    for options, signals in (((), 2), (("--drain", "0.2"), 1)):
        with served(*options, model=long_file()) as (process, url):
            thread, outcomes = in_background(lambda url=url: slow(url))
            while not running(url):
                time.sleep(0.02)
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
            begun = time.monotonic()
            assert process.wait(30) == 0 and time.monotonic() - begun < 10
            thread.join(30)
            assert isinstance(outcomes[0], OSError | ValueError)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP")
def test_sighup_loads_the_file_again(tmp_path):
    path = tmp_path / "model.gguf"
    shutil.copy(long_file(), path)
    with served(model=path) as (process, url):
        new = tmp_path / "new.gguf"
        shutil.copy(tiny_file(), new)
        new.replace(path)
        process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while True:
            with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
                if b"kosmos_edge_model_loads 2.0" in answer.read():
                    break
            assert time.monotonic() < end
            time.sleep(0.05)
        assert process.poll() is None


def test_the_key_of_the_environment_and_of_a_file(tmp_path):
    (tmp_path / "key").write_text("key-in-a-file\n")
    for options, env, key in (
        ((), {"KOSMOS_EDGE_API_KEY": "key-of-the-environment"}, "key-of-the-environment"),
        (("--api-key-file", str(tmp_path / "key")), {}, "key-in-a-file"),
    ):
        with served(*options, env=env) as (_, url):
            with pytest.raises(urllib.error.HTTPError) as caught:
                post(url, chat_body("What is a dog?"))
            assert caught.value.code == 401
            assert post(url, chat_body("What is a dog?"), {"Authorization": f"Bearer {key}"})["choices"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--host", "0.0.0.0"], 2, "API key"),
        (["--media-path", "/no/such/folder"], 2, "no folder"),
        (["--port", "70000"], 2, "70000"),
        (["-m", "no/such/file.gguf"], 1, "no/such/file.gguf"),
        (["--keep-alive", "0"], 2, "keep-alive"),
    ],
)
def test_a_start_that_is_refused(options, code, says):
    words = [sys.executable, "-P", "-m", "kosmos_edge", "serve", "-t", "1", "--port", "0", *options]
    env = {name: value for name, value in os.environ.items() if not name.startswith("KOSMOS_EDGE_")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_port_that_is_taken():
    with served() as (_, url):
        port = url.rpartition(":")[2]
        words = [sys.executable, "-P", "-m", "kosmos_edge", "serve", "-m", "nano", "-t", "1", "--port", port]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "address already in use" in done.stderr and "Traceback" not in done.stderr


def test_the_log_has_no_word_of_a_request():
    with served("--verbose") as (process, url):
        post(url, chat_body(EXAMPLES[0], "a secret question of the test"))
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=30)
        assert "POST /v1/chat/completions" in log and "200" in log
        assert "secret" not in log and "base64" not in log and out == ""


def test_with_and_without_the_page():
    for options, kind in (((), "text/html"), (("--no-page",), "text/plain")):
        with served(*options) as (_, url), urllib.request.urlopen(f"{url}/", timeout=10) as answer:
            assert answer.headers.get_content_type() == kind
