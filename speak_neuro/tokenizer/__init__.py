"""Characters to current and gate, and the neuron behind them."""
