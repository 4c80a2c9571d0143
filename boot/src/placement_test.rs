//! Tests of bringing files into memory.
