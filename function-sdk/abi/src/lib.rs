//! The contract between the gateway (host) and a function (guest).
