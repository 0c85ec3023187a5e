"""The training loop: steps, reports, evaluation, checkpoints; and how to go on from any of them."""

import copy
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from torchfromscratch._torch_private import BatchNorm, compiler_error
from torchfromscratch.training.averaging import Lookahead
from torchfromscratch.training.batches import Augmentation, Batch, Batches, random_seed
from torchfromscratch.training.checkpoint import BEST, LAST, METRICS, remove_logs, save_checkpoint, save_metrics
from torchfromscratch.training.conditions import conditions, take_up
from torchfromscratch.training.config import Config
from torchfromscratch.training.contents import NotACheckpoint, Position, require_same_kind
from torchfromscratch.training.data import Dataset, describe
from torchfromscratch.training.distributed import ALONE, Group, amp_dtype, launch, launcher_is_gone
from torchfromscratch.training.errors import Interrupted, UserError
from torchfromscratch.training.evaluation import Averages, Evaluation, evaluate, mean_over_views, means
from torchfromscratch.training.models import Airbench, build_model, layer_namespace
from torchfromscratch.training.monitor import Monitor, gradient_norms
from torchfromscratch.training.optimization import build_optimizer, build_scheduler
from torchfromscratch.training.progress import Progress
from torchfromscratch.training.signals import Pending, defer_signals

STEPS_BETWEEN_REPORTS = 10
PICTURE_LOGS_PER_RUN = 5
LONGEST_REASON = 300  # characters; torch.jit gives its reasons in hundreds of lines


