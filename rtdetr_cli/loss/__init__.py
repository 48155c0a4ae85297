"""The loss of RT-DETR: matching, its three terms, and their sum over all layers."""
