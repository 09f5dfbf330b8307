"""Trains the wider nano on one GPU or on a CPU, in chunks that resume where the last one ended.

    python -m wide.train vocabulary --world world.zip --run RUN           # once; a run without one makes its own
    python -m wide.train a --world world.zip --run RUN --budget 9 --minutes 8.5
    python -m wide.train c --world world.zip --run RUN --budget 14 --minutes 8.5      # stage B comes first by itself

`--budget` is the whole stage in minutes of training (the rates fall to nothing at its end), `--minutes` what this call
may use: the next call with the same budget goes on. Everything lies in RUN: a.pt and c.pt to resume from, log.jsonl,
curves.png, and carry-0.pt, carry-1.pt ...: float16 weights with vocabulary and configuration, small enough to carry.

`--processes 2`: on a CPU, one process a core, each with its share of every step (`--batch` is one process's).
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
import time

import export
import torch
from model import initialise_locations
from optimiser import Optimiser
from vocabulary import MODEL_FILE, Vocabulary
from vocabulary import train as train_vocabulary

from wide import batches, checkpoints, curves, parallel, spec, steps
from wide.archive import World
from wide.compose import Composer
from wide.heads import DenseHeads, read_out
from wide.scope import SCOPES

PRESETS = {
    # q4_k_m files of 11.8 and 11.5 MB; every row length a multiple of 256
    "deep": dict(image=192, patch=16, dim=256, heads=4, ffn=1024, latents=64, vision_layers=12, text_layers=4),
    "wide": dict(
        image=192, patch=16, dim=256, heads=4, ffn=1024, latents=64, vision_layers=4, text_layers=4,
        vision_dim=512, vision_heads=8, vision_ffn=1024,
    ),
    # for a CPU, with --scope icons: 8 million parameters
    "icons": dict(image=128, patch=16, dim=256, heads=4, ffn=1024, latents=64, vision_layers=6, text_layers=3),
    # about v0's size and cost
    "small": dict(image=128, patch=16, dim=256, heads=4, ffn=1024, latents=64, vision_layers=4, text_layers=3),
    # for a look at whether everything runs
    "tiny": dict(image=64, patch=8, dim=256, heads=4, ffn=256, latents=64, vision_layers=1, text_layers=1),
}  # fmt: skip
PIECES = 1600
FALL = 0.4  # the last share of a stage's budget over which the rates fall


def vocabulary_of(a, opened):
    """The run's vocabulary: what lies there, else the one given, else trained on the world's sentences. -> its path"""
    os.makedirs(a.run, exist_ok=True)
    path = os.path.join(a.run, MODEL_FILE)
    if not os.path.exists(path):
        if a.vocabulary:
            shutil.copyfile(a.vocabulary, path)
        else:
            train_vocabulary(path, PIECES, batches.sentences(opened, a.sentences))
    return path


class Run:
    """One stage of one run: model, data, optimiser, clock, log."""

    def __init__(self, a):
        self.a = a
        self.device = torch.device(a.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.team = parallel.Team()
        if self.device.type == "cpu":
            torch.set_num_threads(int(os.environ.get("NANO_THREADS", "1")))
        else:
            torch.set_float32_matmul_precision("high")
        torch.manual_seed(a.seed)
        self.world = World(a.world, scope=a.scope)
        self.config = PRESETS[a.preset]
        self.vocabulary = Vocabulary(vocabulary_of(a, self.world))
        self.composer = self.painter()
        self.model = export.new_model(self.vocabulary, config=self.config).to(self.device)
        initialise_locations(self.model, self.vocabulary.first_location)
        self.model.to(self.device)
        dim = self.config.get("vision_dim", self.config["dim"])
        self.heads = DenseHeads(dim, len(batches.classes_of(self.world))).to(self.device)
        self.grid = self.config["image"] // self.config["patch"]
        self.step = self.samples = 0
        self.seconds = 0.0
        self.began = time.time()
        # held as bound callables, so that compiled modules leave the parameters' names alone
        self.features_of = self.model.vision_model.model
        self.decode = self.model.decode
        if a.compile:
            self.features_of, self.decode = torch.compile(self.features_of), torch.compile(self.decode)

    def painter(self):
        """On a CPU the one that paints at the model's size, if numba is there and --supersample 1"""
        if self.device.type == "cpu" and self.a.supersample == 1 and importlib.util.find_spec("numba"):
            from wide.fast import Painter

            return Painter(self.world, self.config["image"])
        return Composer(self.world, self.device, self.config["image"], self.a.supersample, compiled=self.a.compile)

    def log(self, **row):
        if self.team.rank:
            return
        row = {"clock": time.strftime("%H:%M:%S"), **row}
        print(json.dumps(row), flush=True)
        with open(os.path.join(self.a.run, "log.jsonl"), "a") as f:
            f.write(json.dumps(row) + "\n")

    def loader(self, texts, seed):
        """Batches from `self.step` on, made by worker processes where there are any"""
        world = self.world.without_pixels()
        maker = batches.Maker(world, self.vocabulary.path, self.a.batch, self.composer.size, seed, texts)
        torch.multiprocessing.set_sharing_strategy("file_system")  # many small tensors: no open file for each
        if not self.a.workers:
            return (maker[self.team.numbered(i)] for i in range(self.step, 1 << 40))
        return iter(
            torch.utils.data.DataLoader(
                maker,
                batch_size=None,
                sampler=(self.team.numbered(i) for i in range(self.step, self.step + 10_000_000)),
                num_workers=self.a.workers,
                prefetch_factor=3,
                pin_memory=self.device.type == "cuda",
                multiprocessing_context=self.a.start,
            )
        )

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.a.bf16)

    def rate(self):
        """Share of the peak rates now: a short rise by steps, a plateau, a fall over the end of the budget"""
        done = self.seconds / (60 * self.a.budget)
        return max(0.0, min(1.0, (self.step + 1) / 100, (1 - done) / FALL))

    def finished(self):
        return self.seconds >= 60 * self.a.budget or (self.a.steps and self.step >= self.a.steps)

    def save(self, stage, optimiser):
        if self.team.rank:
            return
        path = os.path.join(self.a.run, f"{stage}.pt")
        state = {"model": self.model.state_dict(), "heads": self.heads.state_dict(), "step": self.step}
        state.update(samples=self.samples, seconds=self.seconds, optimiser=optimiser.state_dict())
        checkpoints.save(path, state)
        with open(self.vocabulary.path, "rb") as f:
            about = {"config": self.config, "stage": stage, "samples": self.samples, "vocabulary": f.read()}
        about["scope"] = self.a.scope
        about["world"] = os.path.basename(self.a.world)
        checkpoints.write_shards(os.path.join(self.a.run, "carry"), self.model.state_dict(), about)
        curves.draw_curves(os.path.join(self.a.run, "log.jsonl"), os.path.join(self.a.run, "curves.png"))

    def resume(self, stage, optimiser):
        path = os.path.join(self.a.run, f"{stage}.pt")
        if not os.path.exists(path):
            return False
        state = checkpoints.load(path, self.device)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        self.step, self.samples, self.seconds = state["step"], state["samples"], state["seconds"]
        return True

    def groups(self, vision_only):
        vision = [(n, p) for n, p in self.model.named_parameters() if n.startswith("vision_model")]
        rest = [(n, p) for n, p in self.model.named_parameters() if not n.startswith("vision_model")]
        vision += list(self.heads.named_parameters())
        return [(vision, 1.0)] if vision_only else [(rest, 1.0), (vision, self.a.vision_rate)]

    # -------------------------------------------------------------------------------------- what is looked at
    @torch.no_grad()
    def look(self):
        """Figures of the dense heads on scenes never trained on: of seen cut-outs, and of unseen ones"""
        out = {}
        for label, split in (("", "train"), (" unseen", "test")):
            maker = batches.Maker(self.world, self.vocabulary.path, 256, self.composer.size, texts=False)
            count = self.a.batch if isinstance(self.composer, Composer) and self.a.compile else max(384, self.a.batch)
            first = batches.VALID_SEED
            scenes = [spec.sample(maker.pools, s, split) for s in range(first, first + count)]
            arrays = spec.arrays(scenes, self.world, self.composer.size)
            batch = steps.on_device({**arrays, **maker.labels(scenes)}, self.device)
            with self.autocast():
                pixels, owner = steps.vision_batch(self.composer, self.grid, batch)
                features = self.model.features(pixels)
            figures = read_out(self.heads, features.float(), owner, batch)
            out.update({k + label: figures[k] for k in ("named", "iou", "count")})
        return out

    # -------------------------------------------------------------------------------------- the loop
    def train(self, stage):
        a = self.a
        optimiser = Optimiser(self.groups(stage == "a"), clip=2.0 if stage == "a" else 1.0)
        resumed = self.resume(stage, optimiser)
        if stage == "c" and not resumed:
            self.begin_c()
        self.team.alike([*self.model.parameters(), *self.heads.parameters()])
        layouts = steps.layouts(self.model, self.device)
        begin, mean = time.time(), {}
        last, looked = begin, begin
        setup = round(begin - self.began, 1)
        self.log(
            stage=stage, step=self.step, samples=self.samples, setup_s=setup, device=str(self.device), args=vars(a)
        )
        for batch in self.loader(stage == "c", seed=1 if stage == "a" else 2):
            with self.autocast():
                long = int(batch.get("long", 0))
                batch = steps.on_device(batch, self.device)
                with torch.no_grad():
                    pixels, owner = steps.vision_batch(self.composer, self.grid, batch)
                features = self.features_of(pixels)
                dense, shown = self.heads.loss(features.float(), owner, batch)
                loss = dense
                if stage == "c":
                    tokens = self.model.image_tokens(features)
                    hidden = self.decode(tokens, batch["ids"], layouts[long])
                    first = self.vocabulary.first_location
                    words, places = steps.text_loss(self.model, hidden, batch["labels"], batch["weights"], first)
                    shown = {"words": words.detach(), "places": places.detach(), "dense": dense.detach()}
                    loss = words + 0.5 * places + a.heads_weight * dense
                    if "pair_ids" in batch:
                        extra = steps.extra_loss(self.model, tokens, batch, first)
                        loss = loss + 0.5 * extra
                        shown["extra"] = extra.detach()
            loss.backward()
            self.team.average(optimiser.params)
            optimiser.step(self.rate())
            self.step += 1
            self.samples += a.batch * self.team.size
            for k, v in shown.items():
                mean[k] = 0.95 * mean[k] + 0.05 * v if k in mean else v
            if self.step % 10 == 0 and self.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.time()
            self.seconds += now - last
            last = now
            over = self.team.same(now - self.began > 60 * a.minutes or self.finished())
            if self.step % a.log_every == 0 or over:
                losses = {k: round(float(v), 4) for k, v in mean.items()}
                speed = round(self.samples / max(1e-9, self.seconds), 1)
                at = {"step": self.step, "samples": self.samples, "seconds": round(self.seconds)}
                self.log(stage=stage, **at, loss=losses, per_s=speed)
            if self.team.same(now - looked > 60 * a.look_every) or over:
                self.log(stage=stage, step=self.step, samples=self.samples, valid=self.look())
                self.save(stage, optimiser)
                looked = last = time.time()
            if over:
                break
        return self.finished()

    def begin_c(self):
        """Stage C starts from stage A's ViT and heads; stage B warms the connector on a stock of features"""
        state = checkpoints.load(os.path.join(self.a.run, "a.pt"), self.device)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        stock = []
        maker = batches.Maker(self.world, self.vocabulary.path, self.a.batch, self.composer.size, seed=3, texts=False)
        with torch.no_grad(), self.autocast():
            for i in range(max(1, min(3000, 100 * self.a.batch) // self.a.batch)):
                batch = steps.on_device(maker[i], self.device)
                stock.append(self.model.features(steps.vision_batch(self.composer, self.grid, batch)[0]).float())
        steps.warm_start(self.model, torch.cat(stock), self.a.warm_steps, self.log)


def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("stage", choices=("vocabulary", "a", "c"))
    ap.add_argument("--world", required=True)
    ap.add_argument("--run", required=True)
    ap.add_argument("--scope", choices=SCOPES, default="all", help="how wide the world is (scope.py)")
    ap.add_argument("--preset", choices=PRESETS, default="deep")
    ap.add_argument("--budget", type=float, default=60.0, help="minutes of training in this stage, over all calls")
    ap.add_argument("--minutes", type=float, default=1e9, help="minutes that this call may take, from its start")
    ap.add_argument("--steps", type=int, default=0, help="end after so many steps (0: by time alone)")
    ap.add_argument("--batch", type=int, default=512)
    ap.add_argument("--device", default="", help="default: cuda if there is one")
    ap.add_argument("--workers", type=int, default=0, help="processes that make batches")
    ap.add_argument("--processes", type=int, default=1, help="that train together, on a CPU")
    ap.add_argument("--start", choices=("fork", "spawn"), default="fork", help="how the workers are started")
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--bf16", action="store_true")
    ap.add_argument("--supersample", type=int, default=2, help="1: paint at the model's size, faster, less exact")
    ap.add_argument("--vision-rate", type=float, default=0.3, help="factor on the ViT's rates in stage C")
    ap.add_argument("--heads-weight", type=float, default=0.5)
    ap.add_argument("--warm-steps", type=int, default=400)
    ap.add_argument("--vocabulary", default="", help="a sentencepiece model to take instead of training one")
    ap.add_argument("--sentences", type=int, default=30_000, help="that the vocabulary is trained on")
    ap.add_argument("--log-every", type=int, default=100, help="steps")
    ap.add_argument("--look-every", type=float, default=2.0, help="minutes between validations and checkpoints")
    ap.add_argument("--seed", type=int, default=1)
    return ap


def main():
    a = parser().parse_args()
    if a.stage == "vocabulary":
        return print(vocabulary_of(a, World(a.world, pixels=False, scope=a.scope)))
    if a.processes > 1 and "RANK" not in os.environ:
        return sys.exit(parallel.launch(a.processes, sys.argv[1:]))
    done = Run(a).train(a.stage)
    print(f"stage {a.stage}: " + ("done" if done else "to be continued with the same --budget"))


if __name__ == "__main__":
    main()
