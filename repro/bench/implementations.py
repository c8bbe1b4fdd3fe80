"""The loss implementations that are measured: ours, the plain formula, and peers', by name; and why one cannot run.

Each makes a callable (image_features, text_features, logit_scale[, logit_bias]) → this rank's loss for the place
(rank, ranks). Adding one is adding a line to IMPLEMENTATIONS.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from repro.bench.setting import Setting
from repro.config.errors import InputError, nearest
from repro.loss.registry import LOSSES

Loss = Callable[..., object]


def _one(ranks: int) -> float:
    return 1.0


def _share(ranks: int) -> float:
    return 1 / ranks


@dataclass(frozen=True)
class Implementation:
    """
    make: (rank, ranks) → the loss; called in the process that is measured.
    package: what must be installed, and where its name on the package index differs, `install`.
    alone: the implementation that this one is on a single rank, where it differs in the exchange only.
    matrices: similarity-sized matrices that it is known to hold at least, of b × B (whole: B × B) elements.
    feature_factor, scale_factor: (ranks) → what its gradients of features, and of t and b, are multiplied by to
        be (1/b)·(a rank's rows) averaged over ranks, where its author's convention is another.
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
    feature_factor: Callable[[int], float] = _one
    scale_factor: Callable[[int], float] = _one

    def obstacle(self, setting: Setting) -> str:
        """Why it cannot be measured there; empty where it can."""
        if setting.ranks == 1 and self.alone:
            return f"the same as {self.alone} on one rank, which has no exchange"
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"not installed: pip install {self.install}"
        if self.needs_cuda and setting.device != "cuda":
            return "its Triton kernels need cuda"
        return ""

    def least_bytes(self, setting: Setting, itemsize: int) -> int:
        """Memory that a rank is known to need at least."""
        rows = setting.batch_size if self.whole else setting.local_batch
        return self.matrices * rows * setting.batch_size * itemsize


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


def _open_clip_softmax(local_loss: bool, gather_with_grad: bool, rank: int, ranks: int) -> Loss:
    from open_clip.loss import ClipLoss

    return ClipLoss(local_loss=local_loss, gather_with_grad=gather_with_grad, rank=rank, world_size=ranks)


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


_EXCHANGES = ("ring", "ring-bidirectional", "gather")
_OPEN_CLIP = {"package": "open_clip", "install": "open_clip_torch"}
_INF_CL = {"package": "inf_cl", "install": "'siglip-repro[peers]'", "needs_cuda": True}

IMPLEMENTATIONS: tuple[Implementation, ...] = (
    *(
        Implementation(f"repro-{e}", loss, partial(_ours, loss, e), alone="" if e == "ring" else "repro-ring")
        for loss in LOSSES
        for e in _EXCHANGES
    ),
    *(Implementation("plain", loss, partial(_plain, loss), matrices=3) for loss in LOSSES),
    *(
        Implementation(
            f"open_clip-{dist_impl}",
            "sigmoid",
            partial(_open_clip_sigmoid, dist_impl),
            alone="" if dist_impl == "bidir" else "open_clip-bidir",
            matrices=3,
            **_OPEN_CLIP,
        )
        for dist_impl in ("bidir", "shift", "reduce", "gather")
    ),
    Implementation(
        "open_clip-global",
        "softmax",
        partial(_open_clip_softmax, False, False),
        whole=True,
        matrices=3,
        feature_factor=float,  # every rank takes the mean over the whole batch
        **_OPEN_CLIP,
    ),
    Implementation(
        "open_clip-gather-with-grad",
        "softmax",
        partial(_open_clip_softmax, False, True),
        alone="open_clip-global",
        whole=True,
        matrices=3,
        **_OPEN_CLIP,
    ),
    Implementation(
        "open_clip-local-loss",
        "softmax",
        partial(_open_clip_softmax, True, True),
        alone="open_clip-global",
        matrices=3,
        **_OPEN_CLIP,
    ),
    Implementation(
        "siglip-kernel",
        "sigmoid",
        _siglip_kernel,
        package="siglip_kernel",
        install="'siglip-repro[peers]'",
        needs_cuda=True,
    ),
    Implementation(
        "inf-cl",
        "softmax",
        partial(_inf_cl, "cal_inf_loss"),
        scale_factor=_share,  # it sums over ranks what trainers then average
        **_INF_CL,
    ),
    Implementation(
        "inf-cl-ring",
        "softmax",
        partial(_inf_cl, "cal_ring_loss"),
        alone="inf-cl",
        scale_factor=_share,
        **_INF_CL,
    ),
)
