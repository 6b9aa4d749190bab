"""Measures steps of fine-tuning the bundled model: processor seconds of each part, and the most memory.

Run from the root of the checkout, once for each: `python tools/training_step.py lora` and `... full`. One thread,
float32, eight random examples of 86 tokens a step, as `redraft finetune` trains them. One JSON line.
"""

import json
import random
import sys
import time
from statistics import median

import torch

from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.model.config import ModelConfig
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

EXAMPLES, PROMPT, ANSWER = 8, 66, 20
STEPS = 4
"""Which are timed, after one that is not."""


def measure(trained: Trained, *, is_lora: bool) -> dict[str, object]:
    settings, config = plan_settings(190, held_out=0, is_lora=is_lora), trained.model.config
    sampler = SamplerSettings.from_generation_config(read_generation_config(resolve("bundled")))
    optimizer = make_optimizer(trained.module, settings)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    parts: list[tuple[float, float, float]] = []
    for step in range(STEPS + 1):
        batch = make_batch(
            examples(config, step), config.canvas_length, config.vocab_size, Counter(0, step=step), sampler=sampler,
            **settings.noise_at(step),
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
        "tokens_per_processor_second": round(EXAMPLES * (PROMPT + ANSWER) / seconds, 1),
        "peak_bytes": peak_memory(),
    }  # fmt: skip


def examples(config: ModelConfig, step: int) -> list[Example]:
    drawn = random.Random(step)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(drawn.randrange(10, config.vocab_size) for _ in range(count))

    return [Example(tokens(PROMPT), (*tokens(ANSWER - 1), config.eos_ids[0])) for _ in range(EXAMPLES)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, is_lora = load_model(resolve("bundled"), torch.float32), sys.argv[1:] == ["lora"]
    if is_lora:
        trained: Trained = LoRA(model, LoRASettings(), base="bundled", fingerprint="", seed=0)
    else:
        trained = WholeModel(model.requires_grad_(True))
    print(json.dumps({"trained": "lora" if is_lora else "full", **measure(trained, is_lora=is_lora)}))
