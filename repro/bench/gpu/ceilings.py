"""Ceilings of the machine: matrix products, copies, decoding. Inputs are random: zeros multiply faster."""

import io
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pandas as pd
import torch
from PIL import Image

from repro.bench.gpu.place import NOTHING_EXPECTED, Expected, Place
from repro.bench.measure import median_seconds
from repro.config.hardware import processor_and_cores
from repro.loss.tiles import add_product

PACKAGES = ("torch", "triton", "torchvision", "open_clip_torch", "timm", "numpy", "siglip-kernel", "inf_cl")
SQUARE = "square bf16 product"
"""The case, up to its sizes, whose rate is the card's: shares of the product rate refer to it."""
RATE = "product rate"
PRODUCT_SECONDS = 1.5
IMAGE_SIZE = 224


def measure(place: Place) -> None:
    _describe(place)
    _measure_products(place)
    _measure_copy(place)
    _measure_decoding(place)


def product_rate(place: Place) -> float | None:
    """Operations a second of the square product, as this section recorded it; None where it did not."""
    file = place.out / "machine.csv"
    if not file.exists():
        return None
    table = pd.read_csv(file, keep_default_na=False)
    found = table[table["case"].str.startswith(SQUARE) & (table["quantity"] == RATE)]["measured"]
    return 1e12 * float(found.iloc[0]) if len(found) else None


def _describe(place: Place) -> None:
    place.rows.add("machine", "processor", processor_and_cores())
    place.rows.add("machine", "python", platform.python_version())
    for name in PACKAGES:
        try:
            place.rows.add("machine", name, version(name))
        except PackageNotFoundError:
            place.rows.add_missing("machine", "not run", "not installed", name)
    if place.toy:
        place.rows.add_missing("machine", "not run", "no GPU in a rehearsal", "card")
        return
    card = torch.cuda.get_device_properties(0)
    place.rows.add("machine", "card", card.name)
    place.rows.add("machine", "memory", card.total_memory, "bytes")
    place.rows.add("machine", "L2 cache", card.L2_cache_size, "bytes")
    asked = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603
        place.rows.add("machine", "driver, clock, power limit", said.stdout.strip())
    except (OSError, subprocess.SubprocessError) as error:
        place.rows.add_missing("machine", "failed", f"nvidia-smi: {error}", "driver, clock, power limit")


def _measure_products(place: Place) -> None:
    """bf16 products: square ones, and those of a tile of the loss [b, b] at dimension d, summed in fp32."""
    side, tile, dim = (256, 256, 64) if place.toy else (8192, 16_384, 768)
    _measure_square(place, side)
    features = [[_random(place, tile, dim) for _ in range(2)] for _ in range(3)]
    logits = torch.empty(tile, tile, device=place.torch_device, dtype=torch.bfloat16)
    residual = _random(place, tile, tile).mul_(1e-3)
    gradient = torch.zeros(tile, dim, device=place.torch_device)
    added = f"{tile} x {tile} x {dim}, added up in fp32"

    def similarity(n: int) -> object:
        return torch.mm(features[n % 3][0], features[n % 3][1].T, out=logits)

    def of_images(n: int) -> object:
        return add_product(gradient, residual, features[n % 3][1])

    def of_texts(n: int) -> object:
        return add_product(gradient, residual.T, features[n % 3][0])

    _add_rate(place, f"loss: images by texts, {tile} x {dim} x {tile}", similarity, tile * tile * dim)
    _add_rate(place, f"loss: gradient of the images, {added}", of_images, tile * tile * dim)
    _add_rate(place, f"loss: gradient of the texts (transposed), {added}", of_texts, tile * tile * dim)


def _measure_square(place: Place, side: int) -> None:
    """In a function of its own, which gives the memory back."""
    pairs = [[_random(place, side, side) for _ in range(2)] for _ in range(3)]
    out = torch.empty_like(pairs[0][0])
    expected = place.expected("769 to 798 (H100, H200)")
    case = f"{SQUARE}, {side} x {side} x {side}"
    _add_rate(place, case, lambda n: torch.mm(*pairs[n % 3], out=out), side**3, expected)


def _random(place: Place, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=place.torch_device, dtype=torch.bfloat16)


def _add_rate(
    place: Place, case: str, call: Callable[[int], object], products: int, expected: Expected = NOTHING_EXPECTED
) -> None:
    """products: multiplications of one call, each of which goes with an addition."""
    seconds = median_seconds(call, place.torch_device, PRODUCT_SECONDS, repeats=5 if place.toy else 100)
    place.rows.add(case, RATE, 2e-12 * products / seconds, "TFLOP/s", expected)


def _measure_copy(place: Place) -> None:
    count = 2**22 if place.toy else 2**29
    sources = [torch.randn(count, device=place.torch_device) for _ in range(2)]
    target = torch.empty_like(sources[0])
    seconds = median_seconds(lambda n: target.copy_(sources[n % 2]), place.torch_device, PRODUCT_SECONDS)
    expected = place.expected("3.0 (H100), 4.3 (H200)")
    place.rows.add("copy on the device", "read and written", 2e-12 * target.nbytes / seconds, "TB/s", expected)


def photo_like_jpegs(count: int, seed: int = 0, size: tuple[int, int] = (500, 375)) -> list[bytes]:
    """JPEG files of smooth colours with grain: about as long, and as long to decode, as photographs of that size."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        grain = generator.normal(0, 16, smooth.shape).astype(np.float32)
        file = io.BytesIO()
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        found.append(file.getvalue())
    return found


def _measure_decoding(place: Place) -> None:
    jpegs, enough = photo_like_jpegs(8 if place.toy else 32), 0.3 if place.toy else 2.0
    place.rows.add("JPEG of 500 x 375", "mean size", sum(map(len, jpegs)) / len(jpegs), "bytes")
    case = f"JPEG of 500 x 375, decoded and resized to {IMAGE_SIZE} px"
    place.rows.add(case, "one core", _decode_for(jpegs, enough), "images/s", place.expected("300 to 450"))
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchvision.transforms", "repro.data.pairs"])
    with context.Pool(cores) as pool:
        pool.starmap(_decode_for, [(jpegs, 0.01)] * cores, chunksize=1)  # imports
        together = sum(pool.starmap(_decode_for, [(jpegs, enough)] * cores, chunksize=1))
    expected = place.expected("4800 to 7200 (16 cores)")
    place.rows.add(case, f"all {cores} cores", together, "images/s", expected)


def _decode_for(jpegs: list[bytes], enough_seconds: float) -> float:
    """Images a second of this process, by what training decodes with."""
    from torchvision.transforms import InterpolationMode, Resize

    from repro.data.pairs import decode_image

    torch.set_num_threads(1)
    resize = Resize((IMAGE_SIZE, IMAGE_SIZE), InterpolationMode.BICUBIC)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < enough_seconds:
        decode_image(jpegs[done % len(jpegs)], resize)
        done += 1
    return done / (time.perf_counter() - started)
