//! The whole system under test: real binaries, real sockets.