class Trainer:
    """Trains one network on one data set, alone or together with other processes.

    Args:
        config: the settings.
        dataset: what to train and test on.
        run_dir: where checkpoints and logs go; it exists.
        device: where to train.
        group: the processes that train together.
        checkpoint: the state to go on from; None starts at the beginning. It brings its number of threads with it.

    Attributes:
        departures: in words, the conditions of a run that goes on which are not as they were, see `conditions`.

    Raises:
        UserError: if the settings do not fit each other or the data set, or the checkpoint does not.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        run_dir: Path,
        *,
        device: torch.device,
        group: Group = ALONE,
        checkpoint: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.dataset, self.run_dir = config, dataset, run_dir
        self.summary = dataset.summary()
        self.device, self.group = device, group
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        torch.manual_seed(config.seed)
        nn = layer_namespace(config.layers)
        self.model = (
            build_model(
                config.model,
                nn=nn,
                in_channels=dataset.channels,
                image_size=dataset.image_size,
                classes=len(dataset.classes),
            )
            .to(device)
            .to(memory_format=memory_format)
        )
        self.batches = Batches(
            dataset,
            batch_size=config.batch_size,
            least=2 if any(map(_is_batch_norm, self.model.modules())) else 1,
            augmentation=Augmentation(config.crop_padding, config.flip, config.crop_fill),
            seed=config.seed,
            device=device,
            memory_format=memory_format,
            group=group,
        )
        if isinstance(self.model, Airbench) and checkpoint is None:
            self.model.initialise_from(self.batches.typical())
        self.parallel = self._in_parallel()
        self.criterion = nn.CrossEntropyLoss(reduction="none", label_smoothing=config.label_smoothing)
        self.test_criterion = nn.CrossEntropyLoss(reduction="none")
        self.optimizer = build_optimizer(config, self.model)
        steps = config.epochs * self.batches.per_epoch
        self.scheduler = build_scheduler(config, self.optimizer, steps)
        self.lookahead = Lookahead(self.model, steps) if config.lookahead else None
        self.amp_dtype = amp_dtype(device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp and self.amp_dtype == torch.float16)
        self.averages = Averages(device, group)
        self.position = Position()
        self.rows: list[dict[str, Any]] = []
        self.pending = Pending()
        self.monitor: Monitor | None = None
        self.goes_on = False
        self.departures: list[str] = []
        self.told: set[str] = set()
        if checkpoint is not None:
            self.load_state_dict(checkpoint)

    @property
    def step(self) -> int:
        """Optimiser steps taken since the beginning."""
        return self.position.epoch * self.batches.per_epoch + self.position.batch

    def fit(self) -> dict[str, Any]:
        """Trains until the last epoch is done and returns that epoch's row of metrics.

        Raises:
            Interrupted: if a signal asked to stop; a checkpoint was written before.
            UserError: if the loss is no longer finite, or something cannot be written.
        """
        pictures = len(self.batches.train)
        seen = self.position.epoch * pictures + self.batches.count_pictures(self.position.batch)
        self.progress = Progress(self.config.epochs * pictures, seen, shown=self.group.is_main)
        try:
            with defer_signals() as self.pending:
                self.save()
                self.group.on_main(self._open_logs)
                if self.config.compile:
                    self._compile()
                while self.position.epoch < self.config.epochs:
                    self._train_epoch()
                    self._finish_epoch()
        finally:
            self._log("TensorBoard's log", lambda monitor: monitor.close())
            self.progress.close()
        return self.rows[-1]

    def save(self) -> None:
        """Writes the checkpoint to go on from, unless the training has become worthless.

        Raises:
            UserError: if loss or weights are not finite, or the checkpoint cannot be written.
        """
        self._read({})
        state = self.state_dict()
        self.group.on_main(lambda: self._write(state, LAST))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on; all processes must call this together.

        There is no generator's state in it: all that is random follows from the seed and the position.
        """
        return {
            "config": asdict(self.config),
            "dataset": self.summary,
            "conditions": conditions(self.device, self.group),
            "launch": launch(),
            "position": asdict(self.position),
            "rows": self.rows,
            "averages": self.averages.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "lookahead": self.lookahead.state_dict() if self.lookahead else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where another trainer's `state_dict` was taken.

        Raises:
            UserError: if that one trained on other data, or if the state is not that of a training with these settings.
        """
        if state["dataset"] != self.summary:
            raise UserError(f"the run in {self.run_dir} {_other_data(state['dataset'], self.summary)}")
        try:
            self._load(state)
        except NotACheckpoint as error:
            raise UserError(f"the checkpoint of {self.run_dir} does not fit its own settings: {error}") from error
        self.goes_on = True
        self.departures = take_up(state["conditions"], self.device, self.group)

    def _load(self, state: dict[str, Any]) -> None:
        expected = self.state_dict()
        for part in ("model", "scheduler", "scaler", "averages", "lookahead"):
            require_same_kind(state[part], expected[part], part)
        self.position = Position(**state["position"])
        if self.position.batch > self.batches.per_epoch:
            raise NotACheckpoint(f"it is at batch {self.position.batch} of {self.batches.per_epoch}")
        rates = [group["initial_lr"] for group in self.optimizer.param_groups]
        if (state["scheduler"]["last_epoch"], state["scheduler"]["base_lrs"]) != (self.step, rates):
            raise NotACheckpoint("its learning rate is that of another step")
        self.rows = list(state["rows"])
        self.model.load_state_dict(state["model"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.lookahead:
            self.lookahead.load_state_dict(state["lookahead"])
        self._load_optimizer(state["optimizer"])
        if self.group.is_main:  # the sums are over all processes, so one of them carries them on
            self.averages.load_state_dict(state["averages"])

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Takes momentum and the like from the state; rates follow from the settings and the step."""
        model = copy.deepcopy(self.model)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        after_a_step = build_optimizer(self.config, model)
        after_a_step.step()
        found = state.get("state")
        has_none = self.step == 0 or (self.scaler.is_enabled() and not found)  # mixed precision may skip all steps
        expected = {} if has_none else after_a_step.state_dict()["state"]
        require_same_kind(found, expected, "optimizer.state")
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": found})
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.scheduler.lr_lambdas[0](self.step)

    def _compile(self) -> None:
        """Has the model compiled, and tries it as testing will use it: what is missing must show at once."""
        self.model.compile()
        self.model.eval()
        try:
            with torch.no_grad():
                self._logits(self.model, next(self.batches.testing()).images)
        except compiler_error() as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"torch.compile does not work here ({reason}): train without --compile") from error

    def _train_epoch(self) -> None:
        self.model.train()
        position = self.position
        for batch, waited in _with_waiting_time(self.batches.training(position.epoch, position.batch)):
            began = time.perf_counter()
            self._train_step(batch)
            position.batch += 1
            report = self._read_report() if self._report_is_due() else {}
            position.waited += waited
            position.seconds += waited + time.perf_counter() - began  # after the wait for the device that reading is
            if report:
                self._report(**report)
            self._between_steps(batch)

    def _train_step(self, batch: Batch) -> None:
        # Dropout and its like must not depend on what was drawn before, or a resumed run would differ.
        torch.manual_seed(random_seed(self.config.seed, self.step, self.group.rank))
        logits = self._logits(self.parallel, batch.images)[: len(batch.labels)]
        losses = self.criterion(logits, batch.labels)
        self.optimizer.zero_grad()
        # DistributedDataParallel averages the processes' gradients, whose shares may differ in size:
        # with this factor the average is the gradient of the mean loss over the whole batch.
        self.scaler.scale(losses.sum() * (self.group.size / batch.whole)).backward()
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.lookahead:
            self.lookahead.step(self.step + 1)
        self.averages.update(losses, logits.argmax(1), batch.labels)

    def _between_steps(self, batch: Batch) -> None:
        epoch_done = self._epoch_is_done()
        if epoch_done:  # now, as a run that is stopped while testing has no gradients when it goes on
            self._log("gradients", lambda monitor: monitor.gradients(self.step, self.model))
        self.progress.advance(batch.whole)
        every = self.config.checkpoint_every
        if every and self.step % every == 0 and not epoch_done:
            self._flush_logs()
            self.save()
        self._stop_if_asked()

    def _epoch_is_done(self) -> bool:
        return self.position.batch == self.batches.per_epoch

    def _report_is_due(self) -> bool:
        return self._epoch_is_done() or self.position.batch % STEPS_BETWEEN_REPORTS == 0

    def _read_report(self) -> dict[str, float]:
        """Loss and accuracy so far and, where they are logged, the norms of the layers' gradients."""
        return self._read(gradient_norms(self.model) if self.monitor else {})

    def _read(self, further: Mapping[str, Tensor]) -> dict[str, float]:
        """Loss and accuracy so far and further numbers in one copy from the device, the only wait for it.

        Raises:
            UserError: if loss or weights are not finite.
        """
        sums = self.averages.total()
        norms = torch.stack([get_total_norm(self.model.parameters()), *further.values()])
        loss, right, count, weights, *others = torch.cat([sums, norms.to(sums)]).tolist()
        if self.group.agree(int(not (math.isfinite(loss) and math.isfinite(weights)))):
            raise self._divergence()
        loss, accuracy = means((loss, right, count))
        return {"loss": loss, "accuracy": accuracy, **dict(zip(further, others, strict=True))}

    def _report(self, loss: float, accuracy: float, **norms: float) -> None:
        self.progress.describe(self.position.epoch + 1, loss, accuracy, self.position.data_wait_share)
        scalars = {"loss/running": loss, "learning_rate": self._lr(), **norms}
        self._log("curves", lambda monitor: monitor.step(self.step, scalars))

    def _finish_epoch(self) -> None:
        train_loss, train_accuracy = self.averages.compute()
        self.group.take_from_main(self.model.buffers())  # each has its own running statistics, and these are saved
        self.model.eval()
        last_epoch = self.position.epoch + 1 == self.config.epochs
        views = self.config.test_views if last_epoch else "single"
        evaluation = evaluate(
            mean_over_views(lambda images: self._logits(self.model, images), views),
            self.test_criterion,
            self._until_stopped(self.batches.testing()),
            classes=len(self.dataset.classes),
            device=self.device,
            group=self.group,
        )
        if not math.isfinite(evaluation.loss):
            raise self._divergence()
        position = self.position
        row = {
            "epoch": position.epoch + 1,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "test_loss": evaluation.loss,
            "test_accuracy": evaluation.accuracy,
            "images_per_second": len(self.batches.train) / position.seconds,
            "data_wait_share": position.data_wait_share,
            "seconds": position.seconds,
            "lr": self._lr(),
        }
        step = self.step
        is_best = evaluation.accuracy > position.best_accuracy
        best_accuracy = max(evaluation.accuracy, position.best_accuracy)
        self.position = Position(epoch=position.epoch + 1, best_accuracy=best_accuracy)
        self.rows.append(row)
        self.averages.reset()
        state = self.state_dict()
        self.group.on_main(lambda: self._record(step, row, evaluation, state, is_best))
        self.progress.say(_epoch_line(row, self.config.epochs))

    def _record(
        self, step: int, row: dict[str, Any], evaluation: Evaluation, state: dict[str, Any], is_best: bool
    ) -> None:
        """Logs an epoch's curves, which the checkpoint then vouches for; what takes time and memory comes last."""
        last_epoch = row["epoch"] == self.config.epochs
        self._log("curves", lambda monitor: monitor.epoch(step, row, self.model))
        if last_epoch:
            self._log("the settings", lambda monitor: monitor.finish(step, row, self.position.best_accuracy))
        self._flush_logs()
        if is_best:
            self._write(state, BEST)
        self._write(state, LAST)
        self._save_metrics()
        if last_epoch or row["epoch"] % -(-self.config.epochs // PICTURE_LOGS_PER_RUN) == 0:
            self._log("pictures", lambda monitor: monitor.pictures(step, self.model, self._example(), evaluation))

    def _open_logs(self) -> None:
        self._save_metrics()
        self._unless_it_fails("TensorBoard's log", self._open_monitor)
        if self.step == 0:
            self.model.eval()
            self._log("the graph", lambda monitor: monitor.begin(self.model, self._example()))

    def _open_monitor(self) -> None:
        if self.goes_on and self.step == 0:  # whatever was logged comes again, and TensorBoard would keep both texts
            remove_logs(self.run_dir)
        self.monitor = Monitor(self.run_dir, self.config, self.dataset, self.step)

    def _flush_logs(self) -> None:
        self._log("TensorBoard's log", lambda monitor: monitor.flush())

    def _save_metrics(self) -> None:
        self._unless_it_fails(METRICS, lambda: save_metrics(self.rows, self.run_dir / METRICS))

    def _log(self, what: str, work: Callable[[Monitor], None]) -> None:
        """Logs something where there is a log, as on the main process."""
        if (monitor := self.monitor) is not None:
            self._unless_it_fails(what, lambda: work(monitor))

    def _unless_it_fails(self, what: str, work: Callable[[], None]) -> None:
        """Does what is there to be looked at only: whatever goes wrong with it is told once, and training goes on."""
        try:
            work()
        except Exception as error:
            reason = shorten(str(error), LONGEST_REASON, placeholder=" …") or type(error).__name__
            if reason not in self.told:
                self.progress.note(f"{what} could not be written in {self.run_dir} ({reason}); training goes on")
            self.told.add(reason)

    def _write(self, state: dict[str, Any], name: str) -> None:
        save_checkpoint(state, self.run_dir / name)

    def _logits(self, model: torch.nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.config.amp):
            return model(images).float()

    def _example(self) -> Tensor:
        """The first test picture as the network sees it, (1, C, H, W)."""
        return self.batches.normalise(self.batches.test.images[:1])

    def _lr(self) -> float:
        """The learning rate of the last step; the scheduler itself is already at the next one's."""
        return self.config.lr * self.scheduler.lr_lambdas[0](self.step - 1)

    def _in_parallel(self) -> torch.nn.Module:
        if self.group.size == 1:
            return self.model
        return DistributedDataParallel(self.model)

    def _until_stopped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._stop_if_asked()
            yield batch

    def _stop_if_asked(self) -> None:
        orphaned = signal.SIGTERM if launcher_is_gone() else 0
        if number := self.group.agree(self.pending.signal or orphaned):
            self._flush_logs()
            self.save()
            raise Interrupted(number)

    def _divergence(self) -> UserError:
        return UserError(
            f"the loss became NaN or infinite in epoch {self.position.epoch + 1}, at step {self.step}, with "
            f"--lr {self.config.lr:g} and --weight-decay {self.config.weight_decay:g}. Nothing was saved since: "
            f"{self.run_dir / LAST} still holds the training from before. Start a new run with a smaller --lr or "
            "--weight-decay."
        )


def _with_waiting_time(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds it took to come."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - began


def _is_batch_norm(module: torch.nn.Module) -> bool:
    return isinstance(module, BatchNorm)


def _other_data(before: dict[str, Any], now: dict[str, Any]) -> str:
    """In words, how a run's data set differs from what is there now."""
    if describe(before) != describe(now):
        difference = f"was trained on {describe(before)}, but the data set now has {describe(now)}"
    elif before["classes"] != now["classes"]:
        difference = f"was trained on the classes {_enumerate(before)}, but they are {_enumerate(now)} now"
    else:
        difference = "was trained on other pictures than the data set has now, although it has as many"
    return f"{difference}: restore the data, or start a new run"


def _enumerate(summary: dict[str, Any]) -> str:
    return ", ".join(summary["classes"])


def _epoch_line(row: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}: "
        f"train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}; "
        f"test loss {row['test_loss']:.4f}, accuracy {row['test_accuracy']:.2%}; "
        f"{row['images_per_second']:,.0f} images/s, {row['data_wait_share']:.1%} waiting for data"
    )
