"""Measures steps of fine-tuning: processor seconds of each part, and memory.

Run from the root of the checkout, once for each: `python tools/training_step.py lora` and `... full` for the bundled
model, `python tools/training_step.py lora --model b --to int4` for one of 270 M parameters with random weights, which
is quantized before. One thread, float32, random examples of 86 tokens, as `redraft finetune` trains them. One JSON
line.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from redraft.benchmark.models import CONFIGS
from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.model.config import ModelConfig
from redraft.model.linear.frozen import train_beside_quantized
from redraft.model.transformer import Transformer
from redraft.training import LoRASettings
from redraft.training.data.examples import Example, make_batch
from redraft.training.objective import losses
from redraft.training.optimizer import make_optimizer
from redraft.training.plan import plan_settings
from redraft.training.run.trained import LoRA, Trained, WholeModel
from redraft.weights.checkpoint import load_model
from redraft.weights.config.file import read_generation_config
from redraft.weights.fetch import resolve
from redraft.weights.memory import peak_memory

PROMPT, ANSWER = 66, 20
STEPS = 4
"""Which are timed, after one that is not."""


def measure(trained: Trained, count: int, *, is_lora: bool) -> dict[str, object]:
    settings, config = plan_settings(190, held_out=0, is_lora=is_lora), trained.model.config
    sampler = SamplerSettings.from_generation_config(read_generation_config(resolve("bundled")))
    optimizer = make_optimizer(trained.module, settings)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    parts: list[tuple[float, float, float]] = []
    for step in range(STEPS + 1):
        batch = make_batch(
            examples(config, count, step), config.canvas_length, config.vocab_size, Counter(0, step=step),
            sampler=sampler, **settings.noise_at(step),
        )  # fmt: skip
        times = [time.process_time()]
        loss = losses(trained.model, batch, sampler=sampler, prompt_weight=settings.prompt_weight).total
        times.append(time.process_time())
        torch.autograd.backward(loss)
        times.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(trained.module.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time())
        parts.append((times[1] - times[0], times[2] - times[1], times[3] - times[2]))
    forward, backward, update = (median(column) for column in zip(*parts[1:], strict=True))
    seconds = median(sum(one) for one in parts[1:])
    return {
        "forward": round(forward, 2), "backward": round(backward, 2), "optimizer": round(update, 2),
        "processor_seconds": round(seconds, 2),
        "tokens_per_processor_second": round(count * (PROMPT + ANSWER) / seconds, 1),
        "peak_bytes": peak_memory(),
    }  # fmt: skip


def memory_now() -> int:
    """Returns the bytes that this process holds (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def examples(config: ModelConfig, count: int, step: int) -> list[Example]:
    drawn = random.Random(step)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(drawn.randrange(10, config.vocab_size) for _ in range(length))

    return [Example(tokens(PROMPT), (*tokens(ANSWER - 1), config.eos_ids[0])) for _ in range(count)]


WRITE = """
import sys, torch
from redraft.benchmark.models import load_benchmark_model
from redraft.weights.quantize import quantize_checkpoint
from redraft.weights.save import save_checkpoint
name, form, folder = sys.argv[1:]
model = load_benchmark_model(name, "float32", unquantized=True)
weights = {key: tensor.bfloat16() for key, tensor in model.state_dict().items()}
save_checkpoint(folder, model.config, weights)
if form != "bf16":
    quantize_checkpoint(folder, folder + "/small", form)
"""
"""In a process of its own, whose memory is not counted."""


def start_of(name: str, form: str, folder: Path) -> Transformer:
    """Returns what is trained, or beside: "bundled", or a benchmark's model in float32 or quantized."""
    if name == "bundled":
        return load_model(resolve(name), torch.float32)
    subprocess.run([sys.executable, "-c", WRITE, name, form, str(folder)], check=True)
    if form == "bf16":
        return load_model(folder, torch.float32)
    return train_beside_quantized(load_model(folder / "small", torch.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("method", choices=("lora", "full"))
    parser.add_argument("--model", choices=("bundled", *CONFIGS), default="bundled")
    parser.add_argument("--to", choices=("bf16", "int8", "int4"), default="bf16", help="Of --model a and b.")
    parser.add_argument("--examples", type=int, default=8, help="Of a step.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    is_lora, before = options.method == "lora", memory_now()
    with tempfile.TemporaryDirectory() as folder:
        model = start_of(options.model, options.to, Path(folder))
        trained: Trained = WholeModel(model.requires_grad_(True))
        if is_lora:
            trained = LoRA(model.requires_grad_(False), LoRASettings(), base=options.model, fingerprint="", seed=0)
        found = measure(trained, options.examples, is_lora=is_lora)
    found |= {"bytes_before": before, "bytes_after": memory_now()}
    print(json.dumps({"trained": options.method, "model": options.model, "base": options.to, **found}))


if __name__ == "__main__":
    main()
