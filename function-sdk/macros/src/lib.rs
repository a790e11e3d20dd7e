//! The handler attribute of function-sdk.
