"""What `ptq`, `qat`, `binarise` and `share_kernels` share: ranges, codes, grids, sensitivity."""
