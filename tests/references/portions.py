"""What the objective reads, made of captions alone."""

import torch

from bcos_diffusion.objective import Portion, draw_timesteps
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.text.clip_tokenizer import ClipTokenizer
from bcos_diffusion.training.draws import draw


def portion(tokenizer: Tokenizer | ClipTokenizer, captions: list[str], size: int) -> Portion:
    """Samples 0, 1, … of a run with these captions, each with an equal share, all of them read by the effect term."""
    n, batch = len(captions), tokenizer.encode(captions)
    draws = draw(4, range(n), batch.ids.shape[1], size=size)
    images = torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    share = torch.full((n,), 1 / n)
    t = draw_timesteps(draws.t, 1000)
    return Portion(images, batch, t, draws.noise, share, list(range(n)), draws.effect, share)
