"""The loss implementations that are measured: ours, the plain formula, and peers', by name; and on what inputs.

Each makes a callable (image_features, text_features, logit_scale[, logit_bias]) → this rank's loss for the place
(rank, ranks). Adding one is adding a line to IMPLEMENTATIONS.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from repro.config.errors import InputError, nearest
from repro.config.units import format_batch_size
from repro.loss.registry import LOSSES

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
LOGIT_SCALE, LOGIT_BIAS = 10.0, -10.0
"""t and b where SigLIP starts (section 3.2)."""
EXCHANGES = ("ring", "ring-bidirectional", "gather")
Loss = Callable[..., object]


@dataclass(frozen=True)
class Setting:
    """One combination to measure. local_batch: the examples of one rank. threads: CPU threads of one rank."""

    loss: str
    ranks: int
    local_batch: int
    dim: int
    dtype: str
    device: str
    threads: int

    @property
    def batch_size(self) -> int:
        return self.ranks * self.local_batch

    @property
    def operations(self) -> int:
        """Multiplications and additions of one rank's matrix products."""
        return LOSSES[self.loss].products * 2 * self.local_batch * self.batch_size * self.dim

    @property
    def label(self) -> str:
        ranks = f"{self.ranks} rank" + "s" * (self.ranks > 1)
        size = format_batch_size(self.local_batch)
        return f"{self.loss}, {ranks} × {size}, d {self.dim}, {self.dtype}, {self.device}"


