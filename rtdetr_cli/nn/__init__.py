"""The network and nothing else: backbone, hybrid encoder, decoder."""
