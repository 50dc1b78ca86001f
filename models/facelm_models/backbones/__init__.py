"""Visual backbones shared by the architectures."""