def embeddings(setting: Setting, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A rank's images and texts, [b, d] each, L2-normalised in fp32 and then cast: the same numbers at every call.

    They resemble a trained model's: a text lies at 45° from its image, and all else is nearly orthogonal.
    """
    generator = torch.Generator(setting.device).manual_seed(rank)
    shape = (setting.local_batch, setting.dim)
    images, noise = (
        F.normalize(torch.randn(shape, generator=generator, device=setting.device), dim=-1) for _ in range(2)
    )
    texts = F.normalize(noise.add_(images), dim=-1)
    return images.to(DTYPES[setting.dtype]), texts.to(DTYPES[setting.dtype])


@dataclass(frozen=True)
class Implementation:
    """
    make: (rank, ranks) → the loss; called in the process that is measured.
    package: what must be installed, and where its name on the package index differs, `install`.
    alone: the implementation that this one is on a single rank, where it differs in the exchange only.
    matrices: similarity-sized matrices that it is known to hold at least, of b × B (whole: B × B) elements.
    feature_power, scale_power: of the number of ranks, by which its gradients of features, and of t and b, are
        multiplied to be (1/b)·(a rank's rows) averaged over ranks, where its author's convention is another.
    """

    name: str
    loss: str
    make: Callable[[int, int], Loss]
    package: str = ""
    install: str = ""
    needs_cuda: bool = False
    alone: str = ""
    matrices: int = 0
    whole: bool = False
    feature_power: int = 0
    scale_power: int = 0

    def obstacle(self, setting: Setting) -> str:
        """Why it cannot be measured there; empty where it can."""
        if setting.ranks == 1 and self.alone:
            return f"the same as {self.alone} on one rank, which has no exchange"
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"not installed: pip install {self.install}"
        if self.needs_cuda and setting.device != "cuda":
            return "its Triton kernels need cuda"
        return ""

    def least_bytes(self, setting: Setting) -> int:
        """Memory that a rank is known to need at least."""
        rows = setting.batch_size if self.whole else setting.local_batch
        return self.matrices * rows * setting.batch_size * DTYPES[setting.dtype].itemsize


def select(names: Sequence[str], losses: Sequence[str]) -> list[Implementation]:
    """Those of the named losses; all where no name is given, and all of a family by its first word (open_clip).

    Raises InputError with the nearest name.
    """
    of_losses = [i for i in IMPLEMENTATIONS if i.loss in losses]
    single = {i.name for i in of_losses}
    families = {name.split("-")[0] for name in single if "-" in name} - single
    for name in names:
        if name not in single | families:
            raise InputError(f"--impl: unknown implementation '{name}'{nearest(name, single | families)}")
    return [
        i for i in of_losses if not names or i.name in names or i.name.split("-")[0] in families.intersection(names)
    ]


def _ours(loss: str, exchange: str, rank: int, ranks: int) -> Loss:
    return LOSSES[loss].make(exchange)


def _plain(loss: str, rank: int, ranks: int) -> Loss:
    return LOSSES[loss].make_plain()


def _open_clip_sigmoid(dist_impl: str, rank: int, ranks: int) -> Loss:
    from open_clip.loss import SigLipLoss

    return SigLipLoss(rank=rank, world_size=ranks, dist_impl=dist_impl)


def _open_clip_softmax(options: dict[str, bool], rank: int, ranks: int) -> Loss:
    from open_clip.loss import ClipLoss

    return ClipLoss(**options, rank=rank, world_size=ranks)


def _siglip_kernel(rank: int, ranks: int) -> Loss:
    from siglip_kernel import fused_siglip_loss
    from siglip_kernel.distributed import DistributedSigLIPLoss

    if ranks > 1:
        return DistributedSigLIPLoss(strategy="ring", rank=rank, world_size=ranks)
    return lambda images, texts, scale, bias: fused_siglip_loss(images, texts, scale.log(), bias)


def _inf_cl(function: str, rank: int, ranks: int) -> Loss:
    import inf_cl

    def loss(images, texts, scale):
        # Its kernels take heads of 16 to 256 elements, whose number does not change the result.
        options = {"scale": scale, "head_dim": math.gcd(images.shape[1], 256)}
        if ranks == 1:  # its ring sums the gradient of the scale over ranks, and so needs a group
            one_way = partial(inf_cl.cal_flash_loss, **options)
        else:
            one_way = partial(getattr(inf_cl, function), **options)
        return (one_way(images, texts).mean() + one_way(texts, images).mean()) / 2

    return loss


_OPEN_CLIP = {"package": "open_clip", "install": "open_clip_torch", "matrices": 3}
_BIDIR, _GLOBAL = "open_clip-bidir", "open_clip-global"
_CUDA = {"needs_cuda": True, "install": "'siglip-repro[peers]'"}
_INF_CL = {"package": "inf_cl", "scale_power": -1, **_CUDA}  # it sums over ranks what trainers then average

IMPLEMENTATIONS: tuple[Implementation, ...] = (
    *(
        Implementation(f"repro-{way}", loss, partial(_ours, loss, way), alone="" if way == "ring" else "repro-ring")
        for loss in LOSSES
        for way in EXCHANGES
    ),
    *(Implementation("plain", loss, partial(_plain, loss), matrices=3) for loss in LOSSES),
    Implementation(_BIDIR, "sigmoid", partial(_open_clip_sigmoid, "bidir"), **_OPEN_CLIP),
    *(
        Implementation(f"open_clip-{way}", "sigmoid", partial(_open_clip_sigmoid, way), alone=_BIDIR, **_OPEN_CLIP)
        for way in ("shift", "reduce", "gather")
    ),
    # Every rank takes the mean over the whole batch.
    Implementation(_GLOBAL, "softmax", partial(_open_clip_softmax, {}), whole=True, feature_power=1, **_OPEN_CLIP),
    *(
        Implementation(f"open_clip-{name}", "softmax", partial(_open_clip_softmax, how), alone=_GLOBAL, **options)
        for name, how, options in (
            ("gather-with-grad", {"gather_with_grad": True}, {"whole": True, **_OPEN_CLIP}),
            ("local-loss", {"gather_with_grad": True, "local_loss": True}, _OPEN_CLIP),
        )
    ),
    Implementation("siglip-kernel", "sigmoid", _siglip_kernel, package="siglip_kernel", **_CUDA),
    Implementation("inf-cl", "softmax", partial(_inf_cl, "cal_inf_loss"), **_INF_CL),
    Implementation("inf-cl-ring", "softmax", partial(_inf_cl, "cal_ring_loss"), alone="inf-cl", **_INF_CL),
)
