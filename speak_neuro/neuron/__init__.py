"""The gated-reset neuron: reference, integers, torch, snnTorch module."""
