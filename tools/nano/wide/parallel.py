"""One training run on several processes of a machine: each takes its share of a step, gradients are averaged.

On a CPU two processes of one thread each are faster than one of two threads. A team of one does nothing here.
"""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist


class Team:
    """rank: this process's number; size: how many there are"""

    def __init__(self):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        self.slots, self.turn = None, 0
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")
            atexit.register(dist.destroy_process_group)  # its threads must be gone before the interpreter is

    def numbered(self, step):
        """The number of this process's batch of a step"""
        return step * self.size + self.rank

    @torch.no_grad()
    def average(self, params):
        """Gradients of all become their mean: through shared memory, which is faster than sockets"""
        if self.size == 1:
            return
        grads = [p.grad for p in params if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        if self.slots is None or self.slots.shape[-1] != len(flat):
            numbers = torch.from_file(os.environ["NANO_SHARED"], True, 2 * self.size * len(flat))
            self.slots = numbers.view(2, self.size, -1)
            dist.barrier()
        slot = self.slots[self.turn]
        self.turn = 1 - self.turn  # two sets in turn: nobody writes what another may still read
        slot[self.rank] = flat
        dist.barrier()
        mean = slot.mean(0)
        for g, part in zip(grads, mean.split([g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    def same(self, flag):
        """What the first process says, for all"""
        if self.size == 1:
            return flag
        word = torch.tensor([float(flag)])
        dist.broadcast(word, 0)
        return bool(word.item())

    @torch.no_grad()
    def alike(self, params):
        """Every process gets the first one's values"""
        if self.size > 1:
            for p in params:
                dist.broadcast(p.data, 0)


def launch(count, arguments, program=(sys.executable, "-m", "wide.train")):
    """`program` with `arguments` as `count` processes. -> the first exit status that is not 0, else 0; when one
    fails all are ended"""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    shared = os.path.join(folder, f"nano-gradients-{port}")
    common = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common["NANO_SHARED"] = shared
    command = [*program, *arguments]
    team = [subprocess.Popen(command, env={**common, "RANK": str(r)}) for r in range(count)]
    try:
        while any(p.poll() is None for p in team) and not any(p.poll() for p in team):
            time.sleep(0.5)
        return next((p.returncode for p in team if p.returncode), 0)
    finally:
        for p in team:
            p.kill()
            p.wait()
        if os.path.exists(shared):
            os.remove(shared)
