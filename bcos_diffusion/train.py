"""Train a model: ``train(TrainConfig(out=…))``, on one process or many, on scenes or on shards."""

from bcos_diffusion.training.config import TrainConfig
from bcos_diffusion.training.trainer import train

__all__ = ["TrainConfig", "train"]
