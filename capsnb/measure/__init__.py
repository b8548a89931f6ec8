"""What the papers measure: plain functions of tensors, one module per kind of measurement."""
