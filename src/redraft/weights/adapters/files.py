"""Reads and writes adapters in PEFT's layout: adapter_config.json, and adapter_model.safetensors with its names.

PEFT adapts the encoder's and the denoiser's stack of transformers' model apart, although they share their weights: so a
file has two sets of matrices, which may be equal, and either may be missing. Of stacked experts it keeps
A as [E · r, I] and B as [O, r · E].
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from redraft.model.config import ModelConfig
from redraft.model.linear.low_rank import AdapterMatrices, LowRank, Matrices
from redraft.model.linear.quantized import BITS
from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object
from redraft.weights.checkpoint import Checkpoint, all_finite
from redraft.weights.fetch import resolve
from redraft.weights.memory import check_available
from redraft.weights.storage.header import read_header
from redraft.weights.storage.names import DECODER, ENCODER, is_unused

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 1024
_PREFIX = "base_model.model."
_BASE_KEY, _BASE_BITS_KEY = "redraft_base", "redraft_base_bits"
_LORA = re.compile(r"(?P<module>.+?)(?P<inner>\.base_layer)?\.lora_(?P<side>[AB])(\.default)?\.weight")
_EXPERTS = ("gate_up_proj", "down_proj")
_UNSUPPORTED = {
    "use_dora": "DoRA", "lora_bias": "biases of its own", "fan_in_fan_out": "transposed matrices",
    "modules_to_save": "whole modules of its own", "trainable_token_indices": "tokens of its own",
    "layer_replication": "repeated layers", "use_qalora": "QALoRA", "use_bdlora": "block-diagonal matrices",
    "alora_invocation_tokens": "activation by tokens",
}  # fmt: skip
"""What PEFT can do and this package cannot, by the key of the configuration that asks for it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter(AdapterMatrices):
    """An adapter as it was read: float32, with the scales in B; a pass that is left alone has no matrices.

    rank: the highest. alpha: as the configuration has it. base: the name of the model that it was trained on.
    base_fingerprint: that model's `fingerprint`, None where the adapter does not say. base_bits: those that it was
    trained beside, None for a base that is not quantized. digest: SHA-256 of its two files.
    """

    folder: Path
    rank: int
    alpha: float
    base: str
    base_fingerprint: str | None
    base_bits: int | None

    @property
    def is_shared(self) -> bool:
        """Whether both passes are adapted in the same way."""
        return self.encoder is self.denoiser

    @property
    def targets(self) -> tuple[str, ...]:
        """The kinds of matrices that it changes, as `mlp.up_proj`."""
        names = {**self.encoder, **self.denoiser}
        return tuple(dict.fromkeys(_target(name) for name in names))

    @property
    def num_bytes(self) -> int:
        """What its matrices take in the memory."""
        sets = (self.encoder,) if self.is_shared else (self.encoder, self.denoiser)
        return sum(one.a.nbytes + one.b.nbytes for matrices in sets for one in matrices.values())

    def check_base(self, checkpoint: Checkpoint) -> None:
        """Raises ValueError if the adapter was trained on another model than `checkpoint`, as far as that is known."""
        if self.base_fingerprint is None or self.base_fingerprint == fingerprint(checkpoint):
            return
        raise ValueError(
            f"{self.folder} was trained on another base than {checkpoint.folder}: {self.base or 'it has no name'}, "
            f"with fingerprint {self.base_fingerprint[:12]}, not {fingerprint(checkpoint)[:12]}; give it that one"
        )


