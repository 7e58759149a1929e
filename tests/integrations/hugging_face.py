"""SegFormer and the real Trainer; test_hugging_face.py runs this file from a folder of its own."""

import copy
import importlib.util

import pytest
import torch
import torch.nn.functional as F
from documented import run_block
from transformers import SegformerConfig, SegformerForSemanticSegmentation, Trainer, TrainingArguments
from transformers.data import default_data_collator

from segloss import OutlyingMSELoss
from segloss.adapters import compute_loss_func

COUNTS = [900, 90, 10]


def test_the_projects_datasets_folder_does_not_pass_for_hugging_faces():
    found = importlib.util.find_spec("datasets")
    assert found is None or "site-packages" in str(found.origin)


def tiny_segformer() -> SegformerForSemanticSegmentation:
    """Without dropout, so that a step can be computed a second time by hand."""
    torch.manual_seed(0)
    small = {
        "hidden_sizes": [8, 16, 24, 32],
        "num_attention_heads": [1] * 4,
        "depths": [1] * 4,
        "decoder_hidden_size": 16,
    }
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.0}
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=3, drop_path_rate=0.0, **small, **still))


class WithCriterion(SegformerForSemanticSegmentation):
    def __init__(self, config):
        super().__init__(config)
        self.criterion = OutlyingMSELoss.from_counts(self.counts, label_values="power", class_weights="inverse")


def test_a_criterion_within_a_network_of_from_pretrained(tmp_path):
    made = OutlyingMSELoss.from_counts(COUNTS, label_values="power", class_weights="inverse")
    tiny_segformer().save_pretrained(tmp_path / "plain")
    WithCriterion.counts = COUNTS
    network = WithCriterion.from_pretrained(tmp_path / "plain")
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in network.criterion.state_dict().items())
    network.save_pretrained(tmp_path / "whole")
    WithCriterion.counts = COUNTS[::-1]
    network = WithCriterion.from_pretrained(tmp_path / "whole")
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in network.criterion.state_dict().items())


def samples(count: int, ignored: int) -> list[dict]:
    """Images whose share of ignored pixels grows from one to the next."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for image in range(count):
        labels = torch.randint(0, 3, (32, 32), generator=generator)
        labels[: 7 * image] = ignored
        made.append({"pixel_values": torch.rand(3, 32, 32, generator=generator), "labels": labels})
    return made


def trainer_for(model, criterion, folder, data, **options) -> tuple[Trainer, list[dict]]:
    """The Trainer and the micro-batches it sees, in their order; plain SGD at rate 1."""
    seen = []

    def collate(batch):
        seen.append(default_data_collator(batch))
        return seen[-1]

    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    loss = compute_loss_func(criterion)
    return Trainer(model, arguments, collate, train_dataset=data, eval_dataset=data, compute_loss_func=loss), seen


def test_loss_and_gradient_are_those_of_interpolated_logits():
    batch = default_data_collator(samples(2, ignored=255))
    logits = tiny_segformer()(batch["pixel_values"]).logits.detach().requires_grad_()
    assert logits.shape == (2, 3, 8, 8)
    loss = compute_loss_func(OutlyingMSELoss.from_counts(COUNTS, upsample="bilinear"))
    small = loss({"logits": logits}, batch["labels"], num_items_in_batch=batch["labels"].numel())
    large = F.interpolate(logits, size=(32, 32), mode="bilinear", align_corners=False)
    expected = OutlyingMSELoss.from_counts(COUNTS)(large, batch["labels"])
    torch.testing.assert_close(small, expected, rtol=1e-5, atol=0)  # float32, another order of adding
    gradients = [torch.autograd.grad(value, logits)[0] for value in (small, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)  # sums of 16 terms of either sign


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("ignored", [-100, 255])
def test_a_trainer_step_follows_the_documented_mean(accumulation, ignored, tmp_path):
    criterion = OutlyingMSELoss.from_counts(COUNTS, upsample="bilinear", ignore_index=ignored)
    model = tiny_segformer()
    by_hand = copy.deepcopy(model).train()
    options = {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation}
    trainer, seen = trainer_for(model, criterion, tmp_path, samples(4, ignored), **options)
    trainer.train()

    batches = seen[:accumulation]
    valid = [batch["labels"].ne(ignored).sum() for batch in batches]
    if ignored == -100:  # the mean over the step's valid pixels
        shares = [count / sum(valid) for count in valid]
        assert accumulation == 1 or not torch.isclose(shares[0], shares[1])
    else:  # the mean of micro-batches of one size
        shares = [1 / accumulation] * accumulation
    expected = sum(
        share * criterion(by_hand(batch["pixel_values"]).logits, batch["labels"])
        for share, batch in zip(shares, batches, strict=True)
    )
    expected.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)  # Trainer may round it
    for (name, before), after in zip(by_hand.named_parameters(), model.parameters(), strict=True):
        # float32 near 1, one subtraction and sums in another order
        torch.testing.assert_close(after, before - before.grad, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("ignored", [-100, 255])
def test_the_evaluation_loss_is_the_criterions(ignored, tmp_path):
    criterion = OutlyingMSELoss.from_counts(COUNTS, upsample="bilinear", ignore_index=ignored)
    model = tiny_segformer()
    trainer, seen = trainer_for(model, criterion, tmp_path, samples(4, ignored), per_device_eval_batch_size=4)
    reported = trainer.evaluate()["eval_loss"]
    with torch.no_grad():
        expected = criterion(model.eval()(seen[0]["pixel_values"]).logits, seen[0]["labels"])
    assert reported == pytest.approx(expected.item(), rel=1e-5)  # float32


def test_the_documented_block_trains_and_reads_its_scores(tmp_path):
    run_block("Hugging Face SegFormer", tmp_path)
