"""The training loop: steps, reports, evaluation, checkpoints; and how to go on from any of them."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from torchfromscratch.training.batches import Augmentation, Batch, Batches, random_seed
from torchfromscratch.training.checkpoint import BEST, LAST, save_checkpoint
from torchfromscratch.training.config import Config
from torchfromscratch.training.data import Dataset
from torchfromscratch.training.distributed import ALONE, Group
from torchfromscratch.training.errors import Interrupted, UserError
from torchfromscratch.training.evaluation import Averages, Evaluation, evaluate
from torchfromscratch.training.models import build_model, layer_namespace
from torchfromscratch.training.monitor import Monitor
from torchfromscratch.training.optimization import build_optimizer, build_scheduler
from torchfromscratch.training.progress import Progress
from torchfromscratch.training.signals import Pending, deferred_signals

STEPS_BETWEEN_REPORTS = 10
PICTURE_LOGS_PER_RUN = 5


@dataclass
class Position:
    """Where training is.

    Attributes:
        epoch: epochs completed, their evaluation included.
        batch: batches completed in the epoch after those.
        seconds: spent on those batches.
        waited: seconds of those spent waiting for data.
        best_accuracy: the best on the test pictures so far, 0 to 1.
    """

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    best_accuracy: float = -1.0

    @property
    def data_wait_share(self) -> float:
        return self.waited / self.seconds


class Trainer:
    """Trains one network on one data set, alone or together with other processes.

    Args:
        config: the settings.
        dataset: what to train and test on.
        run_dir: where checkpoints and logs go; it exists.
        device: where to train.
        group: the processes that train together.
        checkpoint: the state to go on from; None starts at the beginning.

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
        self.device, self.group = device, group
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.batches = Batches(
            dataset,
            batch_size=config.batch_size,
            augmentation=Augmentation(config.crop_padding, config.flip),
            seed=config.seed,
            device=device,
            memory_format=memory_format,
            group=group,
        )
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
        self.parallel = self._in_parallel()
        self.criterion = nn.CrossEntropyLoss(reduction="none")
        self.optimizer = build_optimizer(config, self.model)
        self.scheduler = build_scheduler(config, self.optimizer, config.epochs * self.batches.per_epoch)
        self.amp_dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp and self.amp_dtype == torch.float16)
        self.averages = Averages(len(dataset.classes), device)
        self.position = Position()
        self.rows: list[dict[str, Any]] = []
        self.pending = Pending()
        self.monitor: Monitor | None = None
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
        seen = self.position.epoch * pictures + min(self.position.batch * self.config.batch_size, pictures)
        self.progress = Progress(self.config.epochs * pictures, seen, shown=self.group.is_main)
        try:
            with deferred_signals() as self.pending:
                self.group.on_main(self._open_logs)
                self.save()
                if self.config.compile:
                    self._compile()
                while self.position.epoch < self.config.epochs:
                    self._train_epoch()
                    self._finish_epoch()
        finally:
            self.progress.close()
            if self.monitor is not None:
                self.monitor.close()
        return self.rows[-1]

    def save(self) -> None:
        """Writes the checkpoint to go on from, unless the training has become worthless.

        Raises:
            UserError: if loss or weights are not finite, or the checkpoint cannot be written.
        """
        self._require_finite()
        state = self.state_dict()
        self.group.on_main(lambda: self._write(state, LAST))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on; all processes must call this together.

        There is no generator's state in it: all that is random follows from the seed and the position.
        """
        return {
            "config": asdict(self.config),
            "dataset": self.dataset.summary(),
            "position": asdict(self.position),
            "rows": self.rows,
            "averages": self.averages.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where another trainer's `state_dict` was taken.

        Raises:
            UserError: if that one trained on other data.
        """
        if state["dataset"] != self.dataset.summary():
            raise UserError(
                f"the run in {self.run_dir} was trained on {state['dataset']}, but the data set now has "
                f"{self.dataset.summary()}: restore the data, or start a new run"
            )
        self.position = Position(**state["position"])
        self.rows = list(state["rows"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.group.is_main:  # the sums are over all processes, so one of them carries them on
            self.averages.load_state_dict(state["averages"])

    def _compile(self) -> None:
        """Has the model compiled, and tries it as testing will use it: what is missing must show at once."""
        self.model.compile()
        self.model.eval()
        try:
            with torch.no_grad():
                self._logits(self.model, next(self.batches.testing()).images)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"torch.compile does not work here ({reason}): train without --compile") from error

    def _train_epoch(self) -> None:
        self.model.train()
        position = self.position
        for batch, waited in _with_waiting_time(self.batches.training(position.epoch, position.batch)):
            began = time.perf_counter()
            self._train_step(batch)
            position.batch += 1
            position.waited += waited
            position.seconds += waited + time.perf_counter() - began
            self._between_steps(batch)

    def _train_step(self, batch: Batch) -> None:
        # Dropout and its like must not depend on what was drawn before, or a resumed run would differ.
        torch.manual_seed(random_seed(self.config.seed, self.step, self.group.rank))
        logits = self._logits(self.parallel, batch.images)
        losses = self.criterion(logits, batch.labels)
        self.optimizer.zero_grad()
        # DistributedDataParallel averages the processes' gradients, whose shares may differ in size:
        # with this factor the average is the gradient of the mean loss over the whole batch.
        self.scaler.scale(losses.sum() * (self.group.size / batch.whole)).backward()
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.averages.update(losses, logits.argmax(1), batch.labels)

    def _between_steps(self, batch: Batch) -> None:
        epoch_done = self.position.batch == self.batches.per_epoch
        if epoch_done or self.position.batch % STEPS_BETWEEN_REPORTS == 0:
            self._report()
        self.progress.advance(batch.whole)
        every = self.config.checkpoint_every
        if every and self.step % every == 0 and not epoch_done:
            if self.monitor is not None:
                self.monitor.flush()
            self.save()
        self._stop_if_asked()

    def _report(self) -> None:
        self._require_finite()
        loss, accuracy = self.averages.compute()
        self.progress.describe(self.position.epoch + 1, loss, accuracy, self.position.data_wait_share)
        if self.monitor is not None:
            scalars = {"loss/running": loss, "learning_rate": self._lr()}
            self.monitor.step(self.step, scalars, self.model)

    def _finish_epoch(self) -> None:
        train_loss, train_accuracy = self.averages.compute()
        self.model.eval()
        evaluation = evaluate(
            lambda images: self._logits(self.model, images),
            self.criterion,
            self._until_stopped(self.batches.testing()),
            classes=len(self.dataset.classes),
            device=self.device,
            group=self.group,
        )
        if not math.isfinite(evaluation.loss):
            raise self._diverged()
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
        """Logs an epoch, then writes the checkpoint that vouches for the logs and holds the line to add."""
        assert self.monitor is not None
        last_epoch = row["epoch"] == self.config.epochs
        self.monitor.epoch(step, row, self.model)
        if last_epoch or row["epoch"] % -(-self.config.epochs // PICTURE_LOGS_PER_RUN) == 0:
            self.monitor.pictures(step, self.model, self._example(), evaluation)
        if last_epoch:
            self.monitor.finish(step, row, self.position.best_accuracy)
        self.monitor.flush()
        if is_best:
            self._write(state, BEST)
        self._write(state, LAST)
        self.monitor.append(row)

    def _open_logs(self) -> None:
        self.monitor = Monitor(self.run_dir, self.config, self.dataset, self.rows, self.step)
        if self.step == 0:
            self.model.eval()
            self.monitor.begin(self.model, self._example())

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
        if number := self.group.agree(self.pending.signal):
            if self.monitor is not None:
                self.monitor.flush()
            self.save()
            raise Interrupted(number)

    def _require_finite(self) -> None:
        weights = get_total_norm(self.model.parameters()).item()
        healthy = self.averages.is_finite() and math.isfinite(weights)
        if self.group.agree(int(not healthy)):
            raise self._diverged()

    def _diverged(self) -> UserError:
        return UserError(
            f"the loss became NaN or infinite in epoch {self.position.epoch + 1}, at step {self.step}, with "
            f"--lr {self.config.lr:g}. Nothing was saved since: {self.run_dir / LAST} still "
            "holds the training from before. Start a new run with a smaller --lr."
        )


def _with_waiting_time(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds it took to come."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - began


def _epoch_line(row: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}: "
        f"train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}; "
        f"test loss {row['test_loss']:.4f}, accuracy {row['test_accuracy']:.2%}; "
        f"{row['images_per_second']:,.0f} images/s, {row['data_wait_share']:.1%} waiting for data"
    )
