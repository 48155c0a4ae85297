"""The network: backbone, hybrid encoder, decoder."""
