"""The neuron's scan as compiled loops, on the CPU and on CUDA devices."""
