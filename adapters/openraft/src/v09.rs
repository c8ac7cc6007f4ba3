//! Log storage for openraft 0.9 with its feature `storage-v2`.
