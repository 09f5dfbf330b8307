"""What tests share: small models, checkpoints, reference definitions, the C interface by ctypes."""
