//! Runs functions: wasmi and nothing else.
