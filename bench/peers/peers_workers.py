"""The programs that peers.py and llava.py time in Python: one warm process per library, told what to do over pipes.

`python bench/peers/peers_workers.py KIND MODEL THREADS [WORDS]` loads a model, prints a line of JSON, then answers each
line "PHASE REPEATS" on stdin with {"values": [...]}: milliseconds of "encode", "prefill" and "caption", tokens per
second of "decode", images per second of "folder:B". KINDs: "ours" (kosmos_edge, a GGUF file), "onnxruntime" (a file of
peers_onnx.py), "torch-int8", "torch-bf16", "torch-fp32" (transformers, a checkpoint folder); on a CUDA device
"ours-cuda" and "torch-cuda-bf16"; "llava-bf16" and "llava-fp32" (transformers, MODEL a name of llava_net.py).

All do the same work: one picture of 224 x 224, a prompt of 74 tokens of which 64 stand for the picture, an answer of 32
tokens; of LLaVA what llava_net.py says, with WORDS tokens behind the picture. "first" is milliseconds from pixels to
the first token, "photos:B" photos per second in batches of B with answers of 40 tokens (ours from JPEG files,
transformers from pixels).
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROMPT, IMAGE_TOKENS, ANSWER = 74, 64, 32
FOLDER = 16  # pictures of a folder
PHOTO_ANSWER = 40  # tokens of an answer of "photos:B"


def ms(function: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


class Ours:
    """kosmos_edge, timed as `kosmos-edge bench` does."""

    def __init__(self, model: str, threads: int, device: str = "cpu", words: int = PROMPT - IMAGE_TOKENS - 3) -> None:
        from kosmos_edge import _core
        from kosmos_edge.bench.workload import Work

        engine = _core.Engine(model, device=device, threads=threads, drafts="off")
        self.work = Work(engine, tokens=ANSWER, words=words)
        self.about = {"version": "this checkout", "isa": engine.isa, "threads": engine.threads}
        if device != "cpu":
            self.about["device"] = engine.description

    def measure(self, phase: str) -> float:
        """One measurement."""
        if phase == "encode":
            return self.work.encode()[0].ms
        if phase == "prefill":
            return self.work.answer()[0].ms
        if phase == "decode":
            return self.work.decode().tokens_per_s
        if phase == "caption":
            return self.work.caption(whole=True).ms
        if phase == "first":
            return self.work.encode()[0].ms + self.work.answer()[0].ms
        if phase.startswith("photos:"):
            return self.photos(int(phase.removeprefix("photos:")))
        sample = self.work.folder(int(phase.removeprefix("folder:")), FOLDER)
        return sample.tokens / ANSWER / sample.seconds  # of an answer that ends early, its share

    def photos(self, batch: int) -> float:
        """Photos per second; the tokens of an answer, which may end earlier, go to `about`."""
        photos = [self.work.photo() for _ in range(3 * batch)]
        start = time.perf_counter()
        options = {"max_tokens": PHOTO_ANSWER, "batch_size": batch, "on_error": "raise"}
        results = list(self.work.model.batch(photos, task="caption", **options))
        seconds = time.perf_counter() - start
        self.about["tokens of an answer"] = sum(len(r.token_ids) for r in results) / len(results)
        return len(results) / seconds


class Llava:
    """transformers' LLaVA of published sizes."""

    def __init__(self, model: str, threads: int, kind: str) -> None:
        from llava_net import Transformers as Net

        self.net = Net(model, threads, kind)
        self.about = self.net.about

    def measure(self, phase: str) -> float:
        """One measurement."""
        if phase == "decode":
            return self.net.decode(ANSWER)
        return ms({"encode": self.net.encode, "prefill": self.net.prefill}[phase])


class OnnxRuntime:
    """The vision tower or the decoder's prefill in onnxruntime."""

    def __init__(self, model: str, threads: int) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        self.inputs = {
            i.name: rng.standard_normal([d if isinstance(d, int) else 1 for d in i.shape], np.float32)
            for i in self.session.get_inputs()
        }
        self.about = {"version": f"onnxruntime {onnxruntime.__version__}", "threads": threads}

    def measure(self, phase: str) -> float:
        """One run of the graph."""
        return ms(lambda: self.session.run(None, self.inputs))


