"""The functions of kernels.cpp, on tensors.

N tokens, D hidden, H query heads, G key-value heads, d head size, E experts, K experts per token, M inner size of a
branch, t tokens of a tile. All tensors lie on the CPU; those that are read as float32 or bfloat16 share one dtype.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.native.recursions import NativeRecursions

PANEL, ROWS = 32, 8
"""Outputs and rows that `multiply` computes together, as in kernels.cpp."""

MIN_RELEASING = 10**9
"""Multiplications from which on a call gives back the interpreter's lock: some milliseconds."""

SHARE = 32
"""Tokens whose mass is kept as one number in a readout, as in kernels.cpp."""

POINTER, INTEGER, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "norm": (*[POINTER] * 3, *[INTEGER] * 2, REAL),
    "branch": (*[POINTER] * 6, REAL, *[POINTER] * 4, *[INTEGER] * 2, REAL),
    "merge": (*[POINTER] * 5, INTEGER, *[POINTER] * 4, INTEGER, POINTER, *[INTEGER] * 2, REAL),
    "heads": (*[POINTER] * 8, *[INTEGER] * 5, REAL),
    "gate": (*[POINTER] * 2, *[INTEGER] * 2),
    "route": (*[POINTER] * 7, *[INTEGER] * 4),
    "quantize": (*[POINTER] * 3, *[INTEGER] * 2),
    "scale_sums": (*[POINTER] * 4, *[INTEGER] * 2),
    "read_tile": (POINTER, REAL, *[POINTER] * 7, INTEGER, POINTER, *[INTEGER] * 3),
    "read_classes": (POINTER, REAL, *[POINTER] * 4, INTEGER, *[POINTER] * 4, *[INTEGER] * 4),
    "accumulate": (*[POINTER] * 3, *[INTEGER] * 2),
    "multiply": (*[POINTER] * 4, *[INTEGER] * 3),
    "attend": (*[POINTER] * 4, INTEGER, POINTER, *[INTEGER] * 4, *[POINTER] * 4),
}


class AttentionSpan(ctypes.Structure):
    """A segment in `attend`: rows, position of the first, cached keys and values [cached, G, d] before its own.

    `Run` in kernels.cpp. visible: how many tokens before its own a query sees; negative where each sees all there are.
    """

    _fields_ = (
        ("start", INTEGER),
        ("length", INTEGER),
        ("position", INTEGER),
        ("cached", INTEGER),
        ("visible", INTEGER),
        ("keys", POINTER),
        ("values", POINTER),
    )


