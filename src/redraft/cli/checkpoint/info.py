"""`redraft info`: a checkpoint's size and what it takes to run it, before anything large is downloaded."""

import json
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options
from redraft.cli.output import show_table
from redraft.model.precision import Precision
from redraft.utils.words import counted
from redraft.weights.adapters.files import ADAPTER_WEIGHTS, adapter_base, find_adapter, read_adapter
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.config.file import parse_quantization, read_config, read_config_json
from redraft.weights.fetch import fetch_config, resolve
from redraft.weights.memory import machine_memory
from redraft.weights.sizes import ModelSizes


def info(
    model: Annotated[
        str,
        typer.Argument(
            envvar=options.MODEL_VARIABLE,
            help='"bundled", "26b-a4b" (the released shape, built in), a folder, a name on the hub, or an adapter.',
        ),
    ] = "bundled",
    *,
    base: Annotated[
        str | None, typer.Option(help="Of an adapter: the checkpoint that it is to fit, instead of its own.")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens of context that cache, step and fit are computed for.")] = 1000,
    as_json: options.JsonOption = False,
) -> None:
    """Show a checkpoint's size and whether it fits this machine.

    Parameters, memory and the work of a denoising step; only config.json is read or downloaded.
    """
    options.check_at_least(0, context=context)
    if (adapter := find_adapter(model)) is not None:
        _describe_adapter(adapter, base, as_json=as_json)
        return
    if base is not None:
        raise ValueError(f"--base is for adapters, and {model} is none; leave it out")
    folder = fetch_config(model)
    config = read_config(folder)
    bits = parse_quantization(read_config_json(folder), folder=folder)
    runs_as = () if bits is None else Precision.of_bits(bits)
    stored = runs_as[0].stored if runs_as else None
    sizes, memory = ModelSizes.of(config), machine_memory()
    # A quantized checkpoint cannot be loaded in another precision.
    weight_bytes = {name: size for name, size in sizes.weight_bytes.items() if stored in (None, name)}
    fits = {name: verdict for name, verdict in sizes.fits(memory.available, context).items() if name in weight_bytes}
    facts = {
        "model": model,
        "quantized": stored,
        "parameters": sizes.parameters,
        "active_parameters": sizes.active_parameters,
        "layers": config.num_layers,
        "experts": f"{config.experts_per_token} of {config.num_experts}",
        "vocabulary": config.vocab_size,
        "canvas_length": config.canvas_length,
        "max_context": config.max_context,
        "context": context,
        "kv_bytes_per_1000_tokens": sizes.kv_bytes_per_1000_tokens(),
        "kv_bytes_sliding_layers": sizes.kv_bytes_sliding(),
        "flops_per_denoising_step": sizes.step_flops(context),
        "weight_bytes": weight_bytes,
        "fits": fits,
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
    }
    if as_json:
        print(json.dumps(facts))
        return
    rows = {
        "model": model,
        "quantized": f"to {stored}; runs as {' or '.join(one.name for one in runs_as)}" if runs_as else None,
        "parameters": f"{_count(sizes.parameters)} in all ({sizes.parameters:,})",
        "active": f"{_count(sizes.active_parameters)} per token ({sizes.active_parameters:,})",
        "shape": f"{counted(config.num_layers, 'layer')}, {facts['experts']} experts, {config.vocab_size:,} tokens",
        "canvas, context": f"{config.canvas_length} tokens, {config.max_context:,} tokens",
        "KV cache": f"{_bytes(sizes.kv_bytes_per_1000_tokens())} per 1,000 tokens, "
        f"{_bytes(sizes.kv_bytes_sliding())} for sliding windows",
        "denoising step": f"{sizes.step_flops(context) / 1e9:,.1f} GFLOP at {context:,} tokens of context",
    }
    for precision, weights in weight_bytes.items():
        verdict = "fits" if fits[precision] else "does not fit"
        rows[precision] = f"{_bytes(weights)} of weights; {verdict} into the {_bytes(memory.available)} free here"
    show_table((name, value) for name, value in rows.items() if value is not None)


def _describe_adapter(folder: Path, base: str | None, *, as_json: bool) -> None:
    """Reads it for its base, whose name it holds itself unless one is given."""
    named = adapter_base(folder) if base is None else base
    if named is None:
        raise ValueError(f"{folder} does not say which model it was trained on; name it by --base")
    checkpoint = Checkpoint.open(resolve(named))
    adapter = read_adapter(folder, checkpoint.config)
    adapter.check_base(checkpoint)
    changed = sum(one.delta_shape.numel() for one in {**adapter.encoder, **adapter.denoiser}.values())
    facts = {
        "adapter": str(folder),
        "base": named,
        "base_is_known": adapter.base_fingerprint is not None,
        "base_bits": adapter.base_bits,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "targets": list(adapter.targets),
        "passes": "both alike" if adapter.is_shared else "each its own",
        "parameters": adapter.num_bytes // 4,
        "of_weights": changed,
        "bytes": (folder / ADAPTER_WEIGHTS).stat().st_size,
    }
    if as_json:
        print(json.dumps(facts))
        return
    fits = "has its fingerprint" if adapter.base_fingerprint else "fits; it has no fingerprint that would prove more"
    show_table(
        {
            "adapter": str(folder),
            "base": f"{named} ({fits})",
            **({"trained beside": f"its weights in {adapter.base_bits} bits"} if adapter.base_bits else {}),
            "rank, alpha": f"{adapter.rank}, {adapter.alpha:g}",
            "targets": ", ".join(adapter.targets),
            "passes": str(facts["passes"]),
            "parameters": f"{_count(adapter.num_bytes // 4)}, beside {_count(changed)} that they change",
            "file": _bytes((folder / ADAPTER_WEIGHTS).stat().st_size),
        }.items()
    )


def _count(number: int) -> str:
    """Formats a count in billions or millions, truncated rather than rounded, as model names are."""
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{int(number / size * 10) / 10:.1f} {unit}"
    return f"{number:,}"


def _bytes(number: float) -> str:
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
