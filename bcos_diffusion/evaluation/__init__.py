"""How far a pipeline's explanations are true, measured on test scenes and test prompts, beside every rival's.

``bcos-diffusion evaluate --out DIR`` runs the protocol and writes a report; :func:`~protocol.run` does it from Python.
Every number has a 95% bootstrap interval over scenes or prompts. Relevance over a corpus, by word and by part of
speech (the paper's Tables 1 and 2), is :mod:`bcos_diffusion.paper.tokens`.
"""
