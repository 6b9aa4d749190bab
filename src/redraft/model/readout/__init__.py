"""The readout: hidden states → sample, argmax, entropy and soft embedding. Plain, and streamed over the vocabulary."""
