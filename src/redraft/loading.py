"""From the name of a checkpoint to a model that answers: where it runs, and in what precision."""

import os
from collections.abc import Mapping

from redraft.api import Model
from redraft.diffusion.settings import SamplerSettings
from redraft.model.precision import Precision, check_precision
from redraft.model.preparation import prepare
from redraft.text import TextTokenizer
from redraft.text.trust.calibration import read_calibration
from redraft.utils.forks import mark_loaded
from redraft.utils.threads import requested_threads
from redraft.weights.card import read_card
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.config.file import read_generation_config
from redraft.weights.fetch import resolve
from redraft.weights.memory import check_fits
from redraft.weights.placement import choose_precision, pick_device


def load(
    name_or_path: str | os.PathLike[str] = "bundled",
    *,
    device: str = "auto",
    precision: str = "auto",
    adapters: Mapping[str, str | os.PathLike[str]] | None = None,
) -> Model:
    """Loads a checkpoint: "bundled", a folder, or a name on the Hugging Face hub (fetched, or taken from its cache).

    device: "auto" (CUDA where there is one, untested here), "cpu" or "cuda". precision: "float32"; "bf16"; "int8"
    (integer products, the rest in bf16); "int8-weight-only" or "int4-weight-only" (the layers' matrices in so many
    bits, products in bf16: for memory); "auto" is float32 on a CPU where the weights take less than 4 GB, else bf16,
    and of a quantized checkpoint what it is stored in. adapters: by name, the folders that `Model.load_adapter` loads;
    a call then asks for one by `adapter=`. ValueError says what is wrong with it, before anything is read
    where it would not fit into memory.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise ValueError(f"the model is {name_or_path!r}, must be 'bundled', a folder, or a name on the hub")
    mark_loaded()
    requested_threads()  # a bad REDRAFT_THREADS is refused before anything is read
    place = pick_device(device)
    check_precision(precision)
    folder = resolve(os.fspath(name_or_path))
    checkpoint = Checkpoint.open(folder)
    chosen = choose_precision(checkpoint, place, precision)
    if place.type == "cpu":
        check_fits(checkpoint, chosen)
    transformer = prepare(load_model(checkpoint, dtype=Precision.named(chosen).dtype, device=place), chosen)
    tokenizer = TextTokenizer.load(folder)
    tokenizer.check_fits(transformer.config.vocab_size, folder)
    defaults = SamplerSettings.from_generation_config(read_generation_config(folder) or {})
    model = Model(
        os.fspath(name_or_path), transformer, tokenizer, defaults, read_card(folder), folder=folder,
        calibration=read_calibration(folder),
    )  # fmt: skip
    for name, adapter in (adapters or {}).items():
        model.load_adapter(adapter, name)
    return model
