"""The loop: what the loss sees, packing, masks, limits, resume."""