class Kernels:
    """What a library built from kernels.cpp offers; each method says which plain lines it is the twin of."""

    def __init__(self, library: ctypes.CDLL) -> None:
        def of_both(name: str, *, releasing: bool = False) -> dict[torch.dtype, Callable[..., None]]:
            addresses = (POINTER * 2).in_dll(library, f"redraft_{name}")
            # They keep the interpreter's lock: given back, another thread could hold it for 5 ms at each of the
            # hundreds of calls of a step.
            made = (ctypes.CFUNCTYPE if releasing else ctypes.PYFUNCTYPE)(None, *_SIGNATURES[name])
            pairs = zip((torch.float32, torch.bfloat16), addresses, strict=True)
            return {dtype: made(address) for dtype, address in pairs if address}

        for name, value in (("panel", PANEL), ("rows", ROWS), ("share", SHARE)):
            assert INTEGER.in_dll(library, f"redraft_{name}").value == value
        self.recursions = NativeRecursions(library)
        self._release_workers: Callable[[], int] = library.redraft_release_workers
        self._run = {name: of_both(name) for name in _SIGNATURES}
        # Of these a call may take seconds, and others shall not wait for so long.
        self._releasing = {name: of_both(name, releasing=True) for name in ("multiply", "attend")}

    def release_workers(self) -> None:
        """Ends the calling thread's team of OpenMP workers, for another thread that is about to compute.

        GNU's OpenMP keeps one for each thread that has computed, and where they are more than there are cores they no
        longer wait for work but sleep: each of a step's hundreds of regions then begins with waking somebody.
        """
        self._release_workers()

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`RMSNorm` of x [N, D]."""
        x = x.contiguous()
        out = torch.empty_like(x)
        self._run["norm"][x.dtype](x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.shape[0], x.shape[1], eps)
        return out

    def branch(
        self, x: Tensor, change: Tensor, post: Tensor, dense: Tensor, router: Tensor, experts: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x + norm(change) · post, all [N, D], and of it what the dense branch, the router and the experts read.

        post, dense, experts [D] are weights of norms, router [D] is the router's scale.
        """
        n, d = x.shape
        residual, to_dense, to_router, to_experts = _new(4, n, d, dtype=x.dtype).unbind()
        self._run["branch"][x.dtype](
            x.data_ptr(), change.data_ptr(), post.data_ptr(), dense.data_ptr(), router.data_ptr(), experts.data_ptr(),
            d**-0.5, residual.data_ptr(), to_dense.data_ptr(), to_router.data_ptr(), to_experts.data_ptr(), n, d, eps,
        )  # fmt: skip
        return residual, to_dense, to_router, to_experts

    def merge(
        self, residual: Tensor, dense: Tensor, chosen: Tensor, place: Tensor, weights: Tensor,
        norms: tuple[Tensor, Tensor, Tensor], scalar: Tensor, eps: float,
    ) -> Tensor:  # fmt: skip
        """The end of `Layer.forward`: residual, dense [N, D]; chosen [N · K, D], place and weights as `route` has them.

        norms: the weights [D] behind the dense branch, behind the experts and behind both; scalar [1] or [N, 1].
        """
        n, d = residual.shape
        out = torch.empty_like(residual)
        self._run["merge"][out.dtype](
            residual.data_ptr(), dense.data_ptr(), chosen.data_ptr(), place.data_ptr(), weights.data_ptr(),
            weights.shape[1], *(norm.data_ptr() for norm in norms), scalar.data_ptr(), scalar.numel(), out.data_ptr(),
            n, d, eps,
        )  # fmt: skip
        return out

    def heads(
        self, qkv: Tensor, q_norm: Tensor, k_norm: Tensor, rope: tuple[Tensor, Tensor], query_heads: int, groups: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The end of `Attention.project`: qkv [N, (H + G + G) · d], without the last G where values are keys."""
        n, d = qkv.shape[0], q_norm.shape[0]
        has_values = qkv.shape[1] == (query_heads + 2 * groups) * d
        q = _new(n, query_heads, d, dtype=qkv.dtype)
        k, v = _new(2, n, groups, d, dtype=qkv.dtype).unbind()
        self._run["heads"][qkv.dtype](
            qkv.data_ptr(), q_norm.data_ptr(), k_norm.data_ptr(), rope[0].data_ptr(), rope[1].data_ptr(),
            q.data_ptr(), k.data_ptr(), v.data_ptr(), n, query_heads, groups, d, has_values, eps,
        )  # fmt: skip
        return q, k, v

    def gate(self, gate_up: Tensor) -> Tensor:
        """gelu(gate) × up of gate_up [N, 2M], gates first → [N, M]."""
        n, m = gate_up.shape[0], gate_up.shape[1] // 2
        out = _new(n, m, dtype=gate_up.dtype)
        self._run["gate"][out.dtype](gate_up.data_ptr(), out.data_ptr(), n, m)
        return out

    def route(self, scores: Tensor, scales: Tensor, x: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The end of `Router.forward` and the beginning of `Experts.forward`: scores [N, E], scales [E], x [N, D].

        Returns weights float32 [N, K], the place int64 [N, K] of each choice among the rows sorted by expert, each
        expert's number of rows int64 [E], and the sorted rows [N · K, D].
        """
        n, e = scores.shape
        weights, place = _new(n, k), _new(n, k, dtype=torch.int64)
        counts = _new(e, dtype=torch.int64)
        rows = _new(n * k, x.shape[1], dtype=x.dtype)
        self._run["route"][x.dtype](
            scores.data_ptr(), scales.data_ptr(), x.data_ptr(), weights.data_ptr(), place.data_ptr(),
            counts.data_ptr(), rows.data_ptr(), n, e, k, x.shape[1],
        )  # fmt: skip
        return weights, place, counts, rows

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, D] → int8 [N, D] and each row's scale float32 [N, 1], NaN where a value is not finite."""
        x = x.contiguous()
        out, scales = _new(*x.shape, dtype=torch.int8), _new(x.shape[0], 1)
        self._run["quantize"][x.dtype](x.data_ptr(), out.data_ptr(), scales.data_ptr(), *x.shape)
        return out, scales

    def scale_sums(self, sums: Tensor, rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor:
        """Integer sums int32 [N, O] times the scales of their rows [N, 1] and columns [O] → dtype [N, O]."""
        out = _new(*sums.shape, dtype=dtype)
        self._run["scale_sums"][dtype](
            sums.data_ptr(), rows.data_ptr(), columns.data_ptr(), out.data_ptr(), *sums.shape
        )
        return out

    def read_tile(
        self, logits: Tensor, softcap: float, sharpness: Tensor, highest: Tensor, argmax: Tensor, mass: Tensor,
        moment: Tensor, shares: Tensor, first: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Takes a tile of logits [N, t], before the softcap, into a readout's running sums, in place.

        shares float32 [N, ⌈t / SHARE⌉], a slice of rows, receives the masses. Returns what goes into the product with
        the embedding [N, t], filled up with zeros to whole shares, and how much the sums shrank, float32 [N, 1].
        """
        n, t = logits.shape
        probabilities, shrunk = _new(n, -(-t // SHARE) * SHARE, dtype=logits.dtype), _new(n, 1)
        self._run["read_tile"][logits.dtype](
            logits.data_ptr(), softcap, sharpness.data_ptr(), highest.data_ptr(), argmax.data_ptr(), mass.data_ptr(),
            moment.data_ptr(), probabilities.data_ptr(), shares.data_ptr(), shares.stride(0), shrunk.data_ptr(),
            n, t, first,
        )  # fmt: skip
        return probabilities, shrunk

    def read_classes(
        self, logits: Tensor, softcap: float, sharpness: Tensor, groups: tuple[Tensor, Tensor, Tensor],
        highest: Tensor, best: Tensor, mass: Tensor, moment: Tensor, first: int,
    ) -> None:  # fmt: skip
        """Takes a tile of logits [N, t], before the softcap, into the running sums [N, classes], in place.

        groups: the `order`, `begin` and `classes` of a `ClassTile`. sharpness, highest are float32.
        """
        order, begin, classes = groups
        self._run["read_classes"][logits.dtype](
            logits.data_ptr(), softcap, sharpness.data_ptr(), order.data_ptr(), begin.data_ptr(), classes.data_ptr(),
            len(classes), highest.data_ptr(), best.data_ptr(), mass.data_ptr(), moment.data_ptr(), *logits.shape, first,
            highest.shape[1],
        )  # fmt: skip

    def accumulate(self, soft: Tensor, shrunk: Tensor, part: Tensor) -> None:
        """soft float32 [N, D] becomes soft · shrunk [N, 1] + part [N, D]."""
        self._run["accumulate"][part.dtype](soft.data_ptr(), shrunk.data_ptr(), part.data_ptr(), *part.shape)

    def has_attend(self, dtype: torch.dtype) -> bool:
        """Whether there is an `attend` for queries of this dtype here."""
        return dtype in self._run["attend"]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, spans: Sequence[AttentionSpan]) -> Tensor:
        """What `SegmentedAttention.attend` does for q [N, H, d], k and v [N, G, d]; rows of no span stay zero."""
        heads, d = q.shape[1:]
        groups = k.shape[1]
        # As Extent in kernels.cpp has it.
        padded = [
            -(-((span.position - span.cached) % PANEL + span.cached + span.length) // PANEL) * PANEL for span in spans
        ]  # fmt: skip
        threads, most = torch.get_num_threads(), max(padded)
        # Taken here, since what a kernel cannot get ends the process.
        keys = _new(groups * sum(padded) * d, dtype=q.dtype)
        values = _new(groups * sum(padded) * -(-d // PANEL) * PANEL, dtype=q.dtype)
        scratch, buffer = _new(threads, ROWS * (most + 2 * d), dtype=q.dtype), _new(threads, most)
        out = torch.zeros_like(q)
        work = heads * d * sum(span.length * one for span, one in zip(spans, padded, strict=True))
        chosen = self._releasing["attend"] if work > MIN_RELEASING else self._run["attend"]
        chosen[q.dtype](
            q.data_ptr(), k.data_ptr(), v.data_ptr(), (AttentionSpan * len(spans))(*spans), len(spans),
            out.data_ptr(), heads, groups, d, most, keys.data_ptr(), values.data_ptr(), scratch.data_ptr(),
            buffer.data_ptr(),
        )  # fmt: skip
        return out

    def has_multiply(self, dtype: torch.dtype, *inputs: int) -> bool:
        """Whether `multiply` is the better product here, for rows of each of these numbers of inputs.

        Where the processor multiplies bfloat16 matrices by itself (AMX), torch's products are.
        """
        if dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported():
            return False
        return dtype in self._run["multiply"] and all(one % (4 // dtype.itemsize) == 0 for one in inputs)

    def multiply(self, x: Tensor, packed: Tensor, counts: Tensor | None, outputs: int) -> Tensor:
        """x [n, I] sorted by matrix, counts int64 [m] rows of each (None: one matrix) → [n, outputs].

        packed is what `packed_panels` made of the weights [m, outputs, I].
        """
        x = x.contiguous()
        out = _new(x.shape[0], outputs, dtype=x.dtype)
        rows = ctypes.byref(INTEGER(x.shape[0])) if counts is None else counts.data_ptr()
        matrices = 1 if counts is None else counts.shape[0]
        chosen = self._releasing["multiply"] if x.numel() * outputs > MIN_RELEASING else self._run["multiply"]
        chosen[x.dtype](
            x.data_ptr(), packed.data_ptr(), rows, out.data_ptr(), matrices, x.shape[1], outputs
        )  # fmt: skip
        return out


def _new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An empty tensor for a kernel to write; what the program's defaults are does not matter."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def packed_panels(weights: Tensor) -> Tensor:
    """weights [m, O, I] in the order in which `multiply` reads them: [m, ⌈O / PANEL⌉, I / s, PANEL, s].

    s values take 4 bytes.
    """
    matrices, outputs, inputs = weights.shape
    side_by_side = 4 // weights.element_size()
    padded = F.pad(weights, (0, 0, 0, -outputs % PANEL))
    panels = padded.view(matrices, -1, PANEL, inputs // side_by_side, side_by_side)
    return panels.transpose(2, 3).contiguous()
