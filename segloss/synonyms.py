"""What other toolkits call our options and their values: a word that we do not know is answered by its meaning.

Flags of mmsegmentation, PaddleSeg, ultralytics, nnU-Net, torchvision's references, Detectron2 and Lightning.
"""

from collections.abc import Iterable

# Words of others, without dashes -> the options of ours that mean it; the first that a command has is named.
FLAGS: dict[str, tuple[str, ...]] = {
    "accelerator": ("device", "gpu", "cuda", "use-gpu", "no-cuda"),
    "devices": ("gpus", "num-gpus", "gpu-ids", "nproc-per-node", "n-gpus"),
    "encoder": ("backbone", "encoder-name"),
    "arch": ("model", "architecture", "network", "net", "decoder", "model-name"),
    "encoder-weights": ("pretrained", "pretrain", "pretrained-weights", "init-weights", "imagenet", "weights"),
    "checkpoint": ("ckpt", "ckpt-path", "weights", "weight", "model", "model-path", "run", "runs", "load-from"),
    "data-path": ("data", "data-dir", "data-root", "dataset-path", "dataset-root", "root", "datadir", "dataroot"),
    "predictions": ("preds", "pred", "pred-dir", "prediction"),
    "labels": ("gt", "gt-dir", "masks", "mask-dir", "ground-truth", "targets"),
    "images": ("source", "input", "img-dir", "img-path", "image-dir", "image-path", "image", "input-dir"),
    "output-dir": ("work-dir", "out", "out-dir", "save-dir", "log-dir", "logdir", "project", "exp-dir", "outdir"),
    "output": ("out", "out-file", "save-path"),
    "batch-size": ("bs", "batch", "train-batch-size", "samples-per-gpu", "b"),
    "epochs": ("num-epochs", "max-epochs", "n-epochs", "iters", "max-iters", "ep"),
    "lr": ("learning-rate", "lr0", "base-lr", "init-lr"),
    "schedule": ("lr-scheduler", "scheduler", "lr-schedule", "lr-policy"),
    "workers": ("num-workers", "dataloader-num-workers", "j", "num-proc"),
    "image-scale": ("img-size", "imgsz", "image-size", "input-size", "resize", "size", "img-scale"),
    "crop-size": ("crop", "patch-size", "crop-shape"),
    "precision": ("amp", "fp16", "bf16", "half", "mixed-precision", "use-amp"),
    "loss": ("criterion", "loss-fn", "loss-type", "loss-name", "objective"),
    "decision": ("tau", "threshold", "temperature", "conf", "prior-adjustment"),
    "tta-flip": ("tta", "aug-test", "augment", "use-tta", "flip"),
    "save": ("save-predictions", "save-masks", "save-pred", "show"),
    "early-stop": ("patience", "early-stopping", "early-stop-patience"),
    "seed": ("random-seed", "manual-seed"),
    "augmentations": ("augs", "transform", "transforms", "aug"),
    "class-table": ("num-classes", "n-classes", "nc", "class-names", "class-list"),
    "class-file": ("num-classes", "n-classes", "nc", "class-names", "class-list", "classes-file"),
    "resume": ("continue", "auto-resume", "resume-training", "resume-from"),
    "trainer": (
        "max-norm",
        "grad-clip",
        "clip-grad",
        "accumulate",
        "accumulation-steps",
        "gradient-accumulation-steps",
    ),
}

# The same of values, by option.
VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "loss": {
        "ce": ("cross_entropy", "crossentropy", "crossentropyloss", "xent", "nll", "softmax"),
        "weighted_ce": ("weighted_cross_entropy", "wce", "balanced_ce"),
        "outlying_mse": ("outlying", "outlying_label", "outlyingmseloss", "ours"),
        "mse": ("l2", "mseloss", "squared_error"),
        "dice": ("diceloss", "soft_dice"),
        "focal": ("focalloss", "focal_loss"),
        "jaccard": ("iou", "soft_iou", "jaccardloss", "miou"),
        "lovasz": ("lovasz_softmax", "lovaszsoftmax"),
        "logit_adjusted": ("logit_adjustment", "balanced_softmax", "la"),
    },
    "precision": {
        "16-mixed": ("fp16", "float16", "half", "16", "amp", "fp16-mixed"),
        "bf16-mixed": ("bf16", "bfloat16"),
        "32-true": ("fp32", "float32", "32", "full"),
    },
    "accelerator": {"gpu": ("0", "cuda:0", "nvidia", "all")},
}


def meant_flag(word: str, known: Iterable[str]) -> str | None:
    """The option, one of ``known``, that another toolkit's flag means; None where there is none.

    >>> meant_flag("--backbone", ["arch", "encoder"])
    'encoder'
    """
    plain = word.partition("=")[0].lstrip("-").replace("_", "-").lower()
    names = {name.replace("_", "-"): name for name in known}
    return next((names[ours] for ours, words in FLAGS.items() if plain in words and ours in names), None)


def meant_value(option: str, word: str, known: Iterable[str]) -> str | None:
    """The value, one of ``known``, that another toolkit's means for an option.

    >>> meant_value("precision", "fp16", ["32-true", "16-mixed"])
    '16-mixed'
    """
    plain, names = word.lower().replace("-", "_"), set(known)
    of_option = VALUES.get(option.replace("_", "-"), {})
    fits = (ours for ours, words in of_option.items() if plain in [each.replace("-", "_") for each in words])
    return next((ours for ours in fits if ours in names), None)
