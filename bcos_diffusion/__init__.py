"""Text-to-image diffusion whose every pixel is traced to the words that made it."""
