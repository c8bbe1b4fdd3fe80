"""Evaluation sets by name: clip-benchmark's own, what else people call them, and collections of several.

Which there are is read from clip-benchmark's source, without the seconds of importing torchvision. One that is not on
disk ($REPRO_DATASETS, or the cache) is downloaded by clip-benchmark before the first run starts, where it can be.
"""

import ast
import functools
import importlib.util
import os
import shutil
from pathlib import Path

from repro.config.errors import InputError
from repro.config.files import cache_folder

OTHER_NAMES = {
    "imagenet1k": ("imagenet", "imagenet2012", "imagenet-1k", "imagenet_1k", "in1k", "i1k", "ilsvrc2012"),
    "imagenetv2": ("imagenet_v2", "imagenet-v2"),
    "imagenet-a": ("imagenet_a",),
    "imagenet-r": ("imagenet_r",),
    "imagenet_sketch": ("imagenet-sketch",),
    "imagenet1k_real": ("imagenet2012_real",),
    "imagenet1k_minival": ("imagenet2012_minival",),
    "mscoco_captions": ("coco", "coco_captions", "mscoco"),
    "flickr30k": ("flickr", "flickr30k_captions"),
    "crossmodal3600": ("xm3600",),
    "pets": ("oxford_pets", "oxford-pets", "oxford_iiit_pet"),
    "cifar100": ("cifar-100",),
    "cifar10": ("cifar-10",),
}
"""clip-benchmark's names of data sets, which are ours, and what other projects call them."""
BY_OTHER_NAME = {other: name for name, others in OTHER_NAMES.items() for other in others}

DATACOMP = (
    *("cifar10", "country211", "fgvc_aircraft", "food101", "gtsrb", "imagenet1k", "imagenet_sketch", "imagenetv2"),
    *("imagenet-a", "imagenet-o", "imagenet-r", "mnist", "objectnet", "voc2007", "renderedsst2", "cars", "stl10"),
    *("sun397", "vtab/caltech101", "vtab/cifar100", "vtab/clevr_count_all", "vtab/clevr_closest_object_distance"),
    *("vtab/dtd", "vtab/eurosat", "vtab/flowers", "vtab/kitti_closest_vehicle_distance", "vtab/pets", "vtab/pcam"),
    *("vtab/resisc45", "vtab/svhn"),
)
"""Classification sets of DataComp's 38 (its tasklist.yml), which lie on the hub in clip-benchmark's form."""
DATACOMP_HUB = "https://huggingface.co/datasets/djghosh/{}/tree/main"
DATACOMP_RETRIEVAL = ("flickr30k", "mscoco_captions")
NOT_READ = "WinoGAViL, iWildCam, Camelyon17, FMoW, Dollar Street and GeoDE"
"""The other six of DataComp's 38: their labels and metrics are its own, and clip-benchmark reads none of them."""

NEEDS_PACKAGES = {
    "vtab/": ("tensorflow_datasets", "task_adaptation"),
    "imagenet-w": ("imagenet_w",),
    "winoground": ("datasets",),
}
NEEDS_COMMAND = {
    **dict.fromkeys(("flickr30k", "flickr8k", "fer2013", "vtab/diabetic_retinopathy"), "kaggle"),
    "imagenet_sketch": "gdown",
    **dict.fromkeys(("imagenet1k", "imagenet-a", "imagenet-r", "imagenet-o", "objectnet", "mscoco_captions"), "wget"),
    "sugar_crepe/": "wget",
}
"""Prefixes of names, and what clip-benchmark downloads them with."""


def named_datasets_folder() -> Path:
    """Where the data sets lie that clip-benchmark knows by name: $REPRO_DATASETS, or in the cache."""
    return Path(os.environ.get("REPRO_DATASETS") or cache_folder() / "datasets")


def root_of(name: str) -> Path:
    """The folder of one of them; the parts of SugarCrepe share the images of theirs."""
    return named_datasets_folder() / (name.split("/")[0] if name.startswith("sugar_crepe/") else name)


@functools.cache
def _builder() -> ast.Module:
    """clip-benchmark's module that builds data sets, not run."""
    folder = Path(importlib.util.find_spec("clip_benchmark").origin).parent
    return ast.parse((folder / "datasets" / "builder.py").read_text())


@functools.cache
def collections() -> dict[str, tuple[str, ...]]:
    """Names that stand for several data sets: clip-benchmark's, and DataComp's."""
    assigned = (line for line in _builder().body if isinstance(line, ast.Assign))
    (found,) = (ast.literal_eval(each.value) for each in assigned if each.targets[0].id == "dataset_collection")
    datacomp = (*(f"datacomp/{name}" for name in DATACOMP), *DATACOMP_RETRIEVAL)
    return {name: tuple(sets) for name, sets in found.items()} | {"datacomp": datacomp}


@functools.cache
def known_datasets() -> tuple[str, ...]:
    """The names that clip-benchmark builds a data set for, and DataComp's on the hub."""
    (build,) = (each for each in _builder().body if getattr(each, "name", "") == "build_dataset")
    compared = (each for each in ast.walk(build) if isinstance(each, ast.Compare))
    of_names = (each.comparators for each in compared if getattr(each.left, "id", "") == "dataset_name")
    plain = {value.value for values in of_names for value in values if isinstance(value, ast.Constant)}
    return tuple(sorted((plain - {"dummy"}).union(*collections().values())))


def sets_of(name: str) -> tuple[str, ...]:
    """The data sets that a name stands for: those of a collection, what else one is called, or the name itself.

    One of DataComp's is its folder where it is on disk, and its address on the hub where it is not.
    """
    found = collections().get(name) or (BY_OTHER_NAME.get(name, name),)
    return tuple(_datacomp(each) if each.startswith("datacomp/") else each for each in found)


def _datacomp(name: str) -> str:
    repository = f"wds_{name.removeprefix('datacomp/').replace('/', '-')}_test"
    folder = named_datasets_folder() / repository
    return str(folder) if folder.is_dir() else DATACOMP_HUB.format(repository)


def is_on_disk(name: str) -> bool:
    root = root_of(name)
    return root.is_dir() and any(root.iterdir())


def check_obtainable(name: str) -> None:
    """Raises InputError for a data set that is not on disk and cannot be downloaded from here, with what is lacking."""
    if is_on_disk(name):
        return
    packages = next((needed for prefix, needed in NEEDS_PACKAGES.items() if name.startswith(prefix)), ())
    lacking = [f"the package {each}" for each in packages if importlib.util.find_spec(each) is None]
    command = next((needed for prefix, needed in NEEDS_COMMAND.items() if name.startswith(prefix)), None)
    if command and shutil.which(command) is None:
        lacking.append(f"the command {command}")
    if lacking:
        plain = name.removeprefix("vtab/")
        other = f"; {plain} needs none of them" if plain != name and plain in known_datasets() else ""
        raise InputError(
            f"--eval {name}: not on disk ({root_of(name)}), and to download it clip-benchmark needs "
            f"{' and '.join(lacking)}{other}"
        )
