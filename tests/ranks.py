"""Real process groups in tests: a function on N gloo ranks, each a process of its own."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "repro.train.loop"])


def on_ranks(ranks: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns on each rank, in order. An exception on any rank is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        queue = CONTEXT.Queue()
        processes = [
            CONTEXT.Process(target=_one_rank, args=(rank, ranks, folder, queue, function, arguments))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            answers = dict(queue.get(timeout=120) for _ in processes)
        finally:
            for process in processes:
                process.join(timeout=10)
                process.kill()
    for answer in answers.values():
        if isinstance(answer, Exception):
            raise answer
    return [answers[rank] for rank in range(ranks)]


def _one_rank(rank: int, ranks: int, folder: str, queue: Any, function: Callable[..., Any], arguments: tuple) -> None:
    import torch
    import torch.distributed as dist

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank), "TQDM_DISABLE": "1"}
    torch.set_num_threads(1)
    try:
        if ranks > 1:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
        queue.put((rank, function(*arguments)))
    except Exception as error:
        queue.put((rank, error))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
