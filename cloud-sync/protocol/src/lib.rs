//! The messages between a gateway and the control plane.
