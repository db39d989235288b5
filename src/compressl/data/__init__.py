"""Images: where they come from, the packed store they are decoded into once, and the loader that feeds a device."""

from compressl.data.arrays import ArraySource
from compressl.data.cache import Damaged, default_cache, verify
from compressl.data.decode import LIMITS, Limits, UnreadableImage, decode, decode_squashed, probe
from compressl.data.delivery import Batch
from compressl.data.digits import DigitsSource
from compressl.data.folder import FolderSource
from compressl.data.loader import Batches, batches
from compressl.data.packing import suggest_view_size
from compressl.data.parquet import ParquetSource
from compressl.data.source import Source, Subset
from compressl.data.sources import Splits, open_source, open_splits
from compressl.data.store import PackedImages, pack, side_for
from compressl.data.tar import TarSource

__all__ = [
    "LIMITS",
    "ArraySource",
    "Batch",
    "Batches",
    "Damaged",
    "DigitsSource",
    "FolderSource",
    "Limits",
    "PackedImages",
    "ParquetSource",
    "Source",
    "Splits",
    "Subset",
    "TarSource",
    "UnreadableImage",
    "batches",
    "decode",
    "decode_squashed",
    "default_cache",
    "open_source",
    "open_splits",
    "pack",
    "probe",
    "side_for",
    "suggest_view_size",
    "verify",
]
