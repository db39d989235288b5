"""Everything `compressl pretrain` can be told.

A recipe or configuration file (TOML) has the same names: top-level keys, and one table per group below (``[data]``,
``[method]``, ``[encoder]``, ``[views]``, ``[optimizer]``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from compressl.settings.encoder import EncoderSettings
from compressl.settings.methods import CSimCLRSettings, MethodSettings
from compressl.settings.options import check_device, check_seed
from compressl.settings.views import ViewsSettings


@dataclass(frozen=True)
class DataSettings:
    """The images to learn from; labels are never needed and never learnt from
    (where there are some, an online kNN score shows)."""

    path: Annotated[str, tyro.conf.arg(name="data", prefix_name=False)] = ""
    """A folder (nested, any image format), a Parquet or tar file or a folder of them, a .npy of uint8 NHWC, digits,
    cifar10, cifar100 or hf:<name>."""
    limit: int | None = None
    """Use the first N images of a random order only."""
    cache: Path | None = None
    """Where decoded images are packed. Default: $COMPRESSL_CACHE, else ~/.cache/compressl."""
    pack: Literal["auto", "yes", "no"] = "auto"
    """Decode all images once and keep them in the cache. auto: where the disk has room. no: decode them again in every
    epoch, to the same result."""
    max_unreadable: float = 0.01
    """Share of unreadable images that are replaced and named; above it the run stops."""
    device: Literal["auto", "yes", "no"] = "auto"
    """Keep all images in the device's memory. auto: if they take less than a quarter of what is free."""

    def check(self) -> list[str]:
        problems = []
        if not self.path:
            problems.append("--data is missing: a folder of images, say, or `digits` for built-in ones.")
        if self.limit is not None and self.limit < 2:
            problems.append(f"data.limit must be at least 2; it is {self.limit}.")
        if not 0 <= self.max_unreadable < 1:
            problems.append(f"data.max_unreadable lies between 0 and 1; it is {self.max_unreadable}.")
        if self.pack == "no" and self.device == "yes":
            problems.append("data.device = yes needs packed images: it does not go with data.pack = no.")
        return problems


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights follow gradients."""

    name: Annotated[Literal["sgd", "lars", "adamw"], tyro.conf.arg(name="optimizer", prefix_name=False)] = "sgd"
    """sgd: momentum 0.9, Nesterov. lars: for batches above about 1024. adamw: for transformers."""
    lr: float = 0.06
    """Learning rate per 256 images: the peak is lr * batch_size / 256."""
    weight_decay: float = 5e-4
    """L2 penalty on weights; norms and biases are exempt."""
    momentum: float = 0.9
    """Of SGD and LARS; the first beta of AdamW."""
    warmup_epochs: float = 5.0
    """Linear rise to the peak, before the cosine to zero; at most a tenth of the training."""
    clip: float | None = None
    """Largest norm of the whole gradient; 0: no limit. Default: what suits the method, mostly no limit."""

    def check(self) -> list[str]:
        problems = []
        if not self.lr > 0:
            problems.append(f"optimizer.lr must be greater than 0; it is {self.lr}.")
        for name in ("weight_decay", "warmup_epochs"):
            if getattr(self, name) < 0:
                problems.append(f"optimizer.{name} must not be negative; it is {getattr(self, name)}.")
        if not 0 <= self.momentum < 1:
            problems.append(f"optimizer.momentum lies in [0, 1); it is {self.momentum}.")
        if self.clip is not None and not self.clip >= 0:
            problems.append(f"optimizer.clip must not be negative; it is {self.clip}.")
        return problems


@dataclass(frozen=True)
class PretrainSettings:
    """Learn a representation from unlabelled images."""

    data: DataSettings = field(default_factory=DataSettings)
    method: MethodSettings = field(default_factory=CSimCLRSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    views: ViewsSettings = field(default_factory=ViewsSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    recipe: str | None = None
    """A recipe that comes with the package; `compressl list` describes them. Precedence: recipe < file < flags."""
    config: Path | None = None
    """A TOML file with any of these settings, such as the config.toml of another run."""
    out: Path | None = None
    """Run folder. Default: runs/<data>-<method>."""
    epochs: int = 100
    """Passes over the images."""
    batch_size: int = 256
    """Images per step, of all processes together; a contrastive loss compares all of them."""
    accumulate: int = 1
    """Split each batch into this many passes, to save memory. Refused for methods that compare the images of a batch;
    batch norm sees one pass at a time."""
    micro_batch: int | None = None
    """Encode this many images at a time, twice, for the gradient of the whole batch in the memory of a part. Loss and
    heads see the whole batch, batch norm within the encoder a part. Default: the whole batch at once."""
    seed: int = 0
    """Of weights, order, augmentation and noise."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 where the processor multiplies it natively (AMX, AVX512-BF16, recent GPUs). Losses are always fp32."""
    channels_last: bool = True
    """Memory layout of the convolutions."""
    compile: bool = False
    """torch.compile the encoder and, on a GPU, the views; falls back with a sentence where that fails."""
    cuda_graphs: bool = False
    """With compile, on a CUDA device: replay the encoder's kernels as graphs instead of launching each. For small
    images and small batches, where the GPU waits for launches."""
    deterministic: bool = True
    """On a GPU, take only kernels that give the same bits each time. --no-deterministic: cuDNN tries them all and takes
    the fastest."""
    threads: int | None = None
    """CPU threads. Default: torch's choice. Resuming to the bit needs the same number."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    knn_every: int = 10
    """Epochs between online kNN scores between training images, where there are labels: a sign of life, not a result.
    0: never."""
    save_every: int = 10
    """Epochs between checkpoints; also one at the end and at a signal."""
    save_every_steps: int | None = None
    """Steps between checkpoints, instead of save_every."""
    keep: int = 2
    """Checkpoints kept."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """When all embeddings become alike."""
    overwrite: bool = False
    """Replace an existing run in the folder."""
    allow_data_change: bool = False
    """Resume although the images are not those that the run began with."""
    tensorboard: bool = True
    """Write TensorBoard events too, if it is installed."""

    def check(self) -> list[str]:
        """What cannot work about these settings, a sentence each."""
        problems = [
            *self.data.check(),
            *self.method.check(),
            *self.encoder.check(),
            *self.views.check(),
            *self.optimizer.check(),
        ]
        for name in ("epochs", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                problems.append(f"{name} must be at least 1; it is {getattr(self, name)}.")
        if self.save_every_steps is not None and self.save_every_steps < 1:
            problems.append(f"save_every_steps must be at least 1; it is {self.save_every_steps}.")
        if self.batch_size < 2:
            problems.append(f"batch_size must be at least 2: batch statistics need it; it is {self.batch_size}.")
        else:
            problems += self.method.check_batch(self.batch_size)
        if self.accumulate < 1 or self.batch_size % max(1, self.accumulate):
            problems.append(f"accumulate must divide batch_size ({self.batch_size}); it is {self.accumulate}.")
        if self.accumulate > 1 and self.method.compares_images:
            problems.append(
                f"accumulate is refused for {self.method.name}: its loss compares all images of a batch, so smaller "
                "passes would add up to another gradient. Use micro_batch, or a smaller batch_size."
            )
        if self.accumulate > 1 and getattr(self.method, "target_residual_bits", None) is not None:
            problems.append("target-residual-bits is measured on whole batches: it goes with accumulate = 1 only.")
        if self.micro_batch is not None:
            problems += self._check_micro_batch(self.micro_batch)
        if getattr(self.method, "latent_dim", None) == 0 and not self.encoder.name.startswith("timm/"):
            problems.append(
                "method.latent_dim = 0 is refused for ResNets: behind their last ReLU no feature is negative, so every "
                "bit would be 1. Give a latent_dim of 1 or more."
            )
        if self.views.local > 0 and not self.method.multi_crop:
            problems.append(f"views.local is refused for {self.method.name}: its objective is of two views.")
        if self.cuda_graphs and not self.compile:
            problems.append("cuda_graphs needs compile: the graphs are those of the compiled encoder.")
        if self.knn_every < 0:
            problems.append(f"knn_every must not be negative; it is {self.knn_every}.")
        if self.threads is not None and self.threads < 1:
            problems.append(f"threads must be at least 1; it is {self.threads}.")
        problems += check_device(self.device) + check_seed(self.seed)
        return problems

    def _check_micro_batch(self, images: int) -> list[str]:
        problems = []
        if images < 2:
            problems.append(f"micro_batch must be at least 2: batch statistics need it; it is {images}.")
        elif self.batch_size % images:
            problems.append(f"micro_batch must divide batch_size ({self.batch_size}); it is {images}.")
        if self.accumulate > 1:
            problems.append("micro_batch and accumulate both split a batch: give micro_batch alone, which is exact.")
        return problems

    @property
    def micro_batches(self) -> int:
        """How many parts the encoder takes a batch in."""
        return 1 if self.micro_batch is None else self.batch_size // self.micro_batch

    def run_folder(self) -> Path:
        """Where the run is kept."""
        if self.out is not None:
            return self.out.expanduser()
        path = Path(self.data.path).expanduser()
        name = path.resolve().name if path.exists() else self.data.path.replace(":", "-").replace("/", "-")
        return Path("runs") / f"{name}-{self.method.name}"
