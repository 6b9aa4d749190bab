"""The network: configuration, flat batch, KV cache, layers, readout. Imports no other room."""
