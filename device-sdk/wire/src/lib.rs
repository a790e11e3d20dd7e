//! The bytes between a device and a gateway: the event envelope.
