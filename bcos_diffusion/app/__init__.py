"""A page that draws a prompt and shows, exactly, which word made which pixel: ``bcos-diffusion app``."""
