"""Networks: encoders, heads and the slow copy. They know no loss."""

from compressl.models.encoders import EncoderCard, create_encoder, load_encoder, save_encoder
from compressl.models.micro_batches import chunked
from compressl.models.norm import synchronize
from compressl.models.resnet import ResNet

__all__ = ["EncoderCard", "ResNet", "chunked", "create_encoder", "load_encoder", "save_encoder", "synchronize"]
