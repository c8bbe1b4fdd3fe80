"""The state of training on one rank, one step of it, and what of it goes to disk and comes back."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from repro.config.errors import BadData, Diverged, InputError
from repro.config.files import full_disk_named, write_json
from repro.config.spec import RunSpec
from repro.data.pairs import PairBatch
from repro.loss import Negatives, NonFiniteError, make_loss
from repro.loss.exchange import measure_waiting
from repro.models import build
from repro.models.build import bottleneck_tokens, stock_weights
from repro.models.initial import initialise
from repro.models.pretrained import VISUAL, image_tower_weights, load_image_tower
from repro.runs.directory import RunDirectory
from repro.runs.liveness import WAITING, activity
from repro.train import distributed
from repro.train.checkpoint import Background, Checkpoints
from repro.train.failures import LossBound, describe_bad, out_of_memory_named, write_bad
from repro.train.meters import Clock, mean_logits, norm, peak_memory_bytes
from repro.train.open_data import open_data
from repro.train.optim import describe_groups, lock_towers, make_optimizer, schedule, set_learning_rate
from repro.train.state import from_first_rank, random_state, set_random_state, to_host
from repro.train.step import accumulate_gradient, in_turn, side_by_side

MIN_SAMPLES_FOR_A_SHARE = 1000
"""A share of bad samples is taken of at least this many, so that one early bad sample ends no run."""


class Trainer:
    """The state of one rank's training: towers, optimizer, place in the data, and what was measured on the way."""

    def __init__(
        self,
        spec: RunSpec,
        directory: RunDirectory,
        device: torch.device,
        checkpoints: Checkpoints,
        micro_batch: int | None = None,
    ):
        self.spec, self.directory, self.device, self.checkpoints = spec, directory, device, checkpoints
        self.rank, self.ranks = distributed.rank(), distributed.ranks()
        with distributed.rank_0_first():
            if self.rank == 0:
                starts = spec.init_logit_scale, spec.init_logit_bias
                build.export(spec.model, directory.checkpoints, *starts, spec.interpolation)
        torch.manual_seed(spec.seed)
        self.frozen = spec.reads_embeddings
        self.towers = build.load(directory.checkpoints, device, image_tower=not self.frozen)
        self.model = self.towers.model
        if spec.init == "authors":
            initialise(self.model, spec.seed)
        if spec.token_bottleneck is not None:
            bottleneck_tokens(self.model, spec.token_bottleneck, f"model {spec.model}")
        if spec.setup == "finetune":
            load_image_tower(self.model, spec.model, spec.pretrained, may_lack=("head.",))
        distributed.broadcast_weights(self.model.state_dict())
        self.learning = self.set_train_mode()
        _refuse_dropout(self.model, spec)
        self.pairs, self.bad = open_data(spec, self.towers)
        self.unusable_at_scan = sum(self.bad.values())
        if self.logit_bias is not None:
            self.logit_bias.requires_grad_(spec.learn_logit_bias)
        self.optimizer = make_optimizer(self.model, spec)
        with distributed.rank_0_first():
            if self.rank == 0:
                write_json(directory.optimizer_file, describe_groups(self.model, spec))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        chosen = spec.negatives != "all"
        negatives = Negatives(spec.negatives, spec.negatives_share, spec.seed) if chosen else None
        self.loss = make_loss(spec.loss, spec.exchange, negatives)
        beside = device.type == "cpu" and spec.threads > 1 and not self.frozen  # a text tower alone gets all threads
        self.both = side_by_side(spec.threads) if beside else in_turn
        self.local_batch = spec.batch_size // self.ranks
        self.micro_batch = min(self.local_batch, spec.micro_batch, micro_batch or spec.micro_batch)
        self.clock = Clock.on(device)
        self.loss_bound = LossBound(spec)
        self.step = 0
        self.last_loss = math.nan
        self.last_logits = (math.nan, math.nan)
        """Mean logits of positives and negatives when they were last measured."""

    @property
    def examples_seen(self) -> int:
        return self.step * self.spec.batch_size

    def set_train_mode(self) -> tuple[bool, bool]:
        """Set the model to training, locked towers aside; returns whether the image and the text tower learn."""
        self.model.train()
        locked = lock_towers(self.model, self.spec)
        return not locked["image"], not locked["text"]

    def restore(self) -> None:
        """Go on from the newest good checkpoint, if there is one: rank 0's choice, sent to all. The log follows."""
        state = None
        with distributed.rank_0_first():
            if self.rank == 0:
                self.checkpoints.check_owner()
                state = self.checkpoints.load_latest(self.device)
                with full_disk_named(self.directory.log_file):
                    self.directory.truncate_log(state["step"] if state else 0)
        state = from_first_rank(state, self.device)
        if state is not None:
            self._resume_from(state)
        self._check_same_weights()

    def _resume_from(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.last_loss = state["step"], state["last_loss"]
        self.clock = Clock.on(self.device, state["clock"])
        self.loss_bound.restore(state["loss_bound"])
        self.bad = Counter({(shard, reason): count for shard, reason, count in state["bad"]})
        of_ranks = state["random"]
        set_random_state(of_ranks[self.rank] if len(of_ranks) == self.ranks else of_ranks[0], self.device)

    def save(self, background: Background) -> None:
        """A checkpoint of this step, written by `background` while training goes on; training waits for the copy."""
        started = time.perf_counter()
        self._check_same_weights()
        random_states = distributed.gather_objects(random_state(self.device))
        tensors = to_host(self._tensors()) if self.rank == 0 else {}
        self.clock.blocked_since(started)
        if self.rank == 0:
            state = tensors | {"random": random_states} | self._meters()
            background.start(partial(self._write, self.step, state, self.bad.copy()))

    def save_and_wait(self) -> None:
        """A checkpoint of this step, on disk when this returns, on any rank."""
        self._check_same_weights()
        random_states = distributed.gather_objects(random_state(self.device))
        with distributed.rank_0_first():
            if self.rank == 0:
                self._write(self.step, self._tensors() | {"random": random_states} | self._meters(), self.bad)

    def _check_same_weights(self) -> None:
        """Raises WeightsDiffer, on all ranks, so that no checkpoint holds one rank's mistake."""
        distributed.check_same_weights(self.model.state_dict(), f"at step {self.step:,}")

    def _tensors(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def _meters(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "last_loss": self.last_loss,
            "clock": self.clock.state(),
            "loss_bound": self.loss_bound.state(),
            "bad": [(*place, count) for place, count in self.bad.items()],
        }

    def _write(self, step: int, state: dict[str, Any], bad: Counter) -> None:
        self.checkpoints.save(step, state)
        write_bad(self.directory, bad)

    def save_final(self, columns: dict[str, Any]) -> None:
        self._check_same_weights()
        with distributed.rank_0_first():
            if self.rank == 0:
                self.checkpoints.check_owner()
                write_bad(self.directory, self.bad)
                self.checkpoints.save_final(stock_weights(self.model) | self._frozen_weights(), columns)

    def whole_towers(self) -> build.Towers:
        """To evaluate as they are: those of training, or a copy with the image tower that training does not hold."""
        if not self.frozen:
            return self.towers
        whole = build.load(self.directory.checkpoints, self.device)
        whole.model.load_state_dict(stock_weights(self.model) | self._frozen_weights())
        return whole

    def _frozen_weights(self) -> dict[str, torch.Tensor]:
        """The image tower's weights, which training does not hold, so that the final weights are a whole model."""
        if not self.frozen:
            return {}
        found = image_tower_weights(self.spec.model, self.spec.pretrained)
        return {f"{VISUAL}{name}": value for name, value in found.items()}

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [m, 3, H, W], or a frozen tower's embeddings [m, d] in fp16, → L2-normalised [m, d], fp32."""
        activity.move()
        if self.frozen:
            return F.normalize(images.to(self.device, non_blocking=True).float(), dim=-1)
        with self._autocast():
            return F.normalize(self.model.encode_image(self.towers.normalize(images)).float(), dim=-1)

    def embed_texts(self, tokens: torch.Tensor) -> torch.Tensor:
        """[m, L] → L2-normalised [m, d], fp32."""
        activity.move()
        with self._autocast():
            return F.normalize(self.model.encode_text(tokens.to(self.device, non_blocking=True)).float(), dim=-1)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.precision == "bf16")

    def loss_of(self, image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        """This rank's share of the loss of its embeddings [b, d]. Raises Diverged."""
        try:
            with self._autocast():  # in bf16 its products run on the units made for them, summed in fp32
                return self.loss(image_features, text_features, self.model.logit_scale.exp(), self.logit_bias)
        except NonFiniteError as error:
            message = f"{error} at step {self.step + 1}, {self.examples_seen:,} examples"
            raise Diverged(message, agreed=True) from None  # the loss has told all ranks

    @property
    def logit_bias(self) -> torch.nn.Parameter | None:
        return getattr(self.model, "logit_bias", None)

    def take_step(self, batch: PairBatch, data_seconds: float) -> None:
        """One optimizer step on this rank's [b] share of the global batch. Raises Diverged, BadData or OutOfMemory."""
        with (
            out_of_memory_named(self.rank, self.spec.batch_size, self.local_batch, self.micro_batch),
            measure_waiting(self._waiting),
        ):
            line = self._update(batch)
        self.clock.tick(self.spec.batch_size, data_seconds)
        if line is not None:
            self._log(line)

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        with self.clock.during("exchange"), activity.during(WAITING):
            yield

    def _update(self, batch: PairBatch) -> dict[str, float] | None:
        """The step itself; what its log line says, where it has one."""
        share_of_peak = schedule(self.spec, self.examples_seen)
        set_learning_rate(self.optimizer, self.spec.learning_rate * share_of_peak)
        with self.clock.during("optimizer"):
            self.optimizer.zero_grad(set_to_none=False)
        self.loss.draw = self.step  # a resumed run chooses the negatives it would have chosen
        embeds, how = (self.embed_images, self.embed_texts), (self.both, self.learning, self.clock.during)
        value, *features = accumulate_gradient(*embeds, self.loss_of, batch, self.micro_batch, *how)
        distributed.average_gradients(self.parameters)
        self._share_measurements(value, batch)
        self.step += 1
        logged = self.step % self.spec.log_every == 0 or self.step in (1, self.spec.steps)
        line = self._measure_before(features) if logged else {}
        before = [p.detach().clone() for p in self.parameters] if logged else []
        with self.clock.during("optimizer"):
            if self.spec.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.grad_clip)
            self.optimizer.step()
        if not logged:
            return None
        line["update_norm"] = norm(torch._foreach_sub(self.parameters, before))
        line["learning_rate"] = self.spec.learning_rate * share_of_peak
        return line

    def _share_measurements(self, value: torch.Tensor, batch: PairBatch) -> None:
        """Loss and bad samples over all ranks, before the step is taken: a NaN reaches no weight."""
        with activity.during(WAITING):  # on a GPU the host waits here for all that the step exchanges
            measured = torch.tensor([float(value) / self.ranks, sum(batch.bad.values())], dtype=torch.float64)
            self.last_loss, new_bad = distributed.sum_over_ranks(measured.to(self.device)).tolist()
        self.loss_bound.update(self.last_loss, self.step + 1)
        if new_bad:
            for counted in distributed.gather_objects(batch.bad):
                self.bad += counted
            self.check_bad(at_least=MIN_SAMPLES_FOR_A_SHARE)

    def check_bad(self, at_least: int) -> None:
        """Raises BadData, with the counts, where more samples than the spec allows were bad."""
        bad = sum(self.bad.values()) - self.unusable_at_scan
        seen = max(self.examples_seen + self.spec.batch_size, at_least)
        if bad > self.spec.max_bad_share * seen:
            raise BadData(describe_bad(self.bad, bad, seen, self.spec.max_bad_share), self.bad, agreed=True)

    @torch.no_grad()
    def _measure_before(self, features: list[torch.Tensor]) -> dict[str, float]:
        """Values of a log line that describe the state before the step."""
        scale = self.model.logit_scale.exp().item()
        bias = 0.0 if self.logit_bias is None else self.logit_bias.item()
        positive, negative = mean_logits(*features, scale, bias)
        if self.spec.negatives != "all":
            negative = self.loss.mean_logits.negative
        self.last_logits = (positive, negative)
        return {
            "loss": self.last_loss,
            "logit_scale": scale,
            "logit_bias": bias if self.logit_bias is not None else None,
            "positive_logit": positive,
            "negative_logit": negative,
            "gradient_norm": norm([p.grad for p in self.parameters]),
            "parameter_norm": norm([p.detach() for p in self.parameters]),
        }

    def _log(self, line: dict[str, Any]) -> None:
        if self.rank > 0:
            return
        clock = self.clock
        line = {"step": self.step, "examples_seen": self.examples_seen, "time": time.time()} | line
        line |= {
            "examples_per_second": clock.examples / clock.seconds if clock.seconds else None,
            "data_wait_share": clock.data_seconds / clock.seconds if clock.seconds else None,
            "bad_samples": sum(self.bad.values()),
            "peak_memory_bytes": peak_memory_bytes(self.device),
        }
        self.checkpoints.check_owner()
        with full_disk_named(self.directory.log_file):
            self.directory.log(line)

    def agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether any rank wants to stop, and whether rank 0's clock says to save: the same answer on all ranks."""
        wishes = torch.tensor([float(stop), float(save and self.rank == 0)], device=self.device)
        with activity.during(WAITING):
            stop_wishes, save_wishes = distributed.sum_over_ranks(wishes).tolist()
        return stop_wishes > 0, save_wishes > 0

    def result(self) -> dict[str, Any]:
        clock = self.clock
        return {
            "steps": self.spec.steps,
            "examples_per_second": clock.examples / clock.seconds if clock.seconds else None,
            "step_seconds": clock.seconds / clock.steps if clock.steps else None,
            **clock.split(),
            "data_wait_share": clock.data_seconds / clock.seconds if clock.seconds else None,
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "final_loss": self.last_loss,
            "final_logit_scale": self.model.logit_scale.exp().item(),
            "final_logit_bias": None if self.logit_bias is None else self.logit_bias.item(),
            "final_positive_logit": self.last_logits[0],
            "final_negative_logit": self.last_logits[1],
            "checkpoint_share": clock.blocked_share,
            "micro_batch_used": self.micro_batch,
            "ranks": self.ranks,
            "bad_samples": sum(self.bad.values()),
        }


def _refuse_dropout(model: torch.nn.Module, spec: RunSpec) -> None:
    """Two forward passes of a micro-batch must agree, or embedding-gradient caching is not exact."""
    for name, module in model.named_modules():
        probability = getattr(module, "p", None) or getattr(module, "prob", None) or getattr(module, "drop_prob", None)
        if "drop" in type(module).__name__.lower() and isinstance(probability, float) and probability > 0:
            raise InputError(f"model {spec.model}: {name} drops at random ({probability}); set it to 0")
