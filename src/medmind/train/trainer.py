"""A small subclass of transformers.Trainer: its loop, our loss and our checkpoints."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer

from medmind.train import processes
from medmind.train.batches import IGNORED, count_tokens, silent
from medmind.train.checkpoint import Shelf, saving
from medmind.train.guard import Guard
from medmind.train.lanes import Lanes
from medmind.train.loss import completion_loss
from medmind.train.optimiser import loraplus
from medmind.train.progress import Meter


class PackedTrainer(Trainer):
    """Loss summed over supervised tokens and divided by their number over the whole step and all processes."""

    def __init__(
        self,
        *,
        meter: Meter,
        guard: Guard,
        shelf: Shelf,
        lanes: Lanes | None = None,
        loraplus_lr_ratio: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.lanes = lanes
        self.loraplus_lr_ratio = loraplus_lr_ratio
        self.meter, self.guard, self.shelf = meter, guard, shelf
        self.loss_is_scaled_for_ga = True
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.loraplus_lr_ratio and self.optimizer is None:
            self.optimizer = loraplus(self.model, self.args, self.loraplus_lr_ratio)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        assert num_items_in_batch is not None
        nats = self.lanes.loss(model, inputs) if self.lanes else completion_loss(model, inputs)
        loss = nats / num_items_in_batch
        self.meter.loss += processes.summed([loss.item()])[0]
        supervised = (inputs["labels"] != IGNORED).sum()
        self.guard.see(loss.item() * float(num_items_in_batch), int(supervised), inputs)
        scaled: torch.Tensor = loss * self.accelerator.num_processes
        return scaled

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """A process without an example in an epoch's last step reads a token that teaches nothing: all step at once.

        Written out, since Unsloth puts a count of its own in the place of the Trainer's.
        """
        batches = list(islice(epoch_iterator, num_batches))
        count = self._get_num_items_in_batch(batches, device)
        rows: Any = self.train_dataset
        while len(batches) < num_batches:
            nothing: Any = [silent(rows[0])]
            batches.append(self.data_collator(nothing))
        return batches, count

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | int | None:
        """The tokens to be learnt in this step, over all processes."""
        tokens = sum(map(count_tokens, batch_samples))
        supervised = sum((batch["labels"] != IGNORED).sum() for batch in batch_samples)
        read, learnt = (int(count) for count in processes.summed([float(tokens), float(supervised)]))
        self.meter.tokens += read
        self.meter.supervised += learnt
        return learnt

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Looked at before the step is taken; in float16 it is the scaler that passes over a step too large."""
        measure: Any = super()._get_grad_norm
        norm = measure(model, grad_norm)
        if self.accelerator.scaler is None:
            self.guard.see_gradient(float(norm))
        self.guard.forget()
        return norm

    def load_weights(self, checkpoint: Path) -> None:
        """Only the weights, where no further step will be taken."""
        self._load_from_checkpoint(str(checkpoint))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.shelf.staging)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """All processes fill the checkpoint aside, the first publishes it."""
        step = self.state.global_step
        if self.shelf.path(step).exists():  # saved at this very step already, as an epoch's last and as the best
            return
        with saving(f"the checkpoint of step {step}", self.shelf.staging):
            super()._save_checkpoint(model, trial)
            processes.wait_for_all()
            if processes.is_first():
                self.shelf.publish(step)
        processes.wait_for_all()
