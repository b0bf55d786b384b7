"""LAION as the paper uses it (Appendix D): select captions, download their images, train on the shards."""
