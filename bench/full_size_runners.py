"""The programs that full_size.py measures: one process per model and library, told what to do over pipes.

`python bench/full_size_runners.py KIND MODEL THREADS PICTURE PROMPT` loads a model, prints a line of JSON with what
loading took, then answers each line "measure TOKENS" on stdin with one line of JSON. KIND is "ours" (MODEL: a GGUF
file) or the dtype of transformers, "bfloat16" or "float32" (MODEL: a folder). A process is idle while others measure.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def memory_of(pid: int | str = "self") -> dict[str, int]:
    """RssAnon, RssFile and VmHWM of a process in bytes (Linux)."""
    wanted = ("RssAnon", "RssFile", "VmHWM")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(fields[name].split()[0]) * 1024 for name in wanted if name in fields}


class Ours:
    """kosmos_edge's engine."""

    def __init__(self, model: str, threads: int) -> None:
        from kosmos_edge import _core

        self.core = _core
        self.engine = _core.Engine(model, threads=threads, drafts="off")
        self.about = f"{self.engine.isa}, {self.engine.threads} threads"

    def caption(self, picture: Path, prompt: str, tokens: int) -> dict:
        """Decode, encode, prefill and decode one answer; milliseconds of each part."""
        from PIL import Image

        start = time.perf_counter()
        rgb = Image.open(picture).convert("RGB")
        image = self.engine.encode_image(rgb.tobytes(), *rgb.size)
        encoded = time.perf_counter()
        params = self.core.GenerateParams()
        params.max_tokens, params.no_repeat_ngram_size = tokens, 3
        first: list[float] = []  # when each token came

        def on_token(token: int, logprob: float) -> None:
            first.append(time.perf_counter())

        answer = self.engine.generate([("image", image), ("tags", prompt)], params, on_token)
        end = time.perf_counter()
        return {
            "encode_ms": 1e3 * (encoded - start),
            "prefill_ms": 1e3 * (first[0] - encoded),
            "first_token_ms": 1e3 * (first[0] - start),
            "decode_tokens_per_s": (len(answer.token_ids) - 1) / (end - first[0]),
            "total_ms": 1e3 * (end - start),
            "prompt_tokens": len(answer.prompt_ids),
            "ids": answer.token_ids,
        }


class Theirs:
    """transformers, with the calls of the model card: processor, then generate()."""

    def __init__(self, model: str, threads: int, dtype: str) -> None:
        import torch

        sys.path.insert(0, str(HERE.parent / "tests"))
        from helpers.hf_model import HfModel

        torch.set_num_threads(threads)
        self.torch = torch
        self.hf = HfModel(model, getattr(torch, dtype))
        self.about = f"torch {torch.__version__}, {torch.get_num_threads()} threads"

    def caption(self, picture: Path, prompt: str, tokens: int) -> dict:
        """As Ours.caption. The first token is generate() with max_new_tokens 1; decoding is what more tokens cost."""
        from PIL import Image

        model, torch = self.hf.model, self.torch

        def run(count: int) -> tuple[float, float, float, list[int], int]:
            start = time.perf_counter()
            inputs = self.hf.processor(text=prompt, images=Image.open(picture).convert("RGB"), return_tensors="pt")
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            with torch.no_grad():
                features = model.vision_model(inputs.pop("pixel_values"))[0]
                features = torch.nn.functional.normalize(model.vision_model.model.post_layernorm(features), dim=-1)
                vectors = model.image_to_text_projection(features)[0]
            encoded = time.perf_counter()
            out = model.generate(
                image_embeds=vectors, **inputs, max_new_tokens=count, do_sample=False, no_repeat_ngram_size=3
            )
            prompt_tokens = inputs["input_ids"].shape[1]
            return start, encoded, time.perf_counter(), out[0, prompt_tokens:].tolist(), prompt_tokens

        start, encoded, first, _, _ = run(1)
        long_start, long_encoded, long_end, ids, prompt_tokens = run(tokens)
        decode_s = max(1e-9, (long_end - long_encoded) - (first - encoded))
        return {
            "encode_ms": 1e3 * (encoded - start),
            "prefill_ms": 1e3 * (first - encoded),
            "first_token_ms": 1e3 * (first - start),
            "decode_tokens_per_s": (len(ids) - 1) / decode_s,
            "total_ms": 1e3 * (long_end - long_start),
            "prompt_tokens": prompt_tokens,
            "ids": ids,
        }


class Runner:
    """The other side of the pipe: a child process with one model."""

    def __init__(self, name: str, kind: str, model: Path, threads: int, picture: Path, prompt: str) -> None:
        command = [sys.executable, __file__, kind, str(model), str(threads), str(picture), prompt]
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.loaded = self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the process ended with status {self.process.wait()}")
        return json.loads(line)

    def measure(self, tokens: int) -> dict:
        """One caption of `tokens` tokens."""
        self.process.stdin.write(f"measure {tokens}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    """The child process."""
    kind, model, threads, picture, prompt = sys.argv[1:6]
    start = time.perf_counter()
    if kind == "ours":
        import kosmos_edge._core  # noqa: F401
    else:
        import transformers.models.kosmos2  # noqa: F401 (torch comes with it)
    import_ms = 1e3 * (time.perf_counter() - start)
    start = time.perf_counter()
    runner = Ours(model, int(threads)) if kind == "ours" else Theirs(model, int(threads), kind)
    load_ms = 1e3 * (time.perf_counter() - start)
    print(
        json.dumps({"import_ms": import_ms, "load_ms": load_ms, "about": runner.about, "memory": memory_of()}),
        flush=True,
    )
    for line in sys.stdin:
        result = runner.caption(Path(picture), prompt, int(line.split()[1]))
        print(json.dumps(result | {"memory": memory_of()}), flush=True)


if __name__ == "__main__":
    main()