def fingerprint(checkpoint: Checkpoint) -> str:
    """Returns what tells a trained model from others of its shape: SHA-256 of its vectors (norms, scales) in bfloat16.

    A quantized copy has the same.
    """
    digest = hashlib.sha256(repr(checkpoint.config).encode())
    with ExitStack() as stack:
        files = {
            path: stack.enter_context(safe_open(path, framework="pt"))
            for path in {stored.file for stored in checkpoint.tensors.values()}
        }
        for name, shape in sorted(checkpoint.config.parameter_shapes().items()):
            if len(shape) == 1:
                stored = checkpoint.tensors[name]
                vector = files[stored.file].get_tensor(stored.name).to(torch.bfloat16)
                digest.update(name.encode() + vector.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def find_adapter(name_or_path: str | Path) -> Path | None:
    """Returns the folder of a local adapter, or of a run that trains one; None if the name stands for anything else."""
    path = Path(name_or_path).expanduser()
    if not path.is_dir():
        return None
    folder = resolve(path)
    return folder if (folder / ADAPTER_CONFIG).is_file() else None


def adapter_base(folder: Path) -> str | None:
    """Returns the name or folder of the model that an adapter was trained on, as it says itself."""
    found = read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    return found if isinstance(found, str) and found else None


def read_adapter(folder: Path | str, config: ModelConfig, *, scaled: bool = True) -> Adapter:
    """Reads an adapter for a model of shape `config`; without `scaled` its B as it is stored.

    Raises ValueError, with file and name, for what does not fit that model, is not finite, or asks for more than LoRA,
    and, before it is read, for what does not fit into the memory.
    """
    folder = Path(folder)
    settings = read_json_object(folder / ADAPTER_CONFIG)
    where = folder / ADAPTER_CONFIG
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{where}: peft_type is {settings.get('peft_type')!r}, only 'LORA' is supported")
    for key, meaning in _UNSUPPORTED.items():
        if settings.get(key):
            raise ValueError(f"{where}: {key} is {settings[key]!r}: adapters with {meaning} are not supported")
    if (bias := settings.get("bias", "none")) != "none":
        raise ValueError(f"{where}: bias is {bias!r}: adapters with biases are not supported")
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file() and (others := sorted(one.name for one in folder.glob("adapter_model.*"))):
        raise ValueError(f"{folder} has {others[0]}, which is not read: save it as {ADAPTER_WEIGHTS}")
    stored = {name: tensor.shape for name, tensor in read_header(path).items()}
    # As it is stored, in float32, and with scaled B.
    check_available(3 * 4 * sum(map(math.prod, stored.values())), f"reading {folder}", "free some memory")
    scales = _Scales.of(where, settings)
    passes: dict[str, dict[str, LowRank]] = {ENCODER: {}, DECODER: {}}
    shapes = config.parameter_shapes()
    with safe_open(path, framework="pt") as file:
        for (stack, name), (a, b) in _pairs(path, stored, shapes).items():
            passes[stack][name] = _low_rank(
                path, shapes[name], file.get_tensor(a), file.get_tensor(b), a, scales if scaled else None
            )
        metadata = file.metadata() or {}
    encoder, denoiser = passes[ENCODER], passes[DECODER]
    both = {**encoder, **denoiser}
    if not both:
        raise ValueError(f"{path} holds no adapter")
    is_shared = _are_equal(_without_self_conditioning(denoiser), encoder)
    return Adapter(
        folder=folder,
        # Only the denoiser pass has self-conditioning: the encoder pass of a shared one never gets there.
        encoder=denoiser if is_shared else encoder,
        denoiser=denoiser,
        rank=max(one.rank for one in both.values()),
        alpha=scales.alpha,
        base=str(settings.get("base_model_name_or_path") or ""),
        base_fingerprint=metadata.get(_BASE_KEY),
        base_bits=int(bits) if (bits := metadata.get(_BASE_BITS_KEY, "")) in map(str, BITS) else None,
        digest=hashlib.sha256(where.read_bytes() + path.read_bytes()).hexdigest(),
    )


def write_adapter(
    folder: Path | str,
    matrices: Matrices,
    *,
    rank: int,
    alpha: float,
    rslora: bool = False,
    dropout: float = 0.0,
    base: str = "",
    base_fingerprint: str = "",
    base_bits: int | None = None,
) -> None:
    """Writes an adapter that does the same in both passes. `matrices`: without their scale, all of one rank."""
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    for name, one in matrices.items():
        module, inner = name.removesuffix(".weight"), ""
        a, b = one.a, one.b
        if a.dim() == 3:
            module, _, leaf = name.rpartition(".")
            # PEFT wraps the first of a module's parameters first.
            inner = ".base_layer" if leaf == _EXPERTS[0] and f"{module}.{_EXPERTS[1]}" in matrices else ""
            a, b = a.flatten(0, 1), b.permute(1, 2, 0).flatten(1)
        for stack in (DECODER,) if _is_self_conditioning(name) else (ENCODER, DECODER):
            for side, tensor in (("A", a), ("B", b)):
                tensors[f"{_PREFIX}{stack}{module}{inner}.lora_{side}.weight"] = (
                    tensor.detach().float().clone(memory_format=torch.contiguous_format)
                )
    settings: dict[str, object] = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base or None, "inference_mode": True,
        "r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "use_rslora": rslora, "bias": "none",
        "fan_in_fan_out": False, "init_lora_weights": True, "modules_to_save": None,
        "target_modules": _target_pattern(matrices),
        "target_parameters": [f"experts.{leaf}" for leaf in _EXPERTS if any(n.endswith(f".{leaf}") for n in matrices)],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"} | ({_BASE_KEY: base_fingerprint} if base_fingerprint else {})
    metadata |= {_BASE_BITS_KEY: str(base_bits)} if base_bits else {}
    # The configuration comes last: where it stands, the weights do.
    (folder / ADAPTER_CONFIG).unlink(missing_ok=True)
    write_whole(folder / ADAPTER_WEIGHTS, save(tensors, metadata))
    write_whole(folder / ADAPTER_CONFIG, json_bytes(settings))


@dataclass(frozen=True)
class _Scales:
    """The factor of each module's B, as PEFT computes it."""

    alpha: float
    rslora: bool
    alphas: Mapping[str, float]

    @classmethod
    def of(cls, where: Path, settings: Mapping[str, object]) -> "_Scales":
        alphas = settings.get("alpha_pattern") or {}
        values = {"lora_alpha": settings.get("lora_alpha", 8)}
        if isinstance(alphas, dict):
            values |= {f"alpha_pattern {key!r}": value for key, value in alphas.items()}
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{where}: {key} is {value!r}, must be a number")
        return cls(float(values["lora_alpha"]), bool(settings.get("use_rslora")), dict(alphas))  # type: ignore[arg-type, call-overload]

    def factor(self, module: str, rank: int) -> float:
        patterns = (value for key, value in self.alphas.items() if re.fullmatch(rf"(.*\.)?({key})", module))
        return next(patterns, self.alpha) / (math.sqrt(rank) if self.rslora else rank)


def _pairs(
    path: Path, stored: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[tuple[str, str], tuple[str, str]]:
    """Finds the names in the file of A and B, by the stack and our name of the matrix that they change."""
    sides: dict[tuple[str, str, bool], dict[str, str]] = {}
    for name in stored:
        match = _LORA.fullmatch(name.removeprefix(_PREFIX))
        module = match["module"] if match else name.removeprefix(_PREFIX)
        if is_unused(f"{module}."):
            raise ValueError(f"{path}: {name} adapts the vision tower, which is not run here; train one without it")
        stack = next((one for one in (ENCODER, DECODER) if module.startswith(one)), None)
        if match is None or stack is None:
            raise ValueError(f"{path}: {name} is not a matrix of an adapter for this model")
        sides.setdefault((stack, module.removeprefix(stack), bool(match["inner"])), {})[match["side"]] = name
    pairs = {}
    for (stack, module, _), both in sides.items():
        if len(both) != 2:
            raise ValueError(f"{path}: of an adapter's two matrices only {next(iter(both.values()))} is there")
        a, b = both["A"], both["B"]
        name = f"{module}.weight"
        if module.endswith(".experts"):
            # Which of the stacked parameters it is, only the shapes tell; those of the two are never the same.
            found = (stored[b][0], stored[a][-1])
            leaves = (f"{module}.{leaf}" for leaf in _EXPERTS)
            name = next((leaf for leaf in leaves if shapes.get(leaf, ())[1:] == found), f"{module}.{_EXPERTS[0]}")
        if len(shapes.get(name, ())) < 2 or name.startswith("embed_tokens"):
            raise ValueError(f"{path}: {a} adapts {name}, which this model does not have or cannot adapt")
        pairs[stack, name] = (a, b)
    return pairs


def _low_rank(path: Path, shape: tuple[int, ...], a: Tensor, b: Tensor, name: str, scales: _Scales | None) -> LowRank:
    *stack, outputs, inputs = shape
    count = math.prod(stack)
    rank = a.shape[0] // count
    if a.shape != (count * rank, inputs) or b.shape != (outputs, rank * count):
        raise ValueError(
            f"{path}: {name} and its B are {list(a.shape)} and {list(b.shape)}, which do not fit a matrix of "
            f"{outputs} × {inputs}: the adapter belongs to a model of another shape"
        )
    if not 1 <= rank <= MAX_RANK:
        raise ValueError(f"{path}: {name} has rank {rank}, must lie between 1 and {MAX_RANK}")
    for one in (a, b):
        if not one.is_floating_point() or not all_finite(one):
            raise ValueError(f"{path}: {name} or its B holds NaN, infinite or integer values; the adapter is damaged")
    module = name.removeprefix(_PREFIX).split(".lora_")[0].replace(".base_layer", "")
    scaled = b.float() if scales is None else b.float() * scales.factor(module, rank)
    if not stack:
        return LowRank(a.float(), scaled)
    return LowRank(a.float().view(count, rank, inputs), scaled.view(outputs, rank, count).permute(2, 0, 1).contiguous())


def _are_equal(one: Matrices, other: Matrices) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name].a, other[name].a) and torch.equal(one[name].b, other[name].b) for name in one
    )


def _is_self_conditioning(name: str) -> bool:
    return name.startswith("self_conditioning.")


def _without_self_conditioning(matrices: Matrices) -> dict[str, LowRank]:
    return {name: one for name, one in matrices.items() if not _is_self_conditioning(name)}


def _target(name: str) -> str:
    """What a matrix is called in every layer."""
    return re.sub(r"^layers\.\d+\.", "", name).removesuffix(".weight")


def _target_pattern(matrices: Matrices) -> str:
    """Returns the pattern by which PEFT finds the modules that `matrices` change."""

    def alternatives() -> Iterator[str]:
        for target in dict.fromkeys(_target(name) for name in matrices if name.endswith(".weight")):
            yield re.escape(target) if _is_self_conditioning(target) else rf"layers\.\d+\.{re.escape(target)}"

    found = "|".join(alternatives())
    return rf"model\.(decoder|encoder\.language_model)\.({found})" if found else r"(?!)"
