//! What a device needs to publish events that take effect exactly once: no_std, no allocator.