class Transformers:
    """transformers' KOSMOS-2 in float32, bfloat16, or float32 with torch's dynamically quantized linear layers; in
    bfloat16 on a CUDA device, too."""

    def __init__(self, model: str, threads: int, kind: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        torch.manual_seed(0)
        dtype = torch.bfloat16 if kind in ("torch-bf16", "torch-cuda-bf16") else torch.float32
        self.torch, self.dtype = torch, dtype
        if kind == "torch-cuda-bf16":
            if not torch.cuda.is_available():
                raise SystemExit(f"torch {torch.__version__} finds no CUDA device")
            torch.set_default_device("cuda")
        if kind == "torch-int8":
            self.model = self.quantized(Path(model))
        else:
            self.model = transformers.Kosmos2ForConditionalGeneration.from_pretrained(model, dtype=dtype).eval()
            self.model.to(torch.get_default_device())
        self.ids = torch.randint(10, 60000, (1, PROMPT))
        self.mask = torch.zeros(1, PROMPT, dtype=torch.bool)
        self.mask[0, 2 : 2 + IMAGE_TOKENS] = True
        self.image = self.encode()
        self.about = {
            "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "engine": torch.backends.quantized.engine,
            "threads": torch.get_num_threads(),
        }
        if kind == "torch-cuda-bf16":
            self.about["device"] = torch.cuda.get_device_name()

    def quantized(self, folder: Path) -> object:
        """All linear layers in dynamically quantized int8; kept in a file, because making it takes half a minute."""
        import transformers

        torch = self.torch
        kept = Path(os.environ["PEERS_CACHE"]) / f"transformers-int8-torch-{torch.__version__}.pt"
        if not kept.exists():
            model = transformers.Kosmos2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
            torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
            part = kept.with_suffix(".part")
            torch.save(model, part)
            part.replace(kept)
        return torch.load(kept, weights_only=False)

    def pixels(self, pictures: int = 1) -> object:
        """Pictures."""
        return self.torch.randn(pictures, 3, 224, 224).to(self.dtype)

    def wait(self) -> None:
        """Until a CUDA device has done what it was asked."""
        if self.ids.is_cuda:
            self.torch.cuda.synchronize()

    def encode(self) -> object:
        """Picture to image tokens."""
        tower = self.model.vision_model
        features = tower.model.post_layernorm(tower(pixel_values=self.pixels()).last_hidden_state)
        return self.model.image_to_text_projection(self.torch.nn.functional.normalize(features, dim=-1))[0]

    def prefill(self) -> object:
        """The prompt; logits of its last position."""
        return self.model.text_model(
            input_ids=self.ids, image_embeds=self.image, image_embeds_position_mask=self.mask, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip

    def decode(self) -> float:
        """Tokens per second of the steps behind the prompt."""
        out = self.prefill()
        self.wait()
        start = time.perf_counter()
        for _ in range(ANSWER - 1):
            token = out.logits[:, -1:].argmax(-1)
            out = self.model.text_model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        self.wait()
        return (ANSWER - 1) / (time.perf_counter() - start)

    def first(self) -> object:
        """Pixels to the first token."""
        self.image = self.encode()
        return self.prefill().logits[:, -1].argmax(-1)

    def caption(self, tokens: int = ANSWER, pictures: int = 1) -> object:
        """generate() as its model card calls it, with answers of fixed length."""
        return self.model.generate(
            pixel_values=self.pixels(pictures), input_ids=self.ids.repeat(pictures, 1),
            image_embeds_position_mask=self.mask.repeat(pictures, 1),
            attention_mask=self.torch.ones(pictures, PROMPT, dtype=self.torch.long), max_new_tokens=tokens,
            min_new_tokens=tokens, do_sample=False,
        )  # fmt: skip

    def timed(self, function: Callable[[], object]) -> float:
        """Milliseconds that a call takes, until its result is there."""
        self.wait()
        return ms(lambda: (function(), self.wait()))

    def measure(self, phase: str) -> float:
        """One measurement."""
        if phase == "decode":
            return self.decode()
        if phase.startswith("photos:"):
            batch = int(phase.removeprefix("photos:"))
            return 1e3 * batch / self.timed(lambda: self.caption(PHOTO_ANSWER, batch))
        phases = {"encode": self.encode, "prefill": self.prefill, "first": self.first, "caption": self.caption}
        return self.timed(phases[phase])


def main() -> None:
    """The child process."""
    kind, model, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    start = time.perf_counter()
    if kind in ("ours", "ours-cuda"):
        device = os.environ.get("PEERS_DEVICE", "cuda") if kind == "ours-cuda" else "cpu"
        more = {"words": int(sys.argv[4])} if len(sys.argv) > 4 else {}
        worker: Ours | OnnxRuntime | Transformers | Llava = Ours(model, threads, device, **more)
    elif kind.startswith("llava-"):
        worker = Llava(model, threads, kind)
    elif kind == "onnxruntime":
        worker = OnnxRuntime(model, threads)
    else:
        worker = Transformers(model, threads, kind)
    print(json.dumps({"about": worker.about, "load_s": time.perf_counter() - start}), flush=True)
    for line in sys.stdin:
        phase, repeats = line.split()
        values = [worker.measure(phase) for _ in range(int(repeats))]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"values": values, "peak_rss": peak, "about": worker.about}), flush=True)


if __name__ == "__main__":
    main()
