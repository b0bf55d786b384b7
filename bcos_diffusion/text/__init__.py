"""From prompts to what a U-Net reads: tokenizers, and text encoders that are trained with it or frozen."""

from bcos_diffusion.text.batch import END, LAYOUT, PADDING, START, TextBatch
from bcos_diffusion.text.tokenizer import LENGTH, Tokenizer, bpe

__all__ = ["END", "LAYOUT", "LENGTH", "PADDING", "START", "TextBatch", "Tokenizer", "bpe"]
