"""The figures and tables of "Interpretable Diffusion Models with B-cos Networks", each as one command.

``bcos-diffusion paper NAME`` draws one for any model; docs/paper.md shows all of them for the shipped one.
"""
